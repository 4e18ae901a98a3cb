-- Defines ended: the terminal statuses of a job, as a set.
local ended = {done = true, failed = true, cancelled = true}
