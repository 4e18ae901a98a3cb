"""Moves of a job from one target of its alias to the next, as long as it has no output.

A worker moves a job whose backend says that it cannot take it. The maintainer moves one that has
waited too long (`fleet:movable`), with or without a follower, and with or without a worker.

A move is four steps, each an idempotent script of one slot; whoever dies between two of them leaves
a job that others complete:

1. A waiting job is withdrawn from its queue (`queues/withdraw`). A job without a queue is put back
   by the reconciler. A job that a worker holds stays in its queue until step 3.
2. `jobs/move` increments the attempt, which fences the holder, and writes queue, backend, model and
   target into the record. From now on the record names the new queue: the reconciler, and whoever
   finds the expired lease in the old one (`Leases.hand_over`), puts the job there.
3. The old queue releases it (`queues/supersede`).
4. The new queue gets it, unless it has it: at the end of its tenant's line, as a new job would.

A job may end at any time. `jobs/move` refuses one that has; one that ends after it is released by
whoever sees the end last: `Queue.cancel` reads the record again, and so does the last step here.
"""

import json
from collections.abc import Collection
from contextlib import aclosing
from typing import Final, NamedTuple

from contract import redis_keys
from contract.aliases.parameters import applied
from contract.cost import cost_of
from contract.errors import JobNotFound, NewerVersion, RelayFull
from contract.events import LAST_WORDS, Queued
from contract.jobs import AnyRequest, JobRecord
from contract.model_names import context_length_of, is_same, model_of
from contract.redis_keys import backend_of, queue_name
from contract.requests import Route
from contract.result import Fold
from contract.roster import WorkerReport
from contract.tenants import Tenant
from relay.connection import Connection
from relay.leases import Leases
from relay.log import Log
from relay.order import Arrival, Bounds, arrival, facts_of
from relay.records import Records, requested
from relay.roster import RosterStore
from relay.scheduling import later
from relay.scripts import jobs, queues
from relay.subscriber import Subscriber
from relay.tickets import ticket

_AT_ONCE: Final = 250
"""Jobs that one pass of the maintainer looks at."""
_AGAIN_S: Final = 5.0
"""Seconds until the next look at a job that waits, and that nobody could take."""
_RUNNING_S: Final = 30.0
"""The same for one that runs: it may come back without output."""
_STAYS: Final = ("conv", "in_turn", "bytes")
"""Facts of a job that are the same for all targets."""
_NO_BOUNDS: Final = Bounds(None, None, None, None, None, None)
"""A job that the fleet has accepted is not refused when it moves."""


class MovableJob(NamedTuple):
    """A job whose alias has further targets, as a worker or the maintainer finds it."""

    record: JobRecord
    request: AnyRequest
    """As it was enqueued, with its route."""
    route: Route

    @classmethod
    def of(cls, record: JobRecord, request: AnyRequest) -> "MovableJob | None":
        """None if there is no further target."""
        route = request.route
        if route is None or record.target + 1 >= len(route.targets):
            return None
        return cls(record, request, route)

    @property
    def wait_s(self) -> float:
        """Seconds that it may wait where it is."""
        return self.route.targets[self.record.target].wait_s

    def further(self, workers: Collection[WorkerReport]) -> list[int]:
        """The next targets, counted from 0, that one of these workers takes jobs of."""
        return [
            number
            for number in range(self.record.target + 1, len(self.route.targets))
            if takes_jobs(workers, self.queue_of(number), self.route.targets[number].model)
        ]

    def queue_of(self, number: int) -> str:
        """The queue of a target, counted from 0."""
        return queue_name(self.route.targets[number].backend or "", self.record.kind)


