"""The worker: claims jobs of one backend, runs each in a task, gives back what it cannot end."""

import asyncio
import logging
from functools import partial
from typing import Final

from contract.errors import BackendError, FleetError, LeaseLost, RelayFull, RelayUnavailable
from contract.events import Done, Event, Failed, Phase, Reset, Resumed
from relay.claims import Claim, Claims, StartedJob
from relay.leases import Holder, Leases
from relay.order import ClaimFilter
from relay.publisher import AttemptLog, Publisher
from relay.scripts.queues import NO_JOB, EndedJob
from telemetry.attempt_meter import AttemptMeter
from telemetry.attempt_trace import AttemptTrace
from telemetry.repeated_warnings import RepeatedWarnings
from telemetry.trace_context import context_of, working_for
from workers.delayed_wakeups import DelayedWakeups
from workers.endpoints.endpoints import Reservation
from workers.model_affinity import ModelAffinity
from workers.retry import POISON, PoisonJobs, Retry, in_words
from workers.roster_reporter import RosterReporter
from workers.run import Broken, Elsewhere, Run, RunServices
from workers.state import HeldJob, WorkerState

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

Ended = Done | Failed | Broken | Elsewhere
"""How a run ended that was not cut off."""

_HANDED_OVER_AT_ONCE: Final = 16
_STALE_CLAIMS: Final = 100
_FULL_S: Final = 10.0
"""Seconds until a job runs again for whose answer Redis had no room."""
"""Claims in a row, at most, of jobs that have ended before they could be started."""
_BEFORE_AN_ANSWER: Final = (Phase, Reset, Resumed)
"""Events that do not show that the backend works."""


class RunReports:
    """The observer of one run: passes on what the run shows about the backend and the model."""

    def __init__(
        self,
        job_id: str,
        reservation: Reservation,
        affinity: ModelAffinity,
        reporter: RosterReporter,
    ) -> None:
        """Report for the job that runs at `reservation`."""
        self._job_id = job_id
        self._reservation = reservation
        self._affinity = affinity
        self._reporter = reporter

    def on_event(self, event: Event) -> None:
        """Report an event before the first output, or that output."""
        if not isinstance(event, _BEFORE_AN_ANSWER):
            self._reservation.answered()
        self._affinity.on_event(self._job_id, event)

    async def on_models_changed(self) -> None:
        """Probe the backend and write its models to the roster."""
        await self._reporter.refresh()


class _Turn:
    """One slot of a queue while it runs jobs one after another."""

    __slots__ = ("claim", "ended", "queue", "takes_any")

    def __init__(self, queue: str, claim: Claim | None) -> None:
        self.queue = queue
        self.claim = claim
        """A job that was leased to this worker and has not been started."""
        self.ended = NO_JOB
        """A job that has ended and is to be released, with the next claim if there is one."""
        self.takes_any = False

    def take_claim(self) -> Claim:
        claim, self.claim = self.claim, None
        assert claim is not None  # noqa: S101 - for the type checker: callers have looked
        return claim

    def take_ended(self) -> EndedJob:
        ended, self.ended = self.ended, NO_JOB
        return ended


