"""The worker: what it holds, how it takes the next job, and how it lets go of all of them."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from contract.errors import BackendError, FleetError, LeaseLost, RelayUnavailable
from contract.events import Event, Phase, Reset, Resumed
from relay.connection import Connection
from relay.leases import Holder, Leases
from relay.log import Log
from relay.order import ClaimFilter
from relay.publisher import AttemptLog, Publisher
from relay.queue import Queue, StartedJob
from workers.delayed_wakeups import DelayedWakeups
from workers.endpoints.endpoints import EndpointPool, Reservation
from workers.foreign_tasks import ForeignTasks
from workers.model_affinity import ModelAffinity
from workers.poison_jobs import REASON, PoisonJobs
from workers.request_fitting import RequestFitting
from workers.retry import Retry, in_words
from workers.run import Broken, Run
from workers.slots import Slots

_log = logging.getLogger(__name__)

_HANDED_OVER_AT_ONCE: Final = 16
_STALE_AT_ONCE: Final = 100
"""Claims at most, one after the other, of jobs that have ended meanwhile."""
_ENDED_LATELY: Final = 256
_BEFORE_AN_ANSWER: Final = (Phase, Reset, Resumed)
"""Events that do not say that the backend works."""


@dataclass(frozen=True, slots=True)
class Held:
    """A job in hand: its claim, and the voice whose loss ends the run."""

    claim: StartedJob
    voice: AttemptLog
    over: asyncio.Event = field(default_factory=asyncio.Event)


async def _nowhere() -> None:
    """Tell nobody."""


class Worker:
    """Takes jobs for one backend and runs them."""

    def __init__(
        self,
        *,
        name: str,
        servers: EndpointPool,
        slots: Slots,
        connection: Connection,
        writer: Publisher,
        log: Log,
        fitting: RequestFitting,
        draining: asyncio.Event,
        patience: int,
    ) -> None:
        """Put together what app.py has built; no job is claimed once `draining` is set.

        `patience` is WorkerSettings.retry_patience.
        """
        self.name = name
        self.servers = servers
        self.slots = slots
        self.held: dict[str, Held] = {}
        self._ended_lately: deque[str] = deque(maxlen=_ENDED_LATELY)
        """Jobs that somebody else ended, maybe before their claim had arrived here."""
        self.last_ticket_at = asyncio.get_running_loop().time()
        self._connection = connection
        self._writer = writer
        self._log = log
        self.fitting = fitting
        self._draining = draining
        self._patience = patience
        self._queue = Queue(connection)
        self.adoption = ForeignTasks(connection)
        self._leases = Leases(connection)
        self._quarantine = PoisonJobs()
        self.alarm = DelayedWakeups(self._queue.wake)
        self.look: Callable[[], Awaitable[None]] = _nowhere
        """Looks at the backend and tells the roster; set by whoever keeps it
        (roster_reporter.py)."""
        self.choosing = ModelAffinity(slots, self.alarm.set)

    @property
    def draining(self) -> bool:
        """Whether the worker is about to leave."""
        return self._draining.is_set()

    async def work(self, queue: str) -> None:
        """Answer a ticket: run jobs of the queue until none waits, if a slot is free."""
        self.last_ticket_at = asyncio.get_running_loop().time()
        if self._draining.is_set() or not self.slots.is_free(queue):
            await self._queue.give_ticket_back(queue)
            return
        with self.slots.one(queue):
            while await self._work_once(queue) and not self._draining.is_set():
                pass

    async def _work_once(self, queue: str) -> bool:
        """Run the next job, if an endpoint has room for one and one waits. Returns whether."""
        with self.servers.seat(queue) as seat:
            if seat is None:
                return False
            if not self.slots.is_free(queue):
                self.slots.settle(queue)
            claim = await self._claim(queue, seat)
            if claim is None:
                return False
            try:
                await self._run_or_set_apart(claim, seat)
            finally:
                self.choosing.ended(claim.record)
            return True

    async def _claim(self, queue: str, seat: Reservation) -> StartedJob | None:
        async with self.choosing.turn(queue) as turn, self.servers.one_claim(queue):
            limits = seat.limits
            taking = turn._replace(**limits._asdict())
            claim = await self._started(queue, taking, seat)
            if claim is not None:
                self.choosing.began(claim.record, seat.loaded)
                return claim
            if limits.resting or limits.only:
                self.servers.held_back.add(queue)
            self.choosing.found_nothing(queue, taking)
        return None

    async def _started(
        self, queue: str, taking: ClaimFilter, seat: Reservation
    ) -> StartedJob | None:
        """Claim the next job and start it at the endpoint that is best for it."""
        for _ in range(_STALE_AT_ONCE):
            claim = await self._queue.claim(queue, self.name, taking)
            if claim is None:
                return None
            endpoint = seat.move(claim.job_id, claim.loaded)
            job = await self._queue.start(claim, endpoint)
            if job is not None:
                return job
        return None

    async def _run_or_set_apart(self, claim: StartedJob, seat: Reservation) -> None:
        """Run a job, or put it off if workers died with it and another one like it runs here."""
        if not self._quarantine.enter(claim.record):
            later = Retry(self._quarantine.again_s(), counts=False)
            await self._put_off(claim, REASON, later, None)
            return
        try:
            await self._run(claim, seat)
        finally:
            self._quarantine.leave(claim.record)

    async def _run(self, claim: StartedJob, seat: Reservation) -> None:
        """Run a job in a task of its own, which its loss cancels and nothing else."""
        await self._end_our_own_attempt_at(claim.record.id)
        voice = self._writer.voice(claim)
        run = Run(
            claim, seat.adapter, voice, self._log, self._queue, self._connection, self.fitting,
            self._patience, partial(self._hear, seat, voice.id), self.look,
            seat if seat.packs else None,
        )  # fmt: skip
        task = asyncio.create_task(run.to_its_last_word())
        voice.on_lost = task.cancel
        held = self.held[claim.record.id] = Held(claim, voice)
        if voice.id in self._ended_lately:
            voice.lose()
        _log.info("job %s began, attempt %d in %s", voice.id, voice.attempt, claim.record.queue)
        try:
            await asyncio.wait({task})
        finally:
            if not task.done():
                await self._abandon(claim, task)
            del self.held[claim.record.id]
            held.over.set()
        await self._let_go(claim, voice, seat, task)

    def _hear(self, seat: Reservation, job_id: str, event: Event) -> None:
        """Something that the backend said before its first output, or that output."""
        if not isinstance(event, _BEFORE_AN_ANSWER):
            seat.answered()
        self.choosing.hear(job_id, event)

    async def _end_our_own_attempt_at(self, job_id: str) -> None:
        """Wait for the run of an attempt whose lease expired in our hands.

        A worker that was cut off or asleep may claim the job again before it has noticed.
        """
        while (before := self.held.get(job_id)) is not None:
            before.voice.lose()
            await before.over.wait()

    async def _let_go(
        self,
        claim: StartedJob,
        voice: AttemptLog,
        seat: Reservation,
        task: asyncio.Task[Broken | None],
    ) -> None:
        record = claim.record
        if task.cancelled() or isinstance(task.exception(), LeaseLost):
            if voice.torn:
                _log.warning("job %s: Redis lost a part of its log", record.id)
                await self._give_back(claim, "Redis lost a part of its log")
            else:
                _log.info("job %s was taken away", record.id)
            return
        if isinstance(error := task.exception(), RelayUnavailable):
            _log.warning("job %s: %s", record.id, error)
            await self._give_back(claim, "Redis did not answer its worker")
            return
        if (broken := task.result()) is not None:
            if isinstance(broken.error, BackendError):
                seat.broke(broken.error)
                self.choosing.broke(record.id, broken.error)
            if broken.retry is not None:
                reason = in_words(broken.error, broken.retry.delay_s)
                await self._put_off(claim, reason, broken.retry, broken.error)
                return
        _log.info("job %s ended", record.id)
        await self._leases.release(record.queue, record.id, Holder(claim.attempt, self.name))

    async def _put_off(
        self, claim: StartedJob, reason: str, retry: Retry, failure: FleetError | None
    ) -> None:
        """Give a job back for later; the relay ends it if that was the last time."""
        record, delay_s = claim.record, retry.delay_s
        _log.info("job %s: %s", record.id, reason)
        try:
            waits = await self._leases.hand_over(
                record.queue, record.id, claim.attempt, reason=reason,
                counts=retry.counts, delay_s=delay_s, error=failure,
            )  # fmt: skip
        except RelayUnavailable as error:
            _log.warning("job %s comes back when its lease expires: %s", record.id, error)
        else:
            if waits:
                self.alarm.set(record.queue, delay_s)

    async def _abandon(self, claim: StartedJob, task: asyncio.Task[Broken | None]) -> None:
        """Decide on a job whose Celery task ends early.

        A shutdown gives it back; a revoked task or one over its time limit is cancelled.
        """
        task.cancel()
        await asyncio.wait({task})
        try:
            if self.draining:
                await self._give_back(claim, "its worker is shutting down")
            else:
                await self._queue.cancel(
                    claim.record.id, by="worker", reason="its task was terminated"
                )
        except RelayUnavailable as error:
            _log.warning("job %s comes back when its lease expires: %s", claim.record.id, error)

    async def _give_back(self, claim: StartedJob, reason: str) -> None:
        """Hand a job over at once, or leave it to the reapers while Redis is away."""
        try:
            await self._hand_over(claim, reason)
        except RelayUnavailable as error:
            _log.warning("job %s comes back when its lease expires: %s", claim.record.id, error)

    def lose(self, job_id: str) -> None:
        """Stop a job that this worker holds no longer."""
        held = self.held.get(job_id)
        if held is not None:
            held.voice.lose()

    def end(self, job_id: str) -> None:
        """Stop a job that somebody has ended, also if we do not know yet that we have it.

        The order and the answer to our claim come on two lines, and either may be first.
        """
        self._ended_lately.append(job_id)
        self.lose(job_id)

    async def hand_over_all(self, reason: str) -> None:
        """Give every job back for the next worker to continue; it costs them no attempt."""
        all_held = list(self.held.values())
        for at in range(0, len(all_held), _HANDED_OVER_AT_ONCE):
            some = all_held[at : at + _HANDED_OVER_AT_ONCE]
            await asyncio.gather(*(self._give_back(held.claim, reason) for held in some))
            for held in some:
                held.voice.lose()

    async def _hand_over(self, claim: StartedJob, reason: str) -> None:
        record = claim.record
        await self._leases.hand_over(
            record.queue, record.id, claim.attempt, reason=reason, counts=False
        )
