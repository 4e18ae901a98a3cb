"""Enqueue and cancel jobs; what workers do with them is in relay/claims.py."""

from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NamedTuple
from uuid import uuid4

from contract import redis_keys
from contract.conversations import ConversationTurn
from contract.errors import (
    FleetError,
    JobNotFound,
    QueueFull,
    RelayUnavailable,
)
from contract.events import LAST_WORDS, Cancelled
from contract.jobs import AnyRequest, JobRecord, QueuePlace
from contract.model_names import untagged
from contract.models import PullRequest
from contract.requests import Kind
from contract.tenants import DEFAULT_TENANT, Tenant
from contract.wire import VERSION
from relay.admission.call_bounds import check_arguments
from relay.admission.new_job import check_images, first_of, invalid_job, new_job, new_record
from relay.admission.turn_admission import INTERRUPTED, TurnAdmission
from relay.connection import Connection, ScriptCall
from relay.idempotency import Key, KeyTimes
from relay.leases import AFTER_A_PAUSE, Leases
from relay.multiplexer import LargeWord
from relay.order import Arrival
from relay.parents import Parents
from relay.position import Positions, behind, paused, placed, queue_full, turn_obstacle
from relay.records import Records
from relay.room.room_state import no_room, take_room
from relay.scheduling import later
from relay.scheduling.pauses import pause_in
from relay.scripts import jobs, queues
from relay.scripts.jobs import HeldKey, NewJob
from relay.scripts.turn_scripts import KeyToHold
from relay.tickets import ticket
from relay.usage.limits import TenantLimits, UsageReservation

_FULL_S: Final = 10.0
"""For how long a queue is checked before each enqueue after it has refused a job."""
_FULL_AT_MOST: Final = 1000


class Once(NamedTuple):
    """The Idempotency-Key of a new job."""

    job_id: str
    """The job that it becomes, if the key has none."""
    key: Key
    times: KeyTimes


