"""Compacts the logs and records of jobs that have ended `FLEET_COMPACT_AFTER_S` ago.

While Redis's memory is short they are compacted seconds after their end, because nothing of them is
lost, and it is before jobs are removed (docs/adr/0064).

The maintainer does it, between two checks of leases and for a quarter of that time. A job costs
nothing for it while it runs: the list of all jobs by creation is walked, up to those that may have
ended long enough ago, and a job that is not ready then goes into `fleet:uncompacted` with the time
of its next check. The place in the list is kept in Redis for the next maintainer.

A log is read, packed here, and replaced in one script that first checks that nothing has changed: a
maintainer may die at any point, and two of them do no harm.
"""

import asyncio
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from contract import redis_keys
from contract.errors import NewerVersion
from contract.events import LAST_WORDS
from relay.compaction.block import Entry, compacted, frames_in, record_entry
from relay.compaction.log_reader import until_end
from relay.connection import Argument, Connection, DamagedKey, ScriptCall
from relay.scripts.loader import load
from telemetry.repeated_warnings import RepeatedWarnings

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_PAGE: Final = 200
_GROUP: Final = 64
_GROUP_BYTES: Final = 2**20
"""Jobs, and bytes of their logs and records in Redis, that are read in one round trip, and held."""
_LARGEST_BYTES: Final = 4 * 2**20
"""A job with a larger log or record is left as it is: a script that replaces it would block Redis
for milliseconds, and the process would have to hold all of it."""
_LONG_WORK_BYTES: Final = 32 * 1024
"""A job that is larger is packed in a thread, or requests would wait for it for milliseconds."""
_SOON_S: Final = 5.0
"""After its end a job is compacted, at the latest, while memory is short."""
_SHORT: Final = 1 / 2
"""Of the mark above which jobs are removed: memory is short from there on."""
_RUNS_FOR_S: Final = 60.0
"""Most jobs end within this time; others are looked at a second time."""
_LEAST_SAVED: Final = 8
"""A log is left as it is if less than this fraction (an eighth) would be saved."""
_PAUSES: Final = 3
"""Times as long as it works it pauses, so that its worker's jobs go on; once while memory is short.
"""
_LONG_BYTES: Final = 64
"""Redis keeps a hash small in memory if no value is longer (hash-max-listpack-value)."""
_MOVED: Final = ("request", "metadata")
_DROPPED: Final = "facts"
"""Fields of a record that nothing needs after the end."""
_GONE: Final = (None,) * 4
"""What is read of a record that is gone, or that is another type of key."""


class _Job(NamedTuple):
    """What decides about a job, and the bytes of its log and its record in Redis."""

    id: str
    status: str
    ended_at: str
    """As the record has it (unix seconds); empty until the end."""
    is_compacted: bool
    log_bytes: int
    record_bytes: int

    @property
    def size_bytes(self) -> int:
        """What is read of it."""
        return self.log_bytes + self.record_bytes

    @property
    def is_ready(self) -> bool:
        """Whether it can be compacted now."""
        is_small = max(self.log_bytes, self.record_bytes) <= _LARGEST_BYTES
        return self.status in LAST_WORDS and not self.is_compacted and is_small


