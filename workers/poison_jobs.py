"""Runs jobs with which workers died one at a time, so that a poison job fails alone.

A worker that dies loses all its jobs, and which of them was the cause is unknown. After one death
they continue together, because mostly none was. After two, a worker runs one of them at a time: the
poison job uses up its last attempt beside jobs that have attempts left.
"""

import random
from typing import Final

from contract.jobs import JobRecord

DEATHS: Final = 2
REASON: Final = "two workers died with it, so it runs apart from others like it"
_DELAY_S: Final = (1.0, 4.0)


class PoisonJobs:
    """The one slot of a worker for such jobs."""

    def __init__(self) -> None:
        """Start with the slot free."""
        self._running: str | None = None

    def enter(self, record: JobRecord) -> bool:
        """Return whether the job may run now; if so, call `leave` when it has ended."""
        if record.lost < DEATHS:
            return True
        if self._running is not None:
            return False
        self._running = record.id
        return True

    def leave(self, record: JobRecord) -> None:
        """Free the slot if the job holds it."""
        if self._running == record.id:
            self._running = None

    @staticmethod
    def delay_s() -> float:
        """Return the seconds for which a job that may not enter is delayed."""
        return random.uniform(*_DELAY_S)  # noqa: S311 - jitter, not a secret
