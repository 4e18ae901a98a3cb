"""The roster: the reports of all live workers, and the backends that are known without one.

A report that is not renewed expires. What a worker reported of a healthy backend is remembered for
`FLEET_REMEMBER_S` after its last worker, so that jobs may wait for a worker that is to be started
(docs/adr/0036).
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from contract import redis_keys
from contract.errors import RelayFull
from contract.redis_keys import backend_of
from contract.roster import BackendReport, KnownBackend, WorkerReport
from contract.wire import decode, encode
from relay.connection import Argument, Connection, ScriptCall, pairs
from relay.scripts.loader import load

REPORT_TTL_S: Final = 15
"""Seconds that a report lives; workers renew it about every five."""
_REWRITE_S: Final = 240.0
"""Seconds after which an unchanged report is written again, and what is known of its backend."""
_FRESH_S: Final = 4.0
"""Seconds after a renewal in which the report is not renewed again."""
_MEMBER_S: Final = 600
"""Seconds that a worker stays in the set of workers whose reports are read."""
_MOST_KNOWN: Final = 10_000
"""Queues that are known at most; those that were not served for longest are forgotten."""
_BACKEND: Final = "backend"
"""The field of a known backend's hash that is no queue."""


class Roster(NamedTuple):
    """The fleet at one time."""

    workers: list[WorkerReport]
    """Live workers, by name."""
    known: list[KnownBackend]
    """Backends with a queue that no live worker consumes, by name; only those queues."""