class Queue:
    """The queues of a fleet: enqueues and cancels jobs."""

    def __init__(
        self,
        connection: Connection,
        has_webhooks: Callable[[str], bool] = lambda _: False,
        *,
        is_for_rows: bool = False,
    ) -> None:
        """Work through this connection; `has_webhooks`: whether a tenant has some.

        `is_for_rows`: a batch reads the answers, which are not removed before their time.
        """
        self._connection, self._has_webhooks = connection, has_webhooks
        self._is_for_rows = is_for_rows
        self._records = Records(connection)
        self._leases = Leases(connection)
        self._limits = TenantLimits(connection)
        self._parents = Parents(connection)
        self._turns = TurnAdmission(connection)
        self._full_at: dict[tuple[str, str], float] = {}
        """When each queue last refused a job of each tenant (monotonic seconds)."""
        self.positions = Positions(connection)

    async def enqueue(
        self,
        request: AnyRequest,
        *,
        queue: str,
        tenant: Tenant = DEFAULT_TENANT,
        job_id: str | None = None,
        new_job_id: str | None = None,
        retry_of: str | None = None,
        expects_follower: bool = False,
        first_follower: str | None = None,
        obstacle: str = "",
        bound_key: str = "",
    ) -> tuple[JobRecord, QueuePlace]:
        """Put a job into a queue; the same `job_id` again changes nothing.

        `new_job_id` has no job yet. `expects_follower`: an HTTP client enqueues, and a job that
        lives for its followers ends if none comes (docs/adr/0012). `first_follower`
        (`Followers.process`) is registered, unless the job exists. `obstacle` is what all jobs of
        the queue wait for. A pull of a model that is being pulled is that job, to which then
        `bound_key` (the name in Redis of an Idempotency-Key of `job_id`) is bound.

        Raises QueueFull, RateLimited, BudgetSpent, OverLimit, ConversationBusy, RelayUnavailable,
        and InvalidRequest or JobNotFound for what it is to wait for; without a `job_id` nothing is
        left then.
        """
        if job_id is not None and (there := await self._records.find(job_id)) is not None:
            return there, await self.positions.place(there)
        await self._check(request, tenant, queue)
        follower_s = self._connection.settings.lease_s if expects_follower else None
        new, arriving, reservation = await self._made(
            request, queue, tenant, job_id or new_job_id or uuid4().hex, retry_of=retry_of,
            first_follower=first_follower, follower_s=follower_s, obstacle=obstacle,
        )  # fmt: skip
        async with self._limits.reserving(reservation):
            lives = job_id is not None
            job = await self._enqueue(new, request, arriving, lives=lives, bound_key=bound_key)
        assert not isinstance(job, HeldKey)  # noqa: S101 - for the type checker: only of a key
        return job

    async def enqueue_once(
        self,
        request: AnyRequest,
        once: Once,
        *,
        queue: str,
        tenant: Tenant,
        first_follower: str | None = None,
        obstacle: str = "",
    ) -> tuple[JobRecord, QueuePlace] | HeldKey:
        """Put a new job into a queue unless its Idempotency-Key has one, in one round trip.

        Returns the job of the key if it has one. An HTTP client enqueues; a pull is not enqueued
        this way. Raises as `enqueue`, and leaves nothing but the key then.
        """
        await self._check(request, tenant, queue)
        new, arriving, reservation = await self._made(
            request, queue, tenant, once.job_id, first_follower=first_follower,
            follower_s=self._connection.settings.lease_s, obstacle=obstacle,
        )  # fmt: skip
        async with self._limits.reserving(reservation):
            job = await self._enqueue(new, request, arriving, once)
        if isinstance(job, HeldKey) and reservation is not None:
            await self._limits.release(reservation)
        return job

    async def _made(
        self,
        request: AnyRequest,
        queue: str,
        tenant: Tenant,
        job_id: str,
        *,
        retry_of: str | None = None,
        first_follower: str | None,
        follower_s: float | None,
        obstacle: str,
    ) -> tuple[NewJob, Arrival, UsageReservation | None]:
        """What is written for a new job, and what is reserved for it first."""
        settings, now = self._connection.settings, self._connection.now()
        record = new_record(
            request, queue, tenant, job_id, retry_of=retry_of, settings=settings,
            is_told=self._has_webhooks(tenant.name),
        )  # fmt: skip
        record, reservation = self._limits.priced(record, request, tenant)
        follower = first_of(record, first_follower, follower_s)
        new, arriving = await new_job(
            record, request, tenant, settings, follower, obstacle=obstacle, now=now,
            is_needed=self._is_for_rows,
        )  # fmt: skip
        return new, arriving, reservation

    async def _enqueue(
        self,
        new: NewJob,
        request: AnyRequest,
        arriving: Arrival,
        once: Once | None = None,
        *,
        lives: bool = False,
        bound_key: str = "",
    ) -> tuple[JobRecord, QueuePlace] | HeldKey:
        """`lives`: whether a job of this id, which a caller has chosen, may be accepted later."""
        record = new.record
        self._take_room(new, arriving)
        await self._refuse_if_full(arriving)
        try:
            if record.blocked:
                await self._parents.announce(record.id)
            for move in jobs.moves_later(record, request.route):
                await self._connection.call(move)
            job = await self._begun(new, request, arriving, once, bound_key)
            if not record.blocked or isinstance(job, HeldKey) or await self._parents.attach(record):
                return job
            record = await self._records.get(record.id)
            return record, await self.positions.place(record)
        except QueueFull as error:
            self._remember_full(record.queue, record.tenant)
            await self._leases.end(record.queue, record.id, error)
            await self._connection.call(jobs.forget([record.id], record.tenant))
            raise
        except RelayUnavailable as error:
            if not lives:
                # A job whose enqueue is reported as failed must not run later.
                with suppress(RelayUnavailable):
                    await self._leases.end(record.queue, record.id, error)
            raise

    async def _check(self, request: AnyRequest, tenant: Tenant, queue: str) -> None:
        """Check its images, calls and parents, and whether its tenant may have more.

        Raises InvalidRequest, PayloadTooLarge, JobNotFound, QueueFull, RelayUnavailable.
        """
        if tenant.name in self._connection.crowding:
            self._connection.observer.on_refused(queue, "tenant")
            raise no_room(tenant.name)
        check_images(request, self._connection.settings)
        await check_arguments(request)
        if later.is_later(request):
            later.check_time(request.not_before, self._connection.now())
            await self._parents.require(request, tenant)

    def _take_room(self, new: NewJob, arriving: Arrival) -> None:
        body = new.fields.get("request", b"")
        size_bytes = 0
        if isinstance(body, LargeWord):
            size_bytes = body.size_bytes
        elif isinstance(body, bytes):
            size_bytes = len(body)
        try:
            take_room(self._connection, arriving.tenant, size_bytes)
        except QueueFull:
            self._connection.observer.on_refused(arriving.queue, "tenant")
            raise

    async def _refuse_if_full(self, arriving: Arrival) -> None:
        """Raise QueueFull without a trace of the job if the queue refused another a moment ago.

        Only then the bounds are checked before the record is written, which is a round trip of
        its own.
        """
        where = (arriving.queue, arriving.tenant)
        refused_at = self._full_at.get(where)
        if refused_at is None:
            return
        expected = await self._connection.call(queues.expect(arriving))
        if expected.position < 0:
            self._remember_full(*where)
            rate = await self.positions.recent_rate(arriving.queue)
            raise self._refused(arriving, expected, rate)
        if monotonic() - refused_at > _FULL_S:
            self._full_at.pop(where, None)

    def _remember_full(self, queue: str, tenant: str) -> None:
        if len(self._full_at) >= _FULL_AT_MOST:
            self._full_at.clear()
        self._full_at[queue, tenant] = monotonic()

    async def _begun(
        self,
        new: NewJob,
        request: AnyRequest,
        arriving: Arrival,
        once: Once | None,
        bound_key: str,
    ) -> tuple[JobRecord, QueuePlace] | HeldKey:
        """Write the record, then the backlog: two slots (docs/adr/0031), one round trip."""
        enqueue, record = queues.enqueue(arriving, ticket(arriving.queue)), new.record
        if arriving.turn is not None:
            return await self._begun_turn(new, arriving, arriving.turn, once)
        if isinstance(request, PullRequest) and not later.is_later(request):
            single = redis_keys.single(record.queue, record.tenant, untagged(request.model))
            begun = await self._connection.call(jobs.begin_single(new, single, bound_key))
            if (at := begun.created_at) is None:
                existing = await self._records.get(begun.job_id)
                return existing, await self.positions.place(existing)
            place = await self._connection.call(enqueue)
        elif once is None:
            calls: list[ScriptCall[Any]] = [jobs.begin(new), enqueue]
            (_, at), place = await self._connection.calls(calls)
        else:
            key, times = once.key, once.times
            begin = jobs.begin_once(
                new, key.name, key.fingerprint, ttl_s=times.ttl_s, renew_s=times.renew_s
            )
            calls = [begin, enqueue]
            held, place = await self._connection.calls(calls)
            if (at := held.created_at) is None:
                # What was put into the queue has no record: no worker can start it.
                await self._leases.release(arriving.queue, record.id, None)
                return HeldKey(*held)
        return await self._placed(new, arriving, place, at)

    async def _begun_turn(
        self, new: NewJob, arriving: Arrival, turn: ConversationTurn, once: Once | None
    ) -> tuple[JobRecord, QueuePlace] | HeldKey:
        """Do the same for a message of a conversation, whose policy decides on earlier ones."""
        key = None if once is None else KeyToHold(*once.key, *once.times)
        begun = await self._turns.enqueue(new, arriving, turn, key)
        if isinstance(begun, HeldKey):
            return begun
        record, place = await self._placed(new, arriving, begun.place, begun.created_at)
        if turn.policy == "interrupt":
            for job_id in begun.earlier:
                with suppress(JobNotFound):
                    await self.cancel(job_id, by="conversation", reason=INTERRUPTED)
        elif begun.earlier:
            place = behind(turn_obstacle(begun.earlier[0]), place)
        return record, place

    async def _placed(
        self, new: NewJob, arriving: Arrival, place: queues.Place, at: float
    ) -> tuple[JobRecord, QueuePlace]:
        rate = await self.positions.recent_rate(arriving.queue)
        if place.position < 0:
            raise self._refused(arriving, place, rate)
        self._connection.observer.on_enqueued(arriving.queue, new.record.priority)
        deadline_at = None if new.deadline_s is None else at + new.deadline_s
        record = new.record.model_copy(update={"created_at": at, "deadline_at": deadline_at})
        if not place.position:
            reason = later.reason(record, self._connection.now())
            return record, QueuePlace(reason=reason, is_scheduled=bool(reason))
        if (pause := pause_in(place.why)) is not None:
            return record, paused(place.position, rate, pause, self._connection.now())
        return record, placed(place.position, rate, new.queued.reason)

    def _refused(self, arriving: Arrival, place: queues.Place, rate: float | None) -> QueueFull:
        error = queue_full(arriving, place, rate)
        self._connection.observer.on_refused(arriving.queue, str(error.facts["scope"]))
        return error

    async def refuse(self, job_id: str, *, kind: Kind, queue: str, error: FleetError) -> None:
        """Record a message that is no valid job as a failed job; raises RelayUnavailable."""
        record = JobRecord(
            id=job_id, v=VERSION, kind=kind, status="queued", queue=queue,
            backend=redis_keys.backend_of(queue), tenant=DEFAULT_TENANT.name, priority="standard",
            attempt=1, max_attempts=1, created_at=0.0,
        )  # fmt: skip
        await self._connection.call(jobs.begin(invalid_job(record)))
        await self._leases.end(queue, job_id, error)

    async def wake_after_pause(self, queue: str) -> None:
        """Wake workers for what came while a queue was paused; raises RelayUnavailable."""
        await self._leases.wake(queue, tickets=AFTER_A_PAUSE)

    async def remove_unread(self, job_id: str, tenant: str) -> None:
        """Delete a job whose record cannot be read; its followers hear why, if they can.

        Raises RelayUnavailable.
        """
        (name,) = await self._connection.replies([("HGET", redis_keys.record(job_id), "queue")])
        known = await self._connection.command("ZRANGE", redis_keys.QUEUES, 0, -1)
        names = [each.decode(errors="replace") for each in known]
        has = await self._connection.replies(
            [("HEXISTS", redis_keys.facts(each), job_id) for each in names]
        )
        its = {each for each, is_there in zip(names, has, strict=True) if is_there}
        for queue in sorted(its) or [(name or b"").decode(errors="replace")]:
            await self._leases.set_aside(queue, job_id)
        record, log = redis_keys.record(job_id), redis_keys.log(job_id)
        lists = (redis_keys.RECENT, redis_keys.recent(tenant), redis_keys.DEAD, redis_keys.LIVE)
        await self._connection.pipeline(
            [("UNLINK", record), ("EXPIRE", log, 60), *(("ZREM", each, job_id) for each in lists)]
        )

    async def cancel(self, job_id: str, *, by: str, reason: str = "", nonce: str = "") -> JobRecord:
        """End a queued or running job at once; a job that has ended is returned unchanged.

        So is, with the `nonce` of an attempt, a job that this attempt does not have. Returns the
        record, else the terminal one; raises JobNotFound, RelayUnavailable.
        """
        record = await self._records.get(job_id)
        cancelled = Cancelled(by=by, reason=reason)
        settings = self._connection.settings
        ended = await self._connection.call(jobs.end(job_id, cancelled, settings, nonce=nonce))
        if ended is None and nonce:
            now = await self._records.get(job_id)
            if now.status not in LAST_WORDS:
                return now
        if ended is not None:
            self._connection.observer.on_ended(
                record.queue, ended.priority, ended.tenant, "cancelled"
            )
        worker = await self._leases.release(record.queue, job_id, None)
        if worker:
            await self._connection.command("PUBLISH", redis_keys.worker_channel(worker), job_id)
        after = await self._records.get(job_id)
        await self._leases.release_moved(after, record.queue)
        return after
