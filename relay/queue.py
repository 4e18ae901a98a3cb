"""The verbs over the nouns: enqueue, claim, start, cancel."""

from collections.abc import Sequence
from contextlib import suppress
from secrets import token_hex
from typing import Final, NamedTuple
from uuid import uuid4

from contract import redis_keys
from contract.errors import FleetError, NewerVersion, QueueFull, RelayUnavailable
from contract.events import Cancelled, Queued, Started
from contract.jobs import AnyRequest, JobRecord, QueuePlace
from contract.model_names import untagged, variant
from contract.models import PullRequest
from contract.requests import Kind
from contract.tenants import DEFAULT_TENANT, Tenant
from contract.wire import VERSION, encode
from relay.connection import Argument, Call, Connection, pairs
from relay.leases import Holder, Leases
from relay.log import BEGIN, END, START, ending_keys
from relay.order import CLAIM, ENQUEUE, EXPECT, Bounds, ClaimFilter, arrival, keys_of, taken
from relay.position import Positions, ahead, placed
from relay.records import Records, from_hash, to_hash
from relay.tickets import ticket

_RETRY_AFTER_S: Final = (1.0, 30.0, 120.0)
"""Least, unknown, most."""
_TENANT_BOUNDS: Final = (-3, -4)
_JOB_BOUNDS: Final = (-1, -3)
_SUFFIX: Final = {"jobs": "", "tokens": "_TOKENS"}
_LEFT_FOR_S: Final = 5.0
_LEFT_AT_MOST: Final = 20
"""How long, and how often without using up attempts, a job that this version cannot read is left to
a worker that can."""
_ANY: Final = ClaimFilter()


class Claim(NamedTuple):
    """A lease on the job that should run next; `Queue.start` makes an attempt of it."""

    queue: str
    worker: str
    job_id: str
    attempt: int
    """The attempt that the lease permits, counted from 1."""
    model: str | None
    loaded: str | None
    """Its model as it is to be loaded: contract/model_names.py."""


class StartedJob(NamedTuple):
    """A job whose attempt a worker has started."""

    record: JobRecord
    request: bytes
    """The request as it was written: JSON, not validated yet."""
    length: int
    """Events in its log; `started` is the last."""

    @property
    def attempt(self) -> int:
        """The number of the attempt, counted from 1."""
        return self.record.attempt


