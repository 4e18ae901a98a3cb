"""The roster: what every live worker says of itself. A worker that falls silent drops out."""

from typing import Final

from pydantic import ValidationError

from contract import names
from contract.roster import WorkerReport
from contract.wire import decode, encode
from relay.connection import Connection

REPORT_TTL_S: Final = 15
"""Seconds that a report stands; workers report about every four."""


class Roster:
    """Both ends of the roster."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection

    async def report(self, worker: WorkerReport) -> None:
        """Say that a worker lives, and what it serves; raises RelayUnavailable."""
        now = self._connection.now()
        expires_at = now + REPORT_TTL_S
        # Known by name from then on: a backend whose only worker restarts is away, not unknown.
        queues = [word for queue in worker.queues for word in (f"{now:.3f}", queue.name)]
        await self._connection.pipeline(
            [
                *([("ZADD", names.QUEUES, *queues)] if queues else []),
                ("SET", names.worker_report(worker.name), encode(worker), "EX", REPORT_TTL_S),
                ("ZADD", names.ROSTER, f"{expires_at:.3f}", worker.name),
                ("ZREMRANGEBYSCORE", names.ROSTER, "-inf", f"{now:.3f}"),
                ("EXPIRE", names.ROSTER, 4 * REPORT_TTL_S),
            ]
        )

    async def leave(self, worker: str) -> None:
        """Take a worker off the roster; raises RelayUnavailable."""
        await self._connection.pipeline(
            [("DEL", names.worker_report(worker)), ("ZREM", names.ROSTER, worker)]
        )

    async def workers(self) -> list[WorkerReport]:
        """Every live worker, by name; raises RelayUnavailable."""
        members = await self._connection.command("ZRANGE", names.ROSTER, 0, -1)
        if not members:
            return []
        reports = await self._connection.command(
            "MGET", *(names.worker_report(member.decode()) for member in sorted(members))
        )
        return [worker for text in reports if text and (worker := _read(text)) is not None]


def _read(text: bytes) -> WorkerReport | None:
    """A report, unless a newer version wrote it in a form that this one does not know."""
    try:
        return decode(WorkerReport, text)
    except ValidationError:
        return None
