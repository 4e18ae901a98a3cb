"""The jobs of a batch's rows, many at a time: which have ended, and forgotten once that is kept.

A row's answer stands in its job's log until a part of the batch's output holds it. Then the job is
forgotten, dead letter or not: fifty thousand of them would fill Redis for a day.
"""

from collections.abc import Sequence
from typing import Final, get_args

from contract import redis_keys
from contract.result import Status
from relay.connection import Connection

STATUSES: Final = """#!lua flags=no-writes,allow-oom
-- KEYS record...
local answer = {}
for i, record in ipairs(KEYS) do answer[i] = redis.call('HGET', record, 'status') or '' end
return answer
"""
"""What many jobs are now, in a hundredth of what as many commands would cost."""

FORGET: Final = """#!lua flags=allow-oom
-- KEYS recent own_recent dead (record log)...; ARGV id...
local ended = {done = true, failed = true, cancelled = true}
local gone = 0
for i, id in ipairs(ARGV) do
    local record, log = KEYS[2 + i * 2], KEYS[3 + i * 2]
    local status = redis.call('HGET', record, 'status')
    if not status or ended[status] then
        redis.call('UNLINK', record, log)
        redis.call('ZREM', KEYS[1], id)
        redis.call('ZREM', KEYS[2], id)
        redis.call('ZREM', KEYS[3], id)
        gone = gone + 1
    end
end
return gone
"""
"""Drop what is kept of jobs that have ended. Returns how many."""

_AT_ONCE: Final = 250
_STATUS: Final[dict[bytes, Status]] = {each.encode(): each for each in get_args(Status)}


class BatchJobs:
    """Looks at jobs by their ids; raises RelayUnavailable everywhere."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection

    async def statuses(self, job_ids: Sequence[str]) -> list[Status | None]:
        """What each is now; None: there is no such job (any more)."""
        found = await self._connection.run(STATUSES, [redis_keys.record(id) for id in job_ids])
        return [_STATUS[text] if text else None for text in found]

    async def forget(self, job_ids: Sequence[str], tenant: str) -> None:
        """Drop records and logs of jobs that have ended, and whose answer is kept elsewhere."""
        lists = [redis_keys.RECENT, redis_keys.recent(tenant), redis_keys.DEAD]
        for at in range(0, len(job_ids), _AT_ONCE):
            ids = job_ids[at : at + _AT_ONCE]
            own = [key for id in ids for key in (redis_keys.record(id), redis_keys.log(id))]
            await self._connection.run(FORGET, [*lists, *own], ids)