class Queue:
    """Puts jobs in and takes them out."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._records = Records(connection)
        self._leases = Leases(connection)
        self.standing = Positions(connection)

    async def enqueue(
        self,
        request: AnyRequest,
        *,
        queue: str,
        tenant: Tenant = DEFAULT_TENANT,
        job_id: str | None = None,
        retry_of: str | None = None,
    ) -> tuple[JobRecord, QueuePlace]:
        """Put a job into a queue; the same `job_id` again changes nothing.

        A pull of a model that is being pulled is that job. Raises QueueFull, RelayUnavailable;
        without a `job_id` of the caller's nothing is left behind then.
        """
        if job_id is not None and (there := await self._records.find(job_id)) is not None:
            return there, await self.standing.place(there)
        record = _new_record(request, queue, tenant, job_id or uuid4().hex, retry_of)
        arguments = arrival(record, request, tenant, self._bounds(tenant))
        expected, rate = await self._expected(queue, arguments)
        if expected[0] < 0:
            raise _full(queue, tenant.name, expected, rate)
        try:
            return await self._begun(record, request, expected[0], arguments, rate)
        except QueueFull as error:
            await self._leases.end(queue, record.id, error)
            raise
        except RelayUnavailable as error:
            if job_id is None:
                # What the caller is told did not happen must not happen later.
                with suppress(RelayUnavailable):
                    await self._leases.end(queue, record.id, error)
            raise

    async def _expected(
        self, queue: str, arguments: list[Argument]
    ) -> tuple[list[int], float | None]:
        """EXPECT's answer, and the queue's rate."""
        args = [*arguments, *self.standing.drained(queue)]
        expected, counts = await self._connection.run(EXPECT, keys_of(queue), args)
        return expected, self.standing.rate(counts)

    async def _begun(
        self,
        record: JobRecord,
        request: AnyRequest,
        position: int,
        arguments: list[Argument],
        rate: float | None,
    ) -> tuple[JobRecord, QueuePlace]:
        """Write the record, then the backlog."""
        queue, begin = record.queue, _begin(record, request, position, facts=arguments[2])
        enqueue: Call = (ENQUEUE, keys_of(queue), [*arguments, ticket(queue)])
        if isinstance(request, PullRequest):
            id, *created = await self._connection.run(*begin)
            if not created:
                there = await self._records.get(id.decode())
                return there, await self.standing.place(there)
            created_at, answer = created[0], await self._connection.run(*enqueue)
        else:
            (_, created_at), answer = await self._connection.run_in_turn([begin, enqueue])
        if answer[0] < 0:
            raise _full(queue, record.tenant, answer, rate)
        at, deadline_s = float(created_at), request.effective_deadline_s
        deadline_at = None if deadline_s is None else at + deadline_s
        record = record.model_copy(update={"created_at": at, "deadline_at": deadline_at})
        return record, placed(answer[0], rate) if answer[0] else QueuePlace()

    def _bounds(self, tenant: Tenant) -> Bounds:
        settings = self._connection.settings
        return Bounds(
            settings.queue_limit,
            settings.queue_limit_tokens,
            tenant.limit_jobs or settings.tenant_limit,
            tenant.limit_tokens or settings.tenant_limit_tokens,
        )

    async def claim(self, queue: str, worker: str, taking: ClaimFilter = _ANY) -> Claim | None:
        """Lease the job that should run next to `worker`; None if no job waits that fits.

        Raises RelayUnavailable; a job that was leased nevertheless returns when its lease expires.
        """
        arguments = taken(queue, worker, self._connection.settings, taking)
        picked = await self._connection.run(CLAIM, keys_of(queue), arguments)
        if not picked:
            return None
        self._connection.set_clock(float(picked[2]))
        job_id, attempt, model = picked[0].decode(), int(picked[1]), picked[3].decode() or None
        loaded = model and variant(model, int(picked[4]) if picked[4] else None)
        return Claim(queue, worker, job_id, attempt, model, loaded)

    async def start(self, claim: Claim, endpoint: str | None = None) -> StartedJob | None:
        """Write `started` into the log of a claimed job, with the address where it will run.

        Returns None, and releases the lease, if the job has ended meanwhile or only a newer
        version can read it: claim the next one then.

        Raises RelayUnavailable; the job returns when its lease expires.
        """
        started = Started(
            attempt=claim.attempt,
            worker=claim.worker,
            backend=redis_keys.backend_of(claim.queue),
            endpoint=endpoint,
            model=claim.model,
            nonce=token_hex(4),
        )
        job = await self._start(claim.job_id, started)
        if job is None:
            holder = Holder(claim.attempt, claim.worker)
            await self._leases.release(claim.queue, claim.job_id, holder)
        return job

    async def _start(self, job_id: str, started: Started) -> StartedJob | None:
        answer = await self._connection.run(
            START,
            [redis_keys.record(job_id), redis_keys.log(job_id)],
            [
                redis_keys.channel(job_id), started.attempt, started.worker, started.nonce or "",
                started.model_dump_json()[1:],
            ],
        )  # fmt: skip
        if not answer:
            return None
        fields = pairs(answer[1])
        try:
            return StartedJob(from_hash(fields), fields[b"request"], answer[0])
        except NewerVersion as error:
            await self._leave_to_a_newer_one(fields[b"queue"].decode(), job_id, started, error)
            return None

    async def _leave_to_a_newer_one(
        self, queue: str, job_id: str, started: Started, error: NewerVersion
    ) -> None:
        await self._leases.hand_over(
            queue, job_id, started.attempt, reason=error.message, error=error,
            counts=started.attempt > _LEFT_AT_MOST, delay_s=_LEFT_FOR_S,
        )  # fmt: skip

    async def refuse(self, job_id: str, *, kind: Kind, queue: str, error: FleetError) -> None:
        """Write down what came as a job and cannot be one, as failed; raises RelayUnavailable."""
        record = JobRecord(
            id=job_id, v=VERSION, kind=kind, status="queued", queue=queue,
            backend=redis_keys.backend_of(queue), tenant=DEFAULT_TENANT.name, priority="standard",
            attempt=1, max_attempts=1, created_at=0.0,
        )  # fmt: skip
        await self._connection.run(*_begin(record, None, 1))
        await self._leases.end(queue, job_id, error)

    async def give_ticket_back(self, queue: str) -> None:
        """Send a ticket again that was taken without a free slot to claim with."""
        await self._connection.command("LPUSH", queue, ticket(queue))

    async def have_tickets(self, queues: Sequence[str]) -> bool:
        """Whether tickets wait in any of these; raises RelayUnavailable."""
        return bool(queues and await self._connection.command("EXISTS", *queues))

    async def wake(self, queue: str) -> None:
        """Let delayed jobs that are due wait again, with tickets; raises RelayUnavailable."""
        await self._leases.wake(queue)

    async def cancel(self, job_id: str, *, by: str, reason: str = "") -> JobRecord:
        """End a job in whatever phase it is; final at once, and the same answer again.

        Returns the terminal record; raises JobNotFound, RelayUnavailable.
        """
        record = await self._records.get(job_id)
        cancelled = Cancelled(by=by, reason=reason)
        await self._connection.run(
            END,
            ending_keys(job_id),
            [
                job_id, redis_keys.channel(job_id), "cancelled",
                int(self._connection.settings.log_ttl_s), cancelled.model_dump_json()[1:], 0,
            ],
        )  # fmt: skip
        worker = await self._leases.release(record.queue, job_id, None)
        if worker:
            await self._connection.command("PUBLISH", redis_keys.worker_channel(worker), job_id)
        return await self._records.get(job_id)


def _begin(
    record: JobRecord, request: AnyRequest | None, position: int, *, facts: Argument = "{}"
) -> Call:
    body = b"{}" if request is None else encode(request)
    # With the facts, so that whoever gives the job back need not understand what it asks for.
    fields: dict[str, Argument] = {**to_hash(record, body), "facts": facts}
    flat = [x for field in fields.items() for x in field]
    deadline_s = None if request is None else request.effective_deadline_s
    queued = Queued(queue=record.queue, position=position, reason=ahead(position - 1))
    keys: Sequence[str] = [
        redis_keys.record(record.id),
        redis_keys.log(record.id),
        redis_keys.LIVE,
        redis_keys.DEADLINES,
        redis_keys.RECENT,
        redis_keys.recent(record.tenant),
    ]
    if isinstance(request, PullRequest):
        keys = [*keys, redis_keys.single(record.queue, record.tenant, untagged(request.model))]
    args: list[Argument] = [
        record.id, redis_keys.channel(record.id), queued.model_dump_json()[1:],
        "" if deadline_s is None else deadline_s, *flat,
    ]  # fmt: skip
    return BEGIN, keys, args


def _full(queue: str, tenant: str, answer: Sequence[int], rate: float | None) -> QueueFull:
    bound, held, limit = answer
    is_own, what = bound in _TENANT_BOUNDS, "jobs" if bound in _JOB_BOUNDS else "tokens"
    least_s, unknown_s, most_s = _RETRY_AFTER_S
    whose = f"holds {held} {what} of tenant {tenant}" if is_own else f"holds {held} {what}"
    remedy = "the bound of its key, or FLEET_TENANT_LIMIT" if is_own else "FLEET_QUEUE_LIMIT"
    return QueueFull(
        f"queue {queue} {whose}, and may hold {limit} ({remedy}{_SUFFIX[what]}): try again later, "
        "send less at once, or start more workers",
        retry_after_s=max(least_s, min(most_s, 1 / rate)) if rate else unknown_s,
        queue=queue,
        scope="tenant" if is_own else "queue",
        limit=limit,
        held=held,
        eta_s=round(held / rate, 1) if rate and what == "jobs" else None,
    )


def _new_record(
    request: AnyRequest, queue: str, tenant: Tenant, job_id: str, retry_of: str | None
) -> JobRecord:
    return JobRecord(
        id=job_id,
        v=VERSION,
        kind=request.kind,
        status="queued",
        queue=queue,
        backend=redis_keys.backend_of(queue),
        model=getattr(request, "model", None),
        tenant=tenant.name,
        priority=request.priority,
        attempt=1,
        max_attempts=request.max_attempts,
        created_at=0.0,
        on_disconnect=request.on_disconnect,
        retry_of=retry_of,
        metadata=request.metadata,
    )
