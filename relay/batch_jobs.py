"""The jobs of a batch's rows, many at a time: which have ended, and forgotten once that is kept.

A row's answer stands in its job's log until a part of the batch's output holds it. Then the job is
forgotten, dead letter or not: fifty thousand of them would fill Redis for a day.
"""

from collections.abc import Sequence
from typing import Final

from contract.result import Status
from relay.connection import Connection
from relay.scripts import jobs

_AT_ONCE: Final = 250


class BatchJobs:
    """Looks at jobs by their ids; raises RelayUnavailable everywhere."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection

    async def statuses(self, job_ids: Sequence[str]) -> list[Status | None]:
        """What each is now; None: there is no such job (any more)."""
        return await self._connection.call(jobs.statuses(job_ids))

    async def forget(self, job_ids: Sequence[str], tenant: str) -> None:
        """Drop records and logs of jobs that have ended, and whose answer is kept elsewhere."""
        for at in range(0, len(job_ids), _AT_ONCE):
            await self._connection.call(jobs.forget(job_ids[at : at + _AT_ONCE], tenant))
