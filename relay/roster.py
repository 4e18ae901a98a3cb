"""The roster: the reports of all live workers. A report that is not renewed expires."""

import time
from typing import Final

from pydantic import ValidationError

from contract import redis_keys
from contract.roster import WorkerReport
from contract.wire import decode, encode
from relay.connection import Connection

REPORT_TTL_S: Final = 15
"""Seconds that a report lives; workers renew it about every five."""
_REWRITE_S: Final = 240.0
"""Seconds after which an unchanged report is written again."""
_FRESH_S: Final = 4.0
"""Seconds after a renewal in which the report is not renewed again."""
_MEMBER_S: Final = 600
"""Seconds that a worker stays in the set of workers whose reports are read."""


class RosterStore:
    """Writes and reads reports of workers."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._connection = connection
        self._last: WorkerReport | None = None
        self._written_at = self._renewed_at = 0.0

    async def report(self, worker: WorkerReport) -> None:
        """Write a worker's report; an unchanged one is only renewed, in one command.

        Raises RelayUnavailable.
        """
        now = time.monotonic()
        is_changed = worker != self._last or now - self._written_at > _REWRITE_S
        if not is_changed and now - self._renewed_at < _FRESH_S:
            return
        if is_changed or not await self._renewed(worker.name):
            await self._write(worker)
            self._last, self._written_at = worker, now
        self._renewed_at = now

    async def _renewed(self, name: str) -> bool:
        return bool(
            await self._connection.command("EXPIRE", redis_keys.worker_report(name), REPORT_TTL_S)
        )

    async def _write(self, worker: WorkerReport) -> None:
        now = self._connection.now()
        expires_at = now + _MEMBER_S
        # Queues outlive the report: a backend whose only worker restarts is down, not unknown.
        queues = [word for queue in worker.queues for word in (f"{now:.3f}", queue.name)]
        await self._connection.pipeline(
            [
                *([("ZADD", redis_keys.QUEUES, *queues)] if queues else []),
                ("SET", redis_keys.worker_report(worker.name), encode(worker), "EX", REPORT_TTL_S),
                ("ZADD", redis_keys.ROSTER, f"{expires_at:.3f}", worker.name),
                ("ZREMRANGEBYSCORE", redis_keys.ROSTER, "-inf", f"{now:.3f}"),
                ("EXPIRE", redis_keys.ROSTER, _MEMBER_S),
            ]
        )

    async def leave(self, worker: str) -> None:
        """Remove a worker from the roster; raises RelayUnavailable."""
        await self._connection.pipeline(
            [("DEL", redis_keys.worker_report(worker)), ("ZREM", redis_keys.ROSTER, worker)]
        )

    async def workers(self) -> list[WorkerReport]:
        """Reports of all live workers, sorted by name; raises RelayUnavailable."""
        members = await self._connection.command("ZRANGE", redis_keys.ROSTER, 0, -1)
        if not members:
            return []
        reports = await self._connection.command(
            "MGET", *(redis_keys.worker_report(member.decode()) for member in sorted(members))
        )
        return [worker for text in reports if text and (worker := _read(text)) is not None]


def _read(text: bytes) -> WorkerReport | None:
    """A report; None if a newer version wrote it in a form that this one cannot read."""
    try:
        return decode(WorkerReport, text)
    except ValidationError:
        return None
