"""Jobs that wait for other jobs: children, registered with their parents, freed at their end.

A child is in `redis_keys.BLOCKED` from before it exists until it waits for no other job any more,
by the time of the next look at it. Its parents hold its id (`jobs/adopt`); the script that writes a
parent's terminal event notes the parent in `redis_keys.PARENTS`. The maintainer then has its
children looked at, at once, and every other child each minute, so that a process that dies between
two steps leaves nothing behind. A look reads the states of all parents of a child and is idempotent
(docs/adr/0051).
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from contract import redis_keys
from contract.errors import JobNotFound, ParentFailed
from contract.jobs import JobRecord
from contract.requests import Request
from contract.result import Status
from contract.tenants import Tenant
from relay.connection import Connection
from relay.leases import Leases
from relay.records import Records
from relay.scheduling.later import LONGEST_WAIT_S
from relay.scripts import jobs, queues

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 100
_MOST_A_PASS: Final = 2_000
"""Children that one pass looks at; the rest waits for the next pass."""
_LOOK_AGAIN_S: Final = 60.0
_SETTLED_S: Final = 10.0
"""Seconds after which an enqueue that is only half there is not on its way any more."""
_ENDED: Final[frozenset[Status | None]] = frozenset({"done", "failed", "cancelled", None})
"""None: the record has expired or was deleted."""


class _Child(NamedTuple):
    job_id: str
    queue: str
    status: str
    after: tuple[str, ...]
    after_any: tuple[str, ...]
    done: tuple[str, ...] = ()
    """Those of `after` that a look has found done; they may be gone by now."""

    def finds_done(self, statuses: Mapping[str, Status | None]) -> set[str]:
        """Those of `after` that are done, by their states or an earlier look."""
        return {each for each in self.after if statuses[each] == "done" or each in self.done}


class Parents:
    """Registers children and looks at them."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._records = Records(connection)
        self._leases = Leases(connection)

    async def require(self, request: Request, tenant: Tenant) -> None:
        """Check that all parents exist and that the tenant may see them.

        Raises JobNotFound, with the same text for another tenant's job; RelayUnavailable.
        """
        named = [*(request.after or ()), *(request.after_any or ())]
        fields = await self._connection.replies(
            [("HGET", redis_keys.record(job_id), "tenant") for job_id in named]
        )
        for job_id, owner in zip(named, fields, strict=True):
            if owner is None or not (tenant.admin or owner.decode(errors="replace") == tenant.name):
                raise JobNotFound(
                    f"there is no job {job_id} to wait for, or it ended so long ago that its log "
                    "has expired: leave it out of after and after_any"
                )

    async def announce(self, job_id: str) -> None:
        """Have a child that is about to be enqueued looked at soon; raises RelayUnavailable."""
        at = f"{self._connection.now() + _SETTLED_S:.3f}"
        await self._connection.command("ZADD", redis_keys.BLOCKED, at, job_id)

    async def attach(self, record: JobRecord) -> bool:
        """Register a new child with its parents; returns whether it waits for any of them.

        Raises RelayUnavailable; the maintainer completes it then.
        """
        parents = (*record.after, *record.after_any)
        ttl_s = int(LONGEST_WAIT_S + self._connection.settings.log_ttl_s)
        found = await self._connection.calls(
            [jobs.adopt(parent, record.id, ttl_s) for parent in parents]
        )
        statuses = dict(zip(parents, found, strict=True))
        child = _Child(record.id, record.queue, "queued", record.after, record.after_any)
        if not await self._look_at(child, statuses):
            await self._note_done([child], statuses)
            return True
        await self._leases.wake(record.queue)
        return False

    async def keep(self) -> int:
        """Free or fail children whose parents have ended. Returns how many; for the maintainer.

        Raises RelayUnavailable.
        """
        settled = 0
        for _ in range(0, _MOST_A_PASS, _AT_ONCE):
            await self._note_ended_parents()
            due = await self._connection.command(
                "ZRANGEBYSCORE", redis_keys.BLOCKED, "-inf", f"{self._connection.now():.3f}",
                "LIMIT", 0, _AT_ONCE,
            )  # fmt: skip
            if not due:
                break
            settled += await self._look([child.decode(errors="replace") for child in due])
        return settled

    async def _note_ended_parents(self) -> None:
        """Have the children of parents that have ended looked at now."""
        ended = await self._connection.command(
            "ZRANGE", redis_keys.PARENTS, 0, _AT_ONCE - 1, "WITHSCORES"
        )
        for parent, ended_at in zip(ended[::2], ended[1::2], strict=True):
            name, some = parent.decode(errors="replace"), None
            # Of damaged ones each child is still looked at every minute.
            with self._connection.passing_over(redis_keys.children(name)):
                some = await self._connection.command(
                    "SRANDMEMBER", redis_keys.children(name), _MOST_A_PASS
                )
            if not some:
                await self._connection.command("ZREM", redis_keys.PARENTS, parent)
                continue
            children = [child.decode(errors="replace") for child in some]
            at = float(ended_at) - jobs.NOTED_S
            await self._connection.call(jobs.look_at(name, children, at))

    async def _look(self, job_ids: Sequence[str]) -> int:
        """Look at some children; returns how many wait no longer."""
        children = await self._read(job_ids)
        parents = sorted({each for child in children for each in (*child.after, *child.after_any)})
        found = await self._connection.call(jobs.statuses(parents)) if parents else []
        statuses = dict(zip(parents, found, strict=True))
        freed = [child for child in children if await self._is_freed(child, statuses)]
        for queue in sorted({child.queue for child in freed}):
            await self._leases.wake(queue)
        gone = set(job_ids) - {child.job_id for child in children}
        if gone:
            await self._connection.command("ZREM", redis_keys.BLOCKED, *gone)
        left = [child for child in children if child not in freed]
        if left:
            await self._note_done(left, statuses)
            again = self._connection.now() + _LOOK_AGAIN_S
            await self._connection.call(jobs.look_again([child.job_id for child in left], again))
        return len(freed)

    async def _note_done(
        self, children: Iterable[_Child], statuses: Mapping[str, Status | None]
    ) -> None:
        """Have children that go on waiting remember which parents are done."""
        found = [(child, child.finds_done(statuses)) for child in children]
        news = [jobs.note_done(child.job_id, done) for child, done in found if done - {*child.done}]
        if news:
            await self._connection.calls(news)

    async def _read(self, job_ids: Iterable[str]) -> list[_Child]:
        """The children of these ids that have not ended."""
        names = ("queue", "status", "after", "after_any", "done")
        ids = list(job_ids)
        rows = await self._connection.replies(
            [("HMGET", redis_keys.record(job_id), *names) for job_id in ids]
        )
        children = [
            _Child(
                job_id,
                row[0].decode(errors="replace"),
                row[1].decode(errors="replace"),
                _ids(row[2]),
                _ids(row[3]),
                _ids(row[4]),
            )
            for job_id, row in zip(ids, rows, strict=True)
            if row is not None and row[0] is not None and row[1] is not None
        ]
        return [child for child in children if child.status not in _ENDED]

    async def _is_freed(self, child: _Child, statuses: Mapping[str, Status | None]) -> bool:
        """As `_look_at`; one whose record is damaged waits, and no other one with it."""
        is_freed = False
        with self._connection.passing_over(redis_keys.record(child.job_id)):
            is_freed = await self._look_at(child, statuses)
        return is_freed  # noqa: RET504 - False where it was passed over

    async def _look_at(self, child: _Child, statuses: Mapping[str, Status | None]) -> bool:
        """Free or fail a child, if the states of its parents say so; returns whether it was."""
        done = child.finds_done(statuses)
        for parent in child.after:
            if (status := statuses[parent]) in _ENDED and parent not in done:
                is_gone = "is gone, so that it is not known whether it was done"
                ended = is_gone if status is None else f"was not done: it {_in_words(status)}"
                error = ParentFailed(f"job {parent}, which this one waits for, {ended}")
                await self._leases.end(child.queue, child.job_id, error)
                break
        else:
            if not all(statuses[each] in _ENDED for each in (*child.after, *child.after_any)):
                return False
            await self._free(child)
        await self._connection.command("ZREM", redis_keys.BLOCKED, child.job_id)
        return True

    async def _free(self, child: _Child) -> None:
        record = await self._records.find(child.job_id)
        if record is None:
            return
        try:
            request = await self._records.request(child.job_id)
        except JobNotFound:
            return  # it has ended meanwhile
        due = await self._connection.call(
            jobs.unblock(child.job_id, request.effective_deadline_s, record.not_before)
        )
        await self._connection.call(queues.unblock(child.queue, child.job_id, due))


def _in_words(status: Status) -> str:
    return "was cancelled" if status == "cancelled" else "failed"


def _ids(field: bytes | None) -> tuple[str, ...]:
    return tuple((field or b"").decode(errors="replace").split())