class Worker:
    """Claims and runs the jobs of one backend."""

    def __init__(
        self,
        state: WorkerState,
        services: RunServices,
        *,
        publisher: Publisher,
        wakeups: DelayedWakeups,
        reporter: RosterReporter,
    ) -> None:
        """Take what lifetime.py has built; `services` are what all runs share."""
        self.last_ticket_at = asyncio.get_running_loop().time()
        """When the last ticket arrived, in seconds of the loop's clock."""
        self._state = state
        self._services = services
        self._publisher = publisher
        self._wakeups = wakeups
        self._reporter = reporter
        self._metrics = services.metrics
        self._queue = services.queue
        self._claims = Claims(services.connection)
        self._leases = Leases(services.connection)
        self._poison_jobs = PoisonJobs()
        self._returning: set[asyncio.Task[None]] = set()
        state.idle_slots.on_assigned = self.accept

    async def work(self, queue: str) -> None:
        """Handle a ticket: run jobs of `queue`, one by one, until none has come for a while.

        The first task of a queue opens a session, in which jobs that are assigned to this worker
        run beside those of the task. Without a free slot the ticket goes back to its queue.
        Raises RelayUnavailable; a job that was claimed nevertheless returns to its queue when its
        lease expires.
        """
        self.last_ticket_at = asyncio.get_running_loop().time()
        state = self._state
        if state.is_draining or not state.slots.is_free(queue):
            await self._claims.give_ticket_back(queue)
            return
        async with state.sessions.open(queue) as session:
            while True:
                takes_any = await self._run_jobs(queue)
                if takes_any:
                    break
                if not await state.idle_slots.wait(queue) or not state.slots.is_free(queue):
                    break
            if session is not None:
                await state.sessions.until_idle(session)

    def accept(self, claim: Claim) -> None:
        """Run a job that Redis has leased to this worker; return it if no slot is free."""
        state = self._state
        session = state.sessions.of(claim.queue)
        may_start = state.may_go_on(claim.queue) and state.slots.is_free(claim.queue)
        if session is None or not may_start:
            task = asyncio.create_task(self._return(claim))
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)
        else:
            state.held.lease(claim)
            session.start(self._run_assigned(claim))

    async def _run_assigned(self, claim: Claim) -> None:
        try:
            await self._run_jobs(claim.queue, claim)
        finally:
            self._state.held.leave(claim.job_id)

    async def _return(self, claim: Claim) -> None:
        """Put a job that cannot start here into the backlog; raises nothing."""
        state = self._state
        state.held.leave(claim.job_id)
        try:
            await state.sessions.withdraw(claim.queue)
            holder = Holder(claim.attempt, claim.worker)
            await self._leases.give_back(claim.queue, claim.job_id, holder, claim.attempt)
        except RelayUnavailable as error:
            _repeated.warn("job %s returns when its lease expires: %s", claim.job_id, error)

    async def _run_jobs(self, queue: str, claim: Claim | None = None) -> bool:
        """Run jobs one after another until none waits, beginning with the one that is claimed.

        Returns whether the last claim found none although it took any.
        """
        state = self._state
        turn = _Turn(queue, claim)
        with state.slots.one(queue):
            try:
                while await self._work_once(turn) and state.may_go_on(queue):
                    pass
            finally:
                if turn.claim is not None:
                    await self._return(turn.claim)
                if turn.ended is not NO_JOB:
                    await self._leases.release(queue, *turn.take_ended())
        return turn.takes_any

    async def _work_once(self, turn: "_Turn") -> bool:
        """Claim, start and run the next job. Returns False if there was none, or no endpoint."""
        with self._state.endpoints.reserve(turn.queue) as reservation:
            if reservation is None:
                return False
            if not self._state.slots.is_free(turn.queue):
                self._state.slots.settle(turn.queue)
            job = await self._next_job(turn, reservation)
            if job is None:
                return False
            try:
                turn.ended = await self._run_unless_poison(job, reservation)
            finally:
                self._state.affinity.on_released(job.record)
                self._state.held.leave(job.record.id)
            return True

    async def _next_job(self, turn: "_Turn", reservation: Reservation) -> StartedJob | None:
        """Claim and start the next job that the models in memory and the endpoints allow."""
        affinity, endpoints, queue = self._state.affinity, self._state.endpoints, turn.queue
        if affinity.must_wait(queue) and turn.ended is not NO_JOB:
            await self._leases.release(queue, *turn.take_ended())
        async with affinity.turn(queue) as allowed, endpoints.claim_turn(queue):
            limits = reservation.limits
            claim_filter = allowed._replace(**limits._asdict())
            turn.takes_any = claim_filter.takes_any
            job = await self._claim_and_start(turn, claim_filter, reservation)
            if job is not None:
                affinity.on_claimed(job.record, reservation.loaded)
                return job
            if limits.resting or limits.only:
                endpoints.limited_queues.add(queue)
            affinity.on_nothing_claimed(queue, claim_filter)
        return None

    async def _claim_and_start(
        self, turn: "_Turn", claim_filter: ClaimFilter, reservation: Reservation
    ) -> StartedJob | None:
        for _ in range(_STALE_CLAIMS):
            claim = await self._claim(turn, claim_filter)
            if claim is None:
                return None
            label = reservation.move(claim.job_id, claim.loaded, claim.conversation, claim.home)
            job = await self._claims.start(claim, label, reservation.home)
            if job is not None:
                return job
            self._state.held.leave(claim.job_id)
        return None

    async def _claim(self, turn: "_Turn", claim_filter: ClaimFilter) -> Claim | None:
        """The claim that the turn begins with, if any job may run; else the next one of Redis."""
        queue = turn.queue
        if turn.claim is not None:
            if claim_filter.takes_any:
                return turn.take_claim()
            await self._return(turn.take_claim())
        idle = (
            self._state.sessions.free_slots(queue)
            if claim_filter.takes_any
            else self._state.idle_slots.with_this(queue)
        )
        return await self._claims.claim(
            queue, self._state.name, claim_filter, idle_slots=idle, ended=turn.take_ended(),
            again=partial(self._wakeups.once, queue),
        )  # fmt: skip

    async def _run_unless_poison(self, job: StartedJob, reservation: Reservation) -> EndedJob:
        """Run a job, or delay it if workers died with it and another such job runs here.

        Returns the job if it has ended and its lease is to be released.
        """
        if not self._poison_jobs.enter(job.record):
            later = Retry(self._poison_jobs.delay_s(), counts=False)
            await self._retry_later(job, POISON, later, None)
            return NO_JOB
        try:
            return await self._run(job, reservation)
        finally:
            self._poison_jobs.leave(job.record)

    async def _run(self, job: StartedJob, reservation: Reservation) -> EndedJob:
        """Run a job in a task of its own, which is cancelled when the job is lost."""
        record = job.record
        await self._state.held.end_attempt_of(record.id)
        services, now = self._services, self._services.connection.now
        trace = None
        if services.tracing.is_on:
            trace = AttemptTrace(services.tracing, record, services.backend_type, now)
        meter = AttemptMeter(self._metrics, record, now, trace)
        parent = context_of(record.traceparent, record.tracestate)
        with working_for(parent if trace is None else trace.context):
            try:
                return await self._run_measured(job, reservation, meter)
            finally:
                if trace is not None:
                    trace.end()

    async def _run_measured(
        self, job: StartedJob, reservation: Reservation, meter: AttemptMeter
    ) -> EndedJob:
        record, state = job.record, self._state
        log = self._publisher.attempt_log(job, meter.on_event)
        run = Run(
            job=job,
            backend=reservation.adapter,
            packer=reservation.packer_for(record.tenant, keeps=record.retention_s is None),
            prompt_slot=reservation.prompt_slot,
            attempt_log=log,
            observer=RunReports(record.id, reservation, state.affinity, self._reporter),
            services=self._services,
        )
        task = asyncio.create_task(run.to_terminal_event())
        held = HeldJob(job, log)
        state.held.add(held)
        _log.debug("job %s began, attempt %d in %s", record.id, job.attempt, record.queue)
        log.until_lost.add_done_callback(lambda _: task.cancel())
        try:
            await asyncio.wait({task})
        finally:
            if not task.done():
                await self._abandon(job, task)
            state.held.remove(held)
        return await self._conclude(job, log, reservation, task, meter)

    async def _conclude(
        self,
        job: StartedJob,
        log: AttemptLog,
        reservation: Reservation,
        task: asyncio.Task[Ended],
        meter: AttemptMeter,
    ) -> EndedJob:
        """Return a job that has ended, to release its lease; give back one that has not."""
        record = job.record
        if task.cancelled() or isinstance(task.exception(), LeaseLost):
            if log.torn:
                _log.warning("job %s: Redis lost a part of its log", record.id)
                await self._hand_over(job, "Redis lost a part of its log")
                meter.handed_over("log_torn")
            else:
                _log.info("job %s was taken away", record.id, extra=_facts(job, "lost"))
                if not self._state.held.was_ended(record.id):
                    meter.lost()
            return NO_JOB
        if isinstance(error := task.exception(), RelayUnavailable):
            _log.warning("job %s: %s", record.id, error)
            if isinstance(error, RelayFull):
                await self._hand_over(job, "Redis has no room for its answer", delay_s=_FULL_S)
            else:
                await self._hand_over(job, "Redis did not answer its worker")
            meter.handed_over("redis")
            return NO_JOB
        last = task.result()
        if isinstance(last, Broken | Elsewhere) and await self._goes_on(
            job, last, reservation, meter
        ):
            return NO_JOB
        meter.ended()
        _log.info("job %s ended", record.id, extra=_ended(job, last))
        return EndedJob(record.id, str(Holder(job.attempt, self._state.name)))

    async def _goes_on(
        self,
        job: StartedJob,
        last: Broken | Elsewhere,
        reservation: Reservation,
        meter: AttemptMeter,
    ) -> bool:
        """Count an attempt that the backend failed; return whether the job has another one."""
        if isinstance(last.error, BackendError):
            reservation.failed(last.error)
            self._state.affinity.on_failure(job.record.id, last.error)
            meter.backend_failed(last.error.code)
        if isinstance(last, Elsewhere):
            await self._move(last, meter)
            return True
        if last.retry is not None:
            reason = in_words(last.error, last.retry.delay_s)
            await self._retry_later(job, reason, last.retry, last.error)
        return last.retry is not None

    async def _move(self, elsewhere: Elsewhere, meter: AttemptMeter) -> None:
        """Give a job to the next target of its alias; while Redis is away, its lease expires."""
        job, error = elsewhere.job, elsewhere.error
        reason = f"fallback: {error.message}"
        _log.info("job %s: %s", job.record.id, reason)
        try:
            if await self._services.moves.move(job, elsewhere.target, reason):
                meter.handed_over("fallback")
        except RelayUnavailable as unavailable:
            _repeated.warn("job %s returns when its lease expires: %s", job.record.id, unavailable)

    async def _retry_later(
        self, job: StartedJob, reason: str, retry: Retry, error: FleetError | None
    ) -> None:
        """Give a job back with a delay; the relay fails it if it has no attempt left."""
        record, delay_s = job.record, retry.delay_s
        _log.info("job %s: %s", record.id, reason, extra=_facts(job, "retry", delay_s=delay_s))
        try:
            waits = await self._leases.hand_over(
                record.queue, record.id, job.attempt, reason=reason,
                counts=retry.counts, delay_s=delay_s, error=error, nonce=job.nonce,
            )  # fmt: skip
        except RelayUnavailable as unavailable:
            _log_left_to_lease(job, unavailable)
        else:
            if waits:
                self._metrics.on_handed_over("retry")
                self._wakeups.set(record.queue, delay_s)

    async def _abandon(self, job: StartedJob, task: asyncio.Task[Ended]) -> None:
        """Stop the run of a job whose Celery task was cancelled.

        At a shutdown the job is handed over, and so is one that was assigned to the session of a
        task; a revoked task, or one over its time limit, cancels the job that it runs itself,
        unless another worker has it by now.
        """
        task.cancel()
        await asyncio.wait({task})
        if self._state.is_draining:
            await self._hand_over(job, "its worker is shutting down")
            self._metrics.on_handed_over("drain")
            return
        if self._state.sessions.has(asyncio.current_task()):
            await self._hand_over(job, "the task of its session was terminated")
            return
        try:
            reason = "its task was terminated"
            await self._queue.cancel(job.record.id, by="worker", reason=reason, nonce=job.nonce)
        except RelayUnavailable as error:
            _log_left_to_lease(job, error)

    async def hand_over_all(self, reason: str) -> None:
        """Give every job back, to be continued by another worker; it uses up no attempt."""
        all_held = self._state.held.all
        for at in range(0, len(all_held), _HANDED_OVER_AT_ONCE):
            some = all_held[at : at + _HANDED_OVER_AT_ONCE]
            await asyncio.gather(*(self._hand_over(held.job, reason) for held in some))
            self._metrics.on_handed_over("drain", len(some))
            for held in some:
                held.log.mark_lost()

    async def _hand_over(self, job: StartedJob, reason: str, *, delay_s: float = 0.0) -> None:
        """Give a job back, due after `delay_s`.

        While Redis is away it returns when its lease expires.
        """
        record = job.record
        try:
            await self._leases.hand_over(
                record.queue, record.id, job.attempt, reason=reason, counts=False,
                delay_s=delay_s, nonce=job.nonce,
            )  # fmt: skip
        except RelayUnavailable as error:
            _log_left_to_lease(job, error)


def _facts(job: StartedJob, outcome: str, **more: object) -> dict[str, dict[str, object]]:
    """What a program finds in the one line of an attempt."""
    record = job.record
    facts: dict[str, object] = {
        "job": record.id, "kind": record.kind, "model": record.model, "backend": record.backend,
        "attempt": job.attempt, "outcome": outcome,
    }  # fmt: skip
    return {"facts": facts | more}


def _ended(job: StartedJob, last: Ended) -> dict[str, dict[str, object]]:
    match last:
        case Done(finish_reason=finish, timings=timings):
            spent = {"queued_ms": timings.queued_ms, "first_token_ms": timings.first_token_ms,
                     "total_ms": timings.total_ms}  # fmt: skip
            return _facts(job, "done", finish_reason=finish, **spent)
        case Failed(code=code):
            return _facts(job, "failed", code=code)
        case Broken(error=error) | Elsewhere(error=error):
            return _facts(job, "failed", code=error.code)


def _log_left_to_lease(job: StartedJob, error: RelayUnavailable) -> None:
    _repeated.warn("job %s returns when its lease expires: %s", job.record.id, error)
