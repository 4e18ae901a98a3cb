"""Leases of workers on jobs: renewed in bulk, and taken away when they expire.

A hand-over has two halves, each an idempotent script, so that the next maintainer completes it if
one dies between them: first the log (`jobs/hand_over` fences the former holder), then the queue
(`queues/give_back` puts the job into the backlog). A fenced holder forgets its job
without touching the queue; only a holder whose terminal event is in the log releases.
"""

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from typing_extensions import override

from contract import redis_keys
from contract.aliases.parameters import applied
from contract.cost import cost_of
from contract.errors import (
    BackendError,
    FleetError,
    InternalError,
    JobNotFound,
    NewerVersion,
    WorkerLost,
)
from contract.events import Failed, Queued
from contract.jobs import JobRecord
from contract.model_names import context_length_of
from contract.wire import UNREADABLE
from relay.connection import Connection, DamagedKey, pairs
from relay.order import facts_of, restored
from relay.records import JobState, Records
from relay.scheduling.later import NEVER
from relay.scheduling.pauses import QueuePauses
from relay.scripts import jobs, queues
from relay.tickets import ticket
from telemetry.repeated_warnings import RepeatedWarnings

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_RENEWED_AT_ONCE: Final = 250
"""Leases in one call: a thousand block Redis for 2.3 ms."""
_REAPED_AT_ONCE: Final = 100
_REAPED_TOGETHER: Final = 16
_TICKETS_AT_ONCE: Final = 64
AFTER_A_PAUSE: Final = 1024
"""Tickets for a queue that runs again, because none were sent while jobs came."""
_ASKED_AT_ONCE: Final = 100


class Holder(NamedTuple):
    """The attempt and worker that hold a lease; `<attempt> <worker>` in Redis."""

    attempt: int
    worker: str

    @classmethod
    def parse(cls, text: str) -> "Holder":
        """Parse the text in Redis."""
        attempt, _, worker = text.partition(" ")
        return cls(int(attempt), worker)

    @override
    def __str__(self) -> str:
        return f"{self.attempt} {self.worker}"


