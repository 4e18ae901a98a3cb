"""Keeps jobs with which workers died apart from each other, so that a poison job dies alone.

A worker that dies takes all its jobs with it, and which of them was the cause nobody knows. After
one death they all go on together, because mostly none was. After two, a worker runs one of them at
a time: the poison job uses up its last attempt among jobs that have attempts left.
"""

import random
from typing import Final

from contract.jobs import JobRecord

DEATHS: Final = 2
REASON: Final = "two workers died with it, so it runs apart from others like it"
_DELAY_S: Final = (1.0, 4.0)


class PoisonJobs:
    """The one place that a worker has for such jobs."""

    def __init__(self) -> None:
        """Nobody is inside."""
        self._running: str | None = None

    def enter(self, record: JobRecord) -> bool:
        """Whether the job may run now; if so, tell `leave` when it has ended."""
        if record.lost < DEATHS:
            return True
        if self._running is not None:
            return False
        self._running = record.id
        return True

    def leave(self, record: JobRecord) -> None:
        """The job runs no more."""
        if self._running == record.id:
            self._running = None

    @staticmethod
    def delay_s() -> float:
        """Seconds after which a job that may not enter should come again."""
        return random.uniform(*_DELAY_S)  # noqa: S311 - nobody is harmed who guesses it
