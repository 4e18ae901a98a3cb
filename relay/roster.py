"""The roster: what every live worker says of itself. A worker that falls silent drops out."""

import time
from typing import Final

from pydantic import ValidationError

from contract import redis_keys
from contract.roster import WorkerReport
from contract.wire import decode, encode
from relay.connection import Connection

REPORT_TTL_S: Final = 15
"""Seconds that a report stands; workers renew it about every five."""
_WHOLE_S: Final = 240.0
"""Seconds after which a report is written again although nothing has changed."""
_FRESH_S: Final = 4.0
"""Seconds for which a report is not renewed again."""
_MEMBER_S: Final = 600
"""Seconds for which a worker is in the list of those whose reports are asked for."""


class RosterStore:
    """Both ends of the roster."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._last: WorkerReport | None = None
        self._whole_at = self._told_at = 0.0

    async def report(self, worker: WorkerReport) -> None:
        """Say that a worker lives, and what it serves; raises RelayUnavailable.

        What has not changed is renewed, in one command.
        """
        now = time.monotonic()
        is_news = worker != self._last or now - self._whole_at > _WHOLE_S
        if not is_news and now - self._told_at < _FRESH_S:
            return
        if is_news or not await self._renewed(worker.name):
            await self._write(worker)
            self._last, self._whole_at = worker, now
        self._told_at = now

    async def _renewed(self, name: str) -> bool:
        return bool(
            await self._connection.command("EXPIRE", redis_keys.worker_report(name), REPORT_TTL_S)
        )

    async def _write(self, worker: WorkerReport) -> None:
        now = self._connection.now()
        expires_at = now + _MEMBER_S
        # Known by name from then on: a backend whose only worker restarts is away, not unknown.
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
        """Take a worker off the roster; raises RelayUnavailable."""
        await self._connection.pipeline(
            [("DEL", redis_keys.worker_report(worker)), ("ZREM", redis_keys.ROSTER, worker)]
        )

    async def workers(self) -> list[WorkerReport]:
        """Every live worker, by name; raises RelayUnavailable."""
        members = await self._connection.command("ZRANGE", redis_keys.ROSTER, 0, -1)
        if not members:
            return []
        reports = await self._connection.command(
            "MGET", *(redis_keys.worker_report(member.decode()) for member in sorted(members))
        )
        return [worker for text in reports if text and (worker := _read(text)) is not None]


def _read(text: bytes) -> WorkerReport | None:
    """A report, unless a newer version wrote it in a form that this one does not know."""
    try:
        return decode(WorkerReport, text)
    except ValidationError:
        return None
