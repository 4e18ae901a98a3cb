"""Aliases that admins set, and the moves of jobs from one target of an alias to the next."""
