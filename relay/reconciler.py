"""Repairs what no single job or worker would: deadlines, lost queue entries, expired list entries.

It also moves jobs that have waited too long to the next target of their alias (relay/aliases), and
makes room in a Redis that is nearly full (relay/room).

A job's record outlives what Redis may lose of its queue (a failover, a truncated AOF): a job whose
record says that it is queued or running, and which is in no queue, is put back.

One worker at a time does this, the maintainer; while no worker is live, a shim
(`api_shim/queue_upkeep.py`). It holds a lease, which it renews before each pass,
and publishes its name; the others subscribe and send Redis nothing. After three intervals of
silence another worker takes the lease. Two maintainers at once do no harm: every repair is
idempotent.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, get_args

from contract import redis_keys
from contract.errors import DeadlineExceeded
from contract.result import Status
from relay.aliases.moves import Moves
from relay.chance import DICE
from relay.connection import Argument, Connection, ScriptCall
from relay.followers import Followers
from relay.idempotency import Idempotency
from relay.leases import Leases
from relay.parents import Parents
from relay.records import Records
from relay.repair.damaged_keys import DamagedKeys
from relay.room.room_maker import RoomMaker
from relay.scripts.loader import load
from relay.subscriber import Subscription
from relay.usage.limits import TenantLimits
from relay.usage.settlement import Settlement
from telemetry.repeated_warnings import RepeatedWarnings

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_AT_ONCE: Final = 500
_READ_FIRST: Final = 16
"""Records of live jobs that a pass reads to learn which queues to ask for the others."""
_SETTLED_S: Final = 10.0
"""Seconds after which an enqueue that is only half there is not on its way any more."""
_STATUSES: Final = frozenset(get_args(Status))
_SILENT_INTERVALS: Final = 3
"""Intervals (`FLEET_REAP_S`) without a message after which another worker tries to take over."""


class Reconciler:
    """Checks a part of all records at each `reconcile`; successive calls cover all of them."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._leases = Leases(connection)
        self._records = Records(connection)
        self._followers = Followers(connection)
        self._idempotency = Idempotency(connection)
        self._parents = Parents(connection)
        self._settlement = Settlement(connection)
        self._limits = TenantLimits(connection)
        self._moves = Moves(connection)
        self._room = RoomMaker(connection)
        self._damaged = DamagedKeys(connection)
        self._making_room = asyncio.Lock()
        self.moved = 0
        """Jobs that the last pass moved to another target of their alias."""
        self._cursor = "0"
        self._checked: dict[str, int] = {}
        """How far each list has been checked, counted from its oldest job."""

    async def reconcile(self) -> int:
        """Run one pass. Returns how many jobs were given back; raises RelayUnavailable."""
        passing_over, restored = self._connection.passing_over, 0
        # These first: a full Redis refuses others what they write, and what is in no ledger stays.
        await self.make_room()
        with passing_over("a damaged key"):
            for job_id in await self._damaged.mend():
                restored += await self._restore_one(job_id)
        with passing_over("the usage of a tenant"):
            await self._settlement.settle(self._connection.settings.reap_s / 2)
        with passing_over("a deadline"):
            await self._end_what_is_too_late()
        with passing_over("what has expired"):
            await self._forget_what_has_expired()
        with passing_over("a job that nobody follows"):
            await self._followers.cancel_abandoned()
        with passing_over("an idempotency key"):
            await self._idempotency.renew()
        with passing_over("a job that waits for others"):
            await self._parents.keep()
        with passing_over("a reservation"):
            await self._limits.release_abandoned()
        with passing_over("a job with an alias"):
            self.moved = await self._moves.move_waiting()
        with passing_over("a live job"):
            restored += await self._restore_what_was_lost()
        return restored

    async def make_room(self) -> None:
        """Remove ended jobs where memory is short, for a third of `FLEET_REAP_S`.

        Nothing while another call does that: a pass begins with it, and who maintains calls it
        beside long passes. Raises RelayUnavailable.
        """
        if self._making_room.locked():
            return
        async with self._making_room:
            with self._connection.passing_over("an ended job"):
                await self._room.make(self._connection.settings.reap_s / 3)

    async def _end_what_is_too_late(self) -> None:
        now = f"{self._connection.now():.6f}"
        passed = await self._connection.command(
            "ZRANGEBYSCORE", redis_keys.DEADLINES, "-inf", now, "LIMIT", 0, _AT_ONCE
        )
        for id in passed:
            job_id = id.decode(errors="replace")
            job = await self._records.state(job_id)
            if job is None:
                await self._set_aside(job_id)
                await self._connection.command("ZREM", redis_keys.DEADLINES, id)
            else:
                error = DeadlineExceeded("its deadline passed before it was done")
                with self._connection.passing_over(redis_keys.record(job_id)):
                    await self._leases.end(job.queue, job_id, error)

    async def _forget_what_has_expired(self) -> None:
        for index in (redis_keys.RECENT, redis_keys.DEAD):
            await self._forget_in(index)

    async def _forget_in(self, index: str) -> None:
        """Remove expired jobs from the oldest part of a list, and from one further part in turn.

        The oldest alone would not do: a tenant's dead letters, which are kept for a week, stand
        there and would keep the expired jobs of all tenants in the list.
        """
        kept = await self._forget_from(index, 0)
        if kept < _AT_ONCE:
            return
        start = self._checked.get(index, kept)
        kept = await self._forget_from(index, start)
        self._checked[index] = start + kept if kept else _AT_ONCE

    async def _forget_from(self, index: str, start: int) -> int:
        """Remove the expired jobs of one part of a list. Returns how many jobs of it remain."""
        ids = await self._connection.command("ZRANGE", index, start, start + _AT_ONCE - 1)
        keys = [redis_keys.record(id.decode(errors="replace")) for id in ids]
        if not keys or await self._connection.command("EXISTS", *keys) == len(keys):
            return len(keys)
        there = await self._connection.pipeline([("EXISTS", key) for key in keys])
        expired = [id for id, exists in zip(ids, there, strict=True) if not exists]
        await self._connection.command("ZREM", index, *expired)
        return len(ids) - len(expired)

    async def _restore_what_was_lost(self) -> int:
        cursor, rows = await self._connection.command(
            "ZSCAN", redis_keys.LIVE, self._cursor, "COUNT", _AT_ONCE
        )
        self._cursor = str(cursor)
        settled = self._connection.now() - _SETTLED_S
        restored = 0
        for job_id in await self._lost([id for id, created_at in rows if created_at < settled]):
            restored += await self._restore_one(job_id)
        return restored

    async def _restore_one(self, job_id: str) -> bool:
        restored = False
        with self._connection.passing_over(redis_keys.record(job_id)):
            restored = await self._restore(job_id)
        return restored  # noqa: RET504 - False where it was passed over

    async def _lost(self, ids: Sequence[bytes]) -> list[str]:
        """Those of these jobs that their queue has lost, by what it knows of its jobs.

        A record says which queue that is. A few records are read, and one command asks each of
        their queues for all jobs; of those that none of them knows, more records are read, and so
        on. So many jobs in few queues cost few commands. Jobs are picked by chance, so that one
        that a queue knows which is not its own is found, too, after some walks.
        """
        left, count = DICE.sample(ids, len(ids)), _READ_FIRST
        lost: list[str] = []
        while left:
            some, left = left[:count], left[count:]
            for queue, its in (await self._by_queue(some)).items():
                unknown = await self._unknown(queue, [*its, *left])
                if unknown is not None:
                    lost += [id.decode(errors="replace") for id in its if id in unknown]
                    left = [id for id in left if id in unknown]
            count *= 2
        return lost

    async def _unknown(self, queue: str, ids: Sequence[bytes]) -> set[bytes] | None:
        """Those of these jobs that a queue does not know; None if that is damaged."""
        (facts,) = await self._connection.replies([("HMGET", redis_keys.facts(queue), *ids)])
        if facts is None:
            return None
        return {id for id, its in zip(ids, facts, strict=True) if its is None}

    async def _by_queue(self, ids: Sequence[bytes]) -> dict[str, list[bytes]]:
        """Jobs by their queues: no more of a record, which may have a request of megabytes."""
        queues = await self._connection.replies(
            [("HGET", redis_keys.record(id.decode(errors="replace")), "queue") for id in ids]
        )
        gone = [id for id, queue in zip(ids, queues, strict=True) if queue is None]
        if gone:
            await self._connection.command("ZREM", redis_keys.LIVE, *gone)
        found: dict[str, list[bytes]] = {}
        for id, queue in zip(ids, queues, strict=True):
            if queue is not None:
                found.setdefault(queue.decode(errors="replace"), []).append(id)
        return found

    async def _set_aside(self, job_id: str) -> None:
        """End a job whose record is damaged; nothing for one that has none, or not its own."""
        words = ("HGET", redis_keys.record(job_id), "queue")
        (queue,) = await self._connection.replies([words])
        if queue is not None or await self._connection.command("EXISTS", words[1]):
            await self._leases.set_aside((queue or b"").decode(errors="replace"), job_id)

    async def _restore(self, job_id: str) -> bool:
        job = await self._records.state(job_id)
        if job is None or job.status not in _STATUSES:
            await self._set_aside(job_id)
        if job is None or job.status not in ("queued", "running"):
            return False
        _repeated.warn("queue %s had lost job %s", job.queue, job_id)
        if job.status == "queued":
            return await self._leases.give_back(job.queue, job_id, job.attempt, job.attempt)
        return await self._leases.hand_over(
            job.queue, job_id, job.attempt, reason="its queue lost it", counts=False
        )