class Compactor:
    """Compacts jobs; one at a time is enough for a fleet."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._is_short = False
        """Whether Redis has little memory left, as of the last turn."""

    async def compact_for(self, seconds: float) -> None:
        """Compact what is due; return after so many seconds. Raises RelayUnavailable."""
        now = asyncio.get_running_loop().time
        until = now() + seconds
        await self.look_at_memory()
        while (began := now()) < until:
            is_busy = False
            with self._connection.passing_over("a log to compact"):
                is_busy = self._after_s > 0 and await self.compact_some(until)
            left_s, pauses = until - now(), 1 if self._is_short else _PAUSES
            await asyncio.sleep(min(left_s, pauses * (now() - began)) if is_busy else left_s)

    async def look_at_memory(self) -> None:
        """Learn whether memory is short: then jobs are compacted soon; raises RelayUnavailable."""
        mark = self._connection.settings.memory_high_water
        with self._connection.passing_over("how much memory is left"):
            used, limit = await self._connection.memory()
            self._is_short = limit > 0 and used > _SHORT * mark * limit

    @property
    def _after_s(self) -> float:
        after_s = self._connection.settings.compact_after_s
        return min(after_s, _SOON_S) if self._is_short else after_s

    async def compact_some(self, until: float) -> bool:
        """Compact the jobs of one page. Returns whether there was any.

        Stops at `until` (seconds of the event loop's clock), and begins this page again next time.
        Raises RelayUnavailable.
        """
        now = self._connection.now()
        waiting = await self._waiting(now)
        created, cursor = await self._created(now)
        jobs = await self._looked_at(dict.fromkeys([*waiting, *created]))
        later = {job.id: at for job in jobs if (at := self._checked_again_at(job, now)) is not None}
        if later:
            # First of all, so that a maintainer that dies loses none.
            await self._connection.call(look_again(later))
        ready = [job for job in jobs if job.is_ready and job.id not in later]
        if not await self._compact(ready, until):
            return True
        finished = [id for id in waiting if id not in later]
        if finished:
            await self._connection.command("ZREM", redis_keys.UNCOMPACTED, *finished)
        if cursor is not None:
            await self._connection.call(note_place(cursor))
        return bool(waiting or created)

    async def _waiting(self, now: float) -> list[str]:
        """Jobs that had not ended long enough ago when they were looked at, and are due again."""
        ids = await self._connection.command(
            "ZRANGEBYSCORE", redis_keys.UNCOMPACTED, "-inf", f"{now:.3f}", "LIMIT", 0, _PAGE
        )
        return [id.decode(errors="replace") for id in ids]

    async def _created(self, now: float) -> tuple[list[str], str | None]:
        """The next jobs by creation, and the cursor that follows them."""
        cursor = await self._cursor()
        until = now - self._after_s - min(self._after_s, _RUNS_FOR_S)
        ids: list[bytes] = await self._connection.command(
            "ZRANGEBYSCORE", redis_keys.RECENT, "-inf" if cursor is None else f"({cursor!r}",
            f"{until:.6f}", "LIMIT", 0, _PAGE,
        )  # fmt: skip
        score = (
            await self._connection.command("ZSCORE", redis_keys.RECENT, ids[-1]) if ids else None
        )
        if score is None:
            return [id.decode(errors="replace") for id in ids], None
        last = repr(float(score))
        same = await self._connection.command("ZRANGEBYSCORE", redis_keys.RECENT, last, last)
        return [id.decode(errors="replace") for id in dict.fromkeys([*ids, *same])], last

    async def _cursor(self) -> float | None:
        """How far it has come; None, so that it begins anew, without a time that can be read."""
        (text,) = await self._connection.replies([("GET", redis_keys.COMPACTED)])
        found: float | None = None
        with self._connection.passing_over(redis_keys.COMPACTED):
            if text is not None and math.isfinite(at := float(text)):
                found = at
        return found

    async def _looked_at(self, ids: Iterable[str]) -> list[_Job]:
        """Those of the jobs that exist."""
        commands: list[tuple[Argument, ...]] = []
        for id in ids:
            commands.append(
                ("HMGET", redis_keys.record(id), "id", "status", "ended_at", "compacted")
            )
            commands.append(("MEMORY", "USAGE", redis_keys.log(id)))
            # Every field: a request may be larger than all others together.
            commands.append(("MEMORY", "USAGE", redis_keys.record(id), "SAMPLES", 0))
        replies = await self._connection.replies(commands)
        return [
            _Job(
                id.decode(errors="replace"),
                status.decode(errors="replace"),
                self._time(redis_keys.record(id.decode(errors="replace")), ended_at or b""),
                done is not None,
                log_bytes,
                record_bytes,
            )
            for (id, status, ended_at, done), log_bytes, record_bytes in zip(
                (each or _GONE for each in replies[::3]), replies[1::3], replies[2::3], strict=True
            )
            if id is not None and status is not None
            if log_bytes is not None and record_bytes is not None
        ]

    def _time(self, key: str, text: bytes) -> str:
        """The time in a record as it stands there; empty, so that the job is due, if it is none."""
        found = ""
        with self._connection.passing_over(key):
            if text and math.isfinite(float(text)):
                found = text.decode()
        return found

    def _checked_again_at(self, job: _Job, now: float) -> float | None:
        """When to look again at a job that has not ended long enough ago (unix seconds)."""
        has_ended = job.status in LAST_WORDS
        ready_at = (float(job.ended_at or 0) if has_ended else now) + self._after_s
        return ready_at if ready_at > now else None

    async def _compact(self, jobs: Sequence[_Job], until: float) -> bool:
        """Compact jobs; false if time was up before all were."""
        for group in _groups(jobs):
            if asyncio.get_running_loop().time() >= until:
                return False
            try:
                await self._compact_group(group)
            except DamagedKey:
                for job in group:
                    await self._compact_alone(job)
        return True

    async def _compact_alone(self, job: _Job) -> None:
        try:
            await self._compact_group([job])
        except DamagedKey as error:
            _repeated.warn("job %s is not compacted: %s", job.id, error)

    async def _compact_group(self, jobs: Sequence[_Job]) -> None:
        replies = await self._connection.pipeline(
            [
                command
                for job in jobs
                for command in (
                    ("XRANGE", redis_keys.log(job.id), "-", "+"),
                    ("HMGET", redis_keys.record(job.id), *_MOVED),
                )
            ]
        )
        calls = [
            call
            for job, log, fields in zip(jobs, replies[::2], replies[1::2], strict=True)
            if (call := await _call(job, log, fields)) is not None
        ]
        await self._connection.calls(calls)


def _groups(jobs: Sequence[_Job]) -> list[list[_Job]]:
    groups: list[list[_Job]] = []
    size_bytes = 0
    for job in jobs:
        size_bytes += job.size_bytes
        if not groups or len(groups[-1]) == _GROUP or size_bytes > _GROUP_BYTES:
            groups.append([])
            size_bytes = job.size_bytes
        groups[-1].append(job)
    return groups


async def _call(job: _Job, log: Sequence[Any], fields: Sequence[Any]) -> ScriptCall[bool] | None:
    """The call that compacts a job; None if it would save too little, or cannot be read."""
    moved = {
        name: value
        for name, value in zip(_MOVED, fields, strict=True)
        if value is not None and len(value) > _LONG_BYTES
    }
    entries: Sequence[Entry] | None
    try:
        if job.size_bytes > _LONG_WORK_BYTES:
            entries = await asyncio.to_thread(_packed, log, moved)
        else:
            await asyncio.sleep(0)
            entries = _packed(log, moved)
    except (NewerVersion, ValueError) as error:
        _repeated.warn("job %s is not compacted, its log cannot be read: %s", job.id, error)
        return None
    if entries is None:
        return None
    return compact(
        job.id, ended_at=job.ended_at, length=len(log), moved=list(moved), entries=entries
    )


def _packed(log: Sequence[Any], moved: Mapping[str, bytes]) -> list[Entry] | None:
    """The entries that hold a log and what is moved from a record; None if that saves too little.

    Raises NewerVersion, ValueError.
    """
    frames = [frame for _, held in log for frame in frames_in(held)]
    if len(until_end(frames)) < len(frames):
        raise ValueError("something stands behind its end")
    entries = [record_entry(moved)] if moved else []
    entries += compacted(frames)
    before = sum(len(value) for _, held in log for value in held.values())
    before += sum(map(len, moved.values()))
    after = sum(len(entry.value) for entry in entries)
    return entries if log and before - after >= before / _LEAST_SAVED else None


def look_again(later: Mapping[str, float]) -> ScriptCall[None]:
    """Have jobs looked at again at these times (unix seconds)."""
    pairs: list[Argument] = [each for id, at in later.items() for each in (f"{at:.3f}", id)]
    script = load("compaction/look_again")
    return ScriptCall(script, [redis_keys.UNCOMPACTED], pairs, lambda _: None)


def note_place(cursor: str) -> ScriptCall[None]:
    """Keep how far the list of jobs has been looked at."""
    script = load("compaction/note_place")
    return ScriptCall(script, [redis_keys.COMPACTED], [cursor], lambda _: None)


def compact(
    job_id: str, *, ended_at: str, length: int, moved: Sequence[str], entries: Sequence[Entry]
) -> ScriptCall[bool]:
    """Replace an ended job's log by these entries, and drop what its record does not need any more.

    `moved` are fields of the record that the entries hold. False, and nothing is done, if the job
    has not ended then, if its log has not this length, or if it is compacted.
    """
    keys = [redis_keys.record(job_id), redis_keys.log(job_id)]
    args: list[Argument] = [ended_at, length, " ".join(moved), _DROPPED]
    for entry in entries:
        args += entry
    return ScriptCall(load("jobs/compact"), keys, args, bool)