class RosterStore:
    """Writes and reads reports of workers."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._connection = connection
        self._last: WorkerReport | None = None
        self._written_at = self._renewed_at = 0.0
        self._remembered: list[KnownBackend] = []
        self._remembered_at = float("-inf")

    async def report(self, worker: WorkerReport) -> None:
        """Write a worker's report; an unchanged one is only renewed, in one command.

        Raises RelayUnavailable.
        """
        now = time.monotonic()
        is_changed = worker != self._last or now - self._written_at > _REWRITE_S
        if not is_changed and now - self._renewed_at < _FRESH_S:
            return
        if is_changed or not await self._renewed(worker.name):
            try:
                await self._write(worker)
            except RelayFull:
                # Of its disk; the old report lives on as long as that can be told.
                await self._renewed(worker.name)
                raise
            self._last, self._written_at = worker, now
        self._renewed_at = now

    async def _renewed(self, name: str) -> bool:
        return bool(
            await self._connection.command("EXPIRE", redis_keys.worker_report(name), REPORT_TTL_S)
        )

    async def _write(self, worker: WorkerReport) -> None:
        now, keep_s = self._connection.now(), int(self._connection.settings.remember_s)
        known = (_known(report, worker) for report in worker.backends if report.healthy)
        found = [each for each in known if each.slots]
        is_due = time.monotonic() - self._remembered_at > _REWRITE_S
        remembered = found if is_due or found != self._remembered else []
        calls = [write_report(worker, now)]
        calls += [remember(each, now, keep_s) for each in remembered if keep_s]
        await self._connection.calls(calls)
        if remembered:
            self._remembered, self._remembered_at = found, time.monotonic()

    async def leave(self, worker: str) -> None:
        """Remove a worker from the roster; raises RelayUnavailable."""
        await self._connection.pipeline(
            [("DEL", redis_keys.worker_report(worker)), ("ZREM", redis_keys.ROSTER, worker)]
        )

    async def forget(self, backend: str) -> bool:
        """Forget what is known of a backend; returns whether anything was.

        A live worker of it writes it again within minutes. Raises RelayUnavailable.
        """
        key = redis_keys.known(backend)
        fields = await self._connection.command("HKEYS", key)
        if not fields:
            return False
        await self._connection.pipeline([("ZREM", redis_keys.KNOWN, *fields), ("DEL", key)])
        return True

    async def workers(self) -> list[WorkerReport]:
        """Reports of all live workers, sorted by name; raises RelayUnavailable."""
        return await self._reports(
            await self._connection.command("ZRANGE", redis_keys.ROSTER, 0, -1)
        )

    async def read(self) -> Roster:
        """Live workers, and what is known of queues that none of them consumes.

        Costs a round trip more than `workers` while there are such queues. Raises RelayUnavailable.
        """
        members, seen = await self._connection.replies(
            [
                ("ZRANGE", redis_keys.ROSTER, 0, -1),
                ("ZRANGE", redis_keys.KNOWN, 0, -1, "WITHSCORES"),
            ]
        )
        workers = await self._reports(members or ())
        known = pairs(seen or ())
        absent = {queue.decode(errors="replace"): float(at) for queue, at in known.items()}
        for queue in consumed(workers):
            absent.pop(queue, None)
        return Roster(workers, await self._absent(absent))

    async def _reports(self, members: Iterable[bytes]) -> list[WorkerReport]:
        keys = [
            redis_keys.worker_report(member.decode(errors="replace")) for member in sorted(members)
        ]
        if not keys:
            return []
        reports = await self._connection.command("MGET", *keys)
        await self._connection.name_other_types(
            [key for key, text in zip(keys, reports, strict=True) if text is None]
        )
        found: list[WorkerReport] = []
        for key, text in zip(keys, reports, strict=True):
            with self._connection.passing_over(key):
                found += [decode(WorkerReport, text)] if text else []
        return found

    async def _absent(self, seen_at: Mapping[str, float]) -> list[KnownBackend]:
        """The backends of these queues, which no live worker consumes."""
        names = sorted({backend_of(queue) for queue in seen_at})
        keys = [redis_keys.known(name) for name in names]
        hashes = await self._connection.replies([("HGETALL", key) for key in keys])
        found: list[KnownBackend] = []
        for key, fields in zip(keys, hashes, strict=True):
            with self._connection.passing_over(key):
                recalled = _recalled(fields or {}, seen_at)
                found += [] if recalled is None else [recalled]
        return found


def write_report(worker: WorkerReport, now: float) -> ScriptCall[int]:
    """Write a worker's report as of `now` (unix seconds).

    Its queues outlive it: a backend whose only worker restarts is down, not unknown.
    """
    keys = [redis_keys.worker_report(worker.name), redis_keys.ROSTER, redis_keys.QUEUES]
    queues = [queue.name for queue in worker.queues]
    args: list[Argument] = [
        worker.name, encode(worker), REPORT_TTL_S, f"{now:.3f}", _MEMBER_S, *queues,
    ]  # fmt: skip
    return ScriptCall(load("roster/report"), keys, args, int)


def remember(backend: KnownBackend, now: float, keep_s: int) -> ScriptCall[int]:
    """Remember a backend and its queues for `keep_s` seconds after `now`."""
    keys = [redis_keys.known(backend.backend.name), redis_keys.KNOWN]
    slots = [word for pair in backend.slots.items() for word in pair]
    args: list[Argument] = [
        _BACKEND, encode(backend.backend), keep_s, f"{now:.3f}", _MOST_KNOWN, *slots,
    ]  # fmt: skip
    return ScriptCall(load("roster/remember"), keys, args, int)


def consumed(workers: Iterable[WorkerReport]) -> set[str]:
    """Queues from which a worker takes jobs; one that drains takes none."""
    return {queue.name for worker in workers if not worker.draining for queue in worker.queues}


def _known(report: BackendReport, worker: WorkerReport) -> KnownBackend:
    """What is worth remembering of a report: not what changes by the minute."""
    models = tuple(model.model_copy(update={"warm": None}) for model in report.models)
    lasting = {"models": models, "endpoints": (), "healthy": False, "error": None}
    slots = {
        queue.name: queue.slots for queue in worker.queues if backend_of(queue.name) == report.name
    }
    return KnownBackend(backend=report.model_copy(update=lasting), slots=slots)


def _recalled(fields: Mapping[bytes, Any], seen_at: Mapping[str, float]) -> KnownBackend | None:
    """A known backend with those of its queues that are in `seen_at`; raises ValueError."""
    slots = {
        queue: int(count)
        for name, count in fields.items()
        if (queue := name.decode(errors="replace")) in seen_at
    }
    text = fields.get(_BACKEND.encode())
    if not slots or text is None:
        return None
    backend = decode(BackendReport, text)
    last_seen_at = max(seen_at[queue] for queue in slots)
    return KnownBackend(backend=backend, slots=slots, last_seen_at=last_seen_at)