class Moves:
    """Moves jobs along the targets of their aliases; methods raise RelayUnavailable."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._records = Records(connection)
        self._leases = Leases(connection)
        self._roster = RosterStore(connection)
        self._log = Log(connection, Subscriber(connection))

    async def has_output(self, job_id: str) -> bool:
        """Whether the log holds output that has not been taken back; raises RelayUnavailable."""
        answer = Fold()
        async with aclosing(self._log.read(job_id)) as pages:
            async for frames in pages:
                for frame in frames:
                    answer.add_frame(frame)
        return answer.has_output

    async def next(self, job: MovableJob) -> int | None:
        """The next target of a job that a worker takes jobs of now; raises RelayUnavailable."""
        return await self._next(job, await self._roster.workers())

    async def _next(self, job: MovableJob, workers: Collection[WorkerReport]) -> int | None:
        for number in job.further(workers):
            paused = redis_keys.paused(job.queue_of(number))
            if not await self._connection.command("EXISTS", paused):
                return number
        return None

    async def move(self, job: MovableJob, number: int, reason: str) -> bool:
        """Make a job that this process holds, or has withdrawn, one of this target (from 0).

        Returns whether it did: not if another attempt has it, or if it has ended. Raises
        RelayUnavailable; the move is then completed, or the job returned, by the maintainer.

        Who has had no reply may call again: that completes the move, and returns True as long as
        the job has not been started there. It changes nothing that the first call has done: the
        job keeps its place, and the lease of a worker that has claimed it.
        """
        asked, old = applied(job.request, number), job.record
        record = old.model_copy(
            update={
                "queue": job.queue_of(number),
                "backend": job.route.targets[number].backend,
                "model": job.route.targets[number].model,
                "target": number,
                "price": job.route.targets[number].price,
                "attempt": old.attempt + 1,
            }
        )
        facts = await self._facts(record, asked)
        queued = Queued(queue=record.queue, reason=reason)
        state, _ = await self._connection.call(jobs.move(record, facts, queued))
        if state == "ended":
            await self._leases.release(old.queue, old.id, None)
        if state != "queued":
            return False
        tenant = Tenant(name=record.tenant, weight=job.route.weight)
        arriving = arrival(record, asked, tenant, _NO_BOUNDS)
        # A message of a conversation may have to wait for earlier ones, which a claim knows.
        assignment = "" if "conv" in json.loads(facts) else arriving.assignment
        arriving = arriving._replace(facts=facts, assignment=assignment)
        await self._enter(record, arriving, job, old.queue)
        return True

    async def _facts(self, record: JobRecord, asked: AnyRequest) -> str:
        """What a claim must know of the job, with what the move does not change."""
        state = await self._records.state(record.id)
        old = json.loads((state and state.facts) or "{}")
        stays = {name: old[name] for name in _STAYS if name in old}
        facts = facts_of(record, cost_of(asked), context_length_of(asked))
        return json.dumps({**json.loads(facts), **stays})

    async def _enter(self, record: JobRecord, arriving: Arrival, job: MovableJob, old: str) -> None:
        if old != record.queue:
            await self._leases.supersede(old, record.id, record.attempt)
        # Of the new one: what an interrupted move has left there.
        if not await self._leases.supersede(record.queue, record.id, record.attempt):
            for later_move in jobs.moves_later(record, job.route):
                await self._connection.call(later_move)
            try:
                await self._connection.call(queues.enqueue(arriving, ticket(record.queue)))
            except RelayFull:
                # It refuses new jobs, and takes back those that it knows.
                old_attempt = record.attempt - 1
                await self._leases.give_back(record.queue, record.id, old_attempt, record.attempt)
        if old != record.queue:
            # Another maintainer may have taken it for lost between the steps.
            await self._connection.call(queues.withdraw(old, record.id))
        state = await self._records.state(record.id)
        if state is None or state.status in LAST_WORDS:
            await self._leases.release(record.queue, record.id, None)

    async def move_waiting(self) -> int:
        """Move jobs that have waited for too long. Returns how many; raises RelayUnavailable."""
        now = f"{self._connection.now():.6f}"
        due = await self._connection.command(
            "ZRANGEBYSCORE", redis_keys.MOVABLE, "-inf", now, "LIMIT", 0, _AT_ONCE
        )
        if not due:
            return 0
        workers = await self._roster.workers()
        moved = 0
        for id in due:
            job_id = id.decode(errors="replace")
            with self._connection.passing_over(redis_keys.record(job_id)):
                moved += await self._move_waiting(job_id, workers)
        return moved

    async def _move_waiting(self, job_id: str, workers: Collection[WorkerReport]) -> bool:
        job = await self._movable(job_id)
        if job is None:
            await self._connection.command("ZREM", redis_keys.MOVABLE, job_id)
            return False
        record = job.record
        if (wait_s := await self._waits_still_s(job)) is not None:
            await self._connection.call(jobs.may_move(job_id, wait_s))
            return False
        at = await self._next(job, workers)
        if at is None or not await self._connection.call(queues.withdraw(record.queue, job_id)):
            await self._connection.call(jobs.may_move(job_id, _AGAIN_S))
            return False
        reason = f"fallback: it waited for {record.queue} longer than {job.wait_s:g} s"
        if await self.move(job, at, reason):
            return True
        await self._put_back(job_id)
        return False

    async def _waits_still_s(self, job: MovableJob) -> float | None:
        """Seconds until the next look at a job that is not to move now; None: it may move.

        A job that was scheduled has waited since it was due.
        """
        record, now = job.record, self._connection.now()
        if record.status == "running":
            return _RUNNING_S
        if later.reason(record, now):
            return job.wait_s + max(0.0, (record.not_before or now) - now)
        arrivals = redis_keys.arrivals(record.queue)
        since = await self._connection.command("ZSCORE", arrivals, record.id)
        left_s = 0.0 if since is None else float(since) + job.wait_s - now
        return left_s if left_s > 0 else None

    async def _movable(self, job_id: str) -> MovableJob | None:
        """The job, if it may still move: it lives, has no output, and has a further target."""
        try:
            record = await self._records.get(job_id)
            if record.status in LAST_WORDS:
                return None
            job = MovableJob.of(record, await self._records.request(job_id))
        except (JobNotFound, NewerVersion):
            return None
        if job is None or (record.attempt > 1 and await self.has_output(job_id)):
            return None
        return job

    async def _put_back(self, job_id: str) -> None:
        """Return a job that was withdrawn to its queue, if it waits still."""
        state = await self._records.state(job_id)
        if state is not None and state.status == "queued":
            await self._leases.give_back(state.queue, job_id, state.attempt, state.attempt)

    async def movable(self, record: JobRecord, request: bytes) -> MovableJob | None:
        """A job that this worker runs, if it may move; raises NewerVersion."""
        job = None if record.alias is None else MovableJob.of(record, requested(request))
        return None if job is None or await self.has_output(record.id) else job


def takes_jobs(workers: Collection[WorkerReport], queue: str, model: str) -> bool:
    """Whether a live worker takes jobs of a model now: its backend is healthy, no circuit open."""
    backend = backend_of(queue)
    return any(
        report.name == queue
        and report.circuit_open_until is None
        and not any(is_same(model_of(loaded), model) for loaded in report.model_circuits or ())
        for worker in workers
        if not worker.draining
        and any(each.name == backend and each.healthy for each in worker.backends)
        for report in worker.queues
    )