class Leases:
    """Renews, releases, hands over and reaps."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._records = Records(connection)
        self._pauses = QueuePauses(connection)

    async def renew(self, worker: str, held: Mapping[str, Sequence[tuple[str, int]]]) -> set[str]:
        """Renew the leases on `held` (queue to job ids with attempts).

        Returns the ids that this worker holds no longer; raises RelayUnavailable.
        """
        lost: set[str] = set()
        for queue, attempts in held.items():
            for at in range(0, len(attempts), _RENEWED_AT_ONCE):
                some = attempts[at : at + _RENEWED_AT_ONCE]
                now, gone = await self._connection.call(
                    queues.renew(queue, worker, self._connection.settings.lease_s, some)
                )
                self._connection.set_clock(now)
                lost.update(gone)
        return lost

    async def release(self, queue: str, job_id: str, holder: Holder | str | None) -> str | None:
        """Remove an ended job from its queue. Returns the worker that held it, if any.

        Only if `holder` (or its text) holds it, or any for None.

        Raises RelayUnavailable.
        """
        minute = math.floor(self._connection.now() / 60)
        drained = redis_keys.drained(queue, minute)
        held_by = await self._connection.call(
            queues.release(queue, job_id, str(holder or ""), drained)
        )
        held = self._parsed(queue, held_by) if held_by else None
        return held.worker if held else None

    async def supersede(self, queue: str, job_id: str, attempt: int) -> bool:
        """Remove from a queue what attempts before this one have left there of a job.

        Returns whether the queue has it as this attempt, or a later one. Raises RelayUnavailable.
        """
        drained = redis_keys.drained(queue, math.floor(self._connection.now() / 60))
        return await self._connection.call(queues.supersede(queue, job_id, attempt, drained))

    async def hand_over(
        self,
        queue: str,
        job_id: str,
        attempt: int,
        *,
        reason: str,
        counts: bool,
        delay_s: float = 0.0,
        error: FleetError | None = None,
        nonce: str = "",
    ) -> bool:
        """Take a job from its holder and give it back, due after `delay_s`; or end it.

        A worker names the `nonce` of its attempt: after a restore of older data another worker may
        have an attempt with this number. The maintainer takes a job from whoever has the attempt.
        `counts` says whether this uses up one of the job's attempts; a job that has none left
        ends with `error` as a dead letter. Without an error, its worker died. Returns whether
        another worker may claim it now or later; raises RelayUnavailable.
        """
        queued = Queued(queue=queue, reason=reason)
        is_lost = counts and error is None
        call = jobs.hand_over(job_id, attempt, queued, counts=counts, is_lost=is_lost, nonce=nonce)
        found = await self._connection.call_or_none(call, redis_keys.record(job_id))
        state, new_attempt = found or ("damaged", 0)
        match state:
            case "queued":
                return await self.give_back(queue, job_id, attempt, new_attempt, delay_s=delay_s)
            case "exhausted":
                last = error or WorkerLost(f"{reason}; it was the last attempt")
                await self.end(queue, job_id, last, dead=True)
            case "ended":
                await self.release(queue, job_id, None)
            case "moved":
                await self._follow_move(queue, job_id)
            case "damaged":
                await self.set_aside(queue, job_id)
            case "stale":
                await self._let_go(queue, job_id, attempt, new_attempt)
        return False

    async def _let_go(self, queue: str, job_id: str, attempt: int, present: int) -> None:
        """Remove an attempt that the record is beyond; the maintainer restores what was lost."""
        _log.info("job %s is at attempt %d, not %d", job_id, present, attempt)
        if present > attempt:
            await self.supersede(queue, job_id, present)

    async def _follow_move(self, queue: str, job_id: str) -> None:
        """Remove a job from the queue that it has left; its mover may have died before it had."""
        await self.release(queue, job_id, None)
        await self.put_back(job_id)

    async def put_back(self, job_id: str) -> None:
        """Put a job into its queue if its record says that it waits there, and it does not.

        Raises RelayUnavailable.
        """
        state = await self._records.state(job_id)
        if state is not None and state.status == "queued":
            await self.give_back(state.queue, job_id, state.attempt - 1, state.attempt)

    async def release_moved(self, record: JobRecord, queue: str) -> None:
        """Remove an ended job from its queue if that is no longer this one (relay/aliases).

        Raises RelayUnavailable.
        """
        if record.queue != queue:
            await self.release(record.queue, record.id, None)

    async def end(self, queue: str, job_id: str, error: FleetError, *, dead: bool = False) -> None:
        """Write `failed` for a job and remove it from its queue; `dead`: as a dead letter.

        A job that is not to be kept is no dead letter. A worker that holds it is notified. Raises
        RelayUnavailable.
        """
        dead = dead and await self._is_kept(job_id)
        terminal = Failed(
            code=error.code, message=error.message, retryable=error.retryable, dead=dead,
            retry_after_s=error.retry_after_s if isinstance(error, BackendError) else None,
        )  # fmt: skip
        settings = self._connection.settings
        ended = await self._connection.call(jobs.end(job_id, terminal, settings, dead=dead))
        if ended is not None:
            outcome = "dead" if dead else "failed"
            self._connection.observer.on_ended(queue, ended.priority, ended.tenant, outcome)
        worker = await self.release(queue, job_id, None)
        if worker:
            await self._connection.command("PUBLISH", redis_keys.worker_channel(worker), job_id)

    async def set_aside(self, queue: str, job_id: str) -> None:
        """End a job whose record is damaged, or have nothing wait for it, so that none tries again.

        Raises RelayUnavailable.
        """
        key = redis_keys.record(job_id)
        _repeated.warn("job %s is set aside: its record, %s, is damaged", job_id, key, about=key)
        error = InternalError("the record of this job was damaged in Redis, so that it cannot run")
        is_ended = False
        with self._connection.passing_over(key):
            await self.end(queue, job_id, error)
            is_ended = True
        if not is_ended:
            await self.release(queue, job_id, None)
            lists = (redis_keys.LIVE, redis_keys.DEADLINES, redis_keys.FOLLOWED)
            await self._connection.pipeline([("ZREM", each, job_id) for each in lists])

    async def _is_kept(self, job_id: str) -> bool:
        kept: bytes | None = await self._connection.command(
            "HGET", redis_keys.record(job_id), "retention_s"
        )
        return kept != b"0"

    async def release_worker(self, worker: str) -> int:
        """Hand over every lease of a worker that is known to be dead. Returns how many.

        Nothing is assigned to it any more, and no message waits for its addresses. Raises
        RelayUnavailable.
        """
        moved = 0
        for queue in await self._queues():
            await self._forget(queue, worker)
            key = redis_keys.holders(queue)
            (flat,) = await self._connection.replies([("HGETALL", key)])
            for id, text in (flat or {}).items():
                holder = self._parsed(queue, text.decode(errors="replace"))
                if holder is not None and holder.worker == worker:
                    moved += await self.hand_over(
                        queue,
                        id.decode(errors="replace"),
                        holder.attempt,
                        reason="its worker died",
                        counts=True,
                    )
        return moved

    async def reap(self) -> int:
        """Hand over jobs whose lease has expired, and replace lost tickets.

        Returns how many jobs moved; raises RelayUnavailable.
        """
        moved = 0
        for queue in await self._not_idle():
            try:
                moved += await self._reap_queue(queue)
            except DamagedKey as error:
                _repeated.warn("queue %s was not looked at: %s", queue, error)
        return moved

    async def _reap_queue(self, queue: str) -> int:
        moved = 0
        expired = await self._connection.call(queues.expired(queue, _REAPED_AT_ONCE))
        holders = [self._parsed(queue, text) for _, text in expired if text]
        for worker in {each.worker for each in holders if each is not None and each.worker}:
            with self._connection.passing_over(redis_keys.holders(queue)):
                await self._forget(queue, worker)
        # In a worker whose loop is busy each reply takes long: one after the other took minutes.
        for at in range(0, len(expired), _REAPED_TOGETHER):
            some = expired[at : at + _REAPED_TOGETHER]
            moved += sum(await asyncio.gather(*(self._reap_one(queue, *each) for each in some)))
        woken = await self.wake(queue)
        if await self._pauses.keep(queue, woken.schedule, woken.why):
            await self.wake(queue, tickets=AFTER_A_PAUSE)
        return moved

    async def wake(self, queue: str, *, tickets: int = _TICKETS_AT_ONCE) -> queues.Woken:
        """Move delayed jobs that are due to the backlog; push up to `tickets` missing tickets.

        Raises RelayUnavailable.
        """
        idle_s = int(self._connection.settings.log_ttl_s)
        woken = await self._connection.call(queues.wake(queue, idle_s))
        for _ in range(0, min(woken.missing, tickets), _TICKETS_AT_ONCE):
            some = [ticket(queue) for _ in range(min(woken.missing, _TICKETS_AT_ONCE))]
            woken = await self._connection.call(queues.wake(queue, idle_s, some))
        return woken

    async def _not_idle(self) -> list[str]:
        """Queues that hold a job, or may be forgotten; of an idle fleet in two commands."""
        flat = await self._connection.command("ZRANGE", redis_keys.QUEUES, 0, -1, "WITHSCORES")
        used_at = {name.decode(errors="replace"): float(at) for name, at in pairs(flat).items()}
        long_ago = self._connection.now() - self._connection.settings.log_ttl_s
        found = {name for name, at in used_at.items() if at < long_ago}
        names = sorted(used_at)
        for at in range(0, len(names), _ASKED_AT_ONCE):
            some = names[at : at + _ASKED_AT_ONCE]
            if await self._connection.command("EXISTS", *(k for q in some for k in _held_in(q))):
                counts = await self._connection.pipeline(
                    [("EXISTS", *_held_in(queue)) for queue in some]
                )
                found |= {queue for queue, count in zip(some, counts, strict=True) if count}
        return sorted(found)

    async def _reap_one(self, queue: str, job_id: str, holder: str) -> bool:
        moved = False
        with self._connection.passing_over(redis_keys.record(job_id)):
            if not holder:
                await self.release(queue, job_id, None)
                return False
            _repeated.warn("the lease on job %s expired in the hands of %s", job_id, holder)
            held = self._parsed(queue, holder)
            if held is None:
                state = await self._records.state(job_id)
                held = Holder(state.attempt if state else 0, "")
            reason = "its worker fell silent"
            moved = await self.hand_over(queue, job_id, held.attempt, reason=reason, counts=True)
        return moved  # noqa: RET504 - False where it was passed over

    def _parsed(self, queue: str, holder: str) -> Holder | None:
        """Who holds a job; None if that cannot be read."""
        found: Holder | None = None
        with self._connection.passing_over(redis_keys.holders(queue)):
            found = Holder.parse(holder)
        return found  # noqa: RET504 - None where it was passed over

    async def _forget(self, queue: str, worker: str) -> None:
        """Have no more jobs assigned to a silent worker, and none wait for its addresses."""
        if await self._connection.call(queues.forget(queue, worker)):
            await self.wake(queue)  # for messages that waited for its addresses

    async def give_back(
        self, queue: str, job_id: str, old: int | Holder, new: int, *, delay_s: float = 0.0
    ) -> bool:
        """Put a job back as attempt `new`, if attempt `old` or no attempt holds it.

        Of a Holder, only if no other worker has that attempt.
        Returns whether it was; raises RelayUnavailable.
        """
        state = await self._records.state(job_id)
        facts = state and await self.facts(job_id, state)
        if state is None or facts is None:
            await self._set_aside_if_there(queue, job_id)
            return False
        now = self._connection.now()
        delay_s = max(delay_s, (_due(state, now) or now) - now)
        moved = await self._connection.call(
            queues.give_back(
                queue,
                job_id,
                old=str(old),
                new=new,
                delay_s=delay_s,
                ticket=ticket(queue),
                facts=facts,
            )
        )
        if moved < 0:
            await self.set_aside(queue, job_id)
        return moved > 0

    async def facts(self, job_id: str, state: JobState) -> str | None:
        """What a claim needs of a job that its queue may have lost (JSON); None: it is damaged.

        Raises RelayUnavailable.
        """
        try:
            known = state.facts or await self._older(job_id)
            return restored(known, state.created_at, _due(state, self._connection.now()))
        except (NewerVersion, JobNotFound, *UNREADABLE) as error:
            self._connection.pass_over(redis_keys.record(job_id), error)
            return None

    async def _set_aside_if_there(self, queue: str, job_id: str) -> None:
        if await self._connection.command("EXISTS", redis_keys.record(job_id)):
            await self.set_aside(queue, job_id)

    async def _older(self, job_id: str) -> str:
        """What a claim must know of a job that an older version enqueued."""
        record = await self._records.get(job_id)
        request = applied(await self._records.request(job_id), record.target)
        return facts_of(record, cost_of(request), context_length_of(request))

    async def _queues(self) -> list[str]:
        members: Any = await self._connection.command("ZRANGE", redis_keys.QUEUES, 0, -1)
        return sorted(member.decode(errors="replace") for member in members)


def _due(state: JobState, now: float) -> float | None:
    """When a job may start (unix seconds), if that is later than now."""
    due = NEVER if state.blocked else state.not_before
    return due if due is not None and due > now else None


def _held_in(queue: str) -> list[str]:
    """The keys of which at least one is there while a queue holds a job, or has a schedule."""
    return [
        redis_keys.backlog(queue), redis_keys.delayed(queue), redis_keys.leases(queue),
        redis_keys.schedule(queue), redis_keys.paused(queue),
    ]  # fmt: skip