class Maintainer:
    """The lease of the one worker that runs the `Reconciler` and reaps expired job leases."""

    def __init__(self, connection: Connection, worker: str) -> None:
        """Compete for the lease under this worker's name; nothing is held yet."""
        self._connection = connection
        self._worker = worker
        self.is_held = False
        self._may_hold = False
        """Also while it is not known: the reply to `acquire` may not have come."""

    async def acquire(self) -> bool:
        """Take or renew the lease. Returns whether this worker holds it; raises RelayUnavailable.

        It expires `_SILENT_INTERVALS` times `FLEET_REAP_S` later.
        """
        ttl_ms = int(_SILENT_INTERVALS * self._connection.settings.reap_s * 1000)
        self.is_held, self._may_hold = False, True
        self.is_held = self._may_hold = await self._connection.call(
            renew_lease(self._worker, ttl_ms)
        )
        return self.is_held

    async def is_taken(self) -> bool:
        """Whether any process holds the lease; raises RelayUnavailable."""
        return bool(await self._connection.command("EXISTS", redis_keys.MAINTAINER))

    async def release(self) -> None:
        """Give the lease back, so that another worker takes it at once; raises RelayUnavailable."""
        if self._may_hold:
            self.is_held = self._may_hold = False
            await self._connection.call(release_lease(self._worker))

    async def wait_until_free(self, subscription: Subscription) -> None:
        """Return when the maintainer has been silent for too long, or has released the lease.

        `subscription` is a subscription to the maintainer's channel. Raises RelayUnavailable.
        """
        subscription.catch_up()
        intervals = _SILENT_INTERVALS + DICE.random()  # so that not all try at once
        while await subscription.wait(intervals * self._connection.settings.reap_s):
            subscription.catch_up()
            messages = subscription.take()
            if messages and not messages[-1]:
                return


def renew_lease(worker: str, ttl_ms: int) -> ScriptCall[bool]:
    """Take or renew the lease and publish the worker's name; False if another worker holds it."""
    args: list[Argument] = [worker, ttl_ms, redis_keys.MAINTAINER_CHANNEL]
    return ScriptCall(load("maintainer/renew"), [redis_keys.MAINTAINER], args, bool)


def release_lease(worker: str) -> ScriptCall[bool]:
    """Delete the lease and publish an empty message; False if the worker does not hold it."""
    args: list[Argument] = [worker, redis_keys.MAINTAINER_CHANNEL]
    return ScriptCall(load("maintainer/resign"), [redis_keys.MAINTAINER], args, bool)
