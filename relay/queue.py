"""The verbs over the nouns: enqueue, claim, cancel, and where a job stands."""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import uuid4

from contract import names
from contract.errors import QueueFull
from contract.events import Cancelled, Queued, Started
from contract.jobs import AnyRequest, JobRecord, Place
from contract.models import PullRequest
from contract.requests import SLACK_S
from contract.roster import QueueView, WorkerReport
from contract.wire import VERSION, encode
from relay.connection import Argument, Call, Connection
from relay.lease import Holder, Leases
from relay.log import BEGIN, END, START
from relay.order import CLAIM, ENQUEUE, LOOK_AHEAD, facts_of
from relay.records import Records, from_hash, pairs, to_hash
from relay.tickets import ticket

_STALE_AT_ONCE: Final = 100
"""Entries of jobs that have ended meanwhile which one claim clears away at the most."""
_MINUTES: Final = 5
"""Over which the drain rate is measured."""


class Claim(NamedTuple):
    """A job in a worker's hands."""

    record: JobRecord
    request: bytes
    """The request as it was written (JSON); whoever runs the job parses it."""

    @property
    def attempt(self) -> int:
        """The attempt that this claim may speak as."""
        return self.record.attempt


class Queue:
    """Puts jobs in, takes them out, and says where they stand."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self._connection = connection
        self._records = Records(connection)
        self._leases = Leases(connection)

    async def enqueue(
        self,
        request: AnyRequest,
        *,
        queue: str,
        tenant: str = "default",
        job_id: str | None = None,
    ) -> tuple[JobRecord, Place]:
        """Put a job into a queue; the same `job_id` again changes nothing.

        A pull of a model that is being pulled is that job. Raises QueueFull, RelayUnavailable.
        """
        limit = self._connection.settings.queue_limit
        depth, rate = await self._depth_and_rate(queue)
        if depth >= limit:
            raise _full(queue, depth, rate)
        record = _new_record(request, queue, tenant, job_id or uuid4().hex)
        begin, enqueue = _begin(record, request, depth), _enqueue(record, limit)
        if isinstance(request, PullRequest):
            id, *created = await self._connection.run(*begin)
            if not created:
                there = await self._records.get(id.decode())
                return there, await self.place(there)
            created_at, position = created[0], await self._connection.run(*enqueue)
        else:
            (_, created_at), position = await self._connection.run_in_turn([begin, enqueue])
        if position < 0:
            error = _full(queue, depth, rate)
            await self._leases.end(queue, record.id, error)
            raise error
        at, deadline_s = float(created_at), request.effective_deadline_s
        deadline_at = None if deadline_s is None else at + deadline_s
        record = record.model_copy(update={"created_at": at, "deadline_at": deadline_at})
        return record, _place(position or None, rate)

    async def claim(self, queue: str, worker: str) -> Claim | None:
        """Take the job that should run next, say that it started; None if nothing waits.

        Raises RelayUnavailable; what was claimed then comes back when its lease expires.
        """
        for _ in range(_STALE_AT_ONCE):
            picked = await self._connection.run(
                CLAIM,
                [
                    names.backlog(queue), names.facts(queue), names.leases(queue),
                    names.holders(queue),
                ],
                [worker, VERSION, self._connection.settings.lease_s, LOOK_AHEAD],
            )  # fmt: skip
            if not picked:
                return None
            self._connection.set_clock(float(picked[2]))
            job_id, attempt, model = picked[0].decode(), int(picked[1]), picked[3].decode() or None
            started = Started(
                attempt=attempt, worker=worker, backend=names.backend_of(queue), model=model
            )
            claim = await self._start(job_id, started)
            if claim is not None:
                return claim
            await self._leases.release(queue, job_id, Holder(attempt, worker))
        return None

    async def _start(self, job_id: str, started: Started) -> Claim | None:
        flat = await self._connection.run(
            START,
            [names.record(job_id), names.log(job_id)],
            [
                names.channel(job_id),
                started.attempt,
                started.worker,
                started.model_dump_json()[1:],
            ],
        )
        if not flat:
            return None
        fields = pairs(flat)
        return Claim(from_hash(fields), fields[b"request"])

    async def give_ticket_back(self, queue: str) -> None:
        """Send a ticket again that was taken without a free slot to claim with."""
        await self._connection.command("LPUSH", queue, ticket(queue))

    async def tickets(self, queue: str) -> int:
        """How many tickets wait to be taken; raises RelayUnavailable."""
        return int(await self._connection.command("LLEN", queue))

    async def cancel(self, job_id: str, *, by: str, reason: str = "") -> JobRecord:
        """End a job in whatever phase it is; final at once, and the same answer again.

        Returns the terminal record; raises JobNotFound, RelayUnavailable.
        """
        record = await self._records.get(job_id)
        cancelled = Cancelled(by=by, reason=reason)
        await self._connection.run(
            END,
            [names.record(job_id), names.log(job_id), names.LIVE, names.DEADLINES],
            [
                job_id, names.channel(job_id), "cancelled",
                int(self._connection.settings.log_ttl_s), cancelled.model_dump_json()[1:],
            ],
        )  # fmt: skip
        worker = await self._leases.release(record.queue, job_id, None)
        if worker:
            await self._connection.command("PUBLISH", names.worker_channel(worker), job_id)
        return await self._records.get(job_id)

    async def place(self, record: JobRecord) -> Place:
        """Where a job stands now; raises RelayUnavailable."""
        if record.status != "queued":
            return Place()
        rank, counts = await self._connection.pipeline(
            [("ZRANK", names.backlog(record.queue), record.id), self._drained(record.queue)]
        )
        return _place(None if rank is None else rank + 1, self._rate(counts))

    async def _depth_and_rate(self, queue: str) -> tuple[int, float | None]:
        depth, counts = await self._connection.pipeline(
            [("ZCARD", names.backlog(queue)), self._drained(queue)]
        )
        return depth, self._rate(counts)

    def _drained(self, queue: str) -> list[str]:
        this_minute = math.floor(self._connection.now() / 60)
        return ["MGET", *(names.drained(queue, this_minute - back) for back in range(_MINUTES))]

    def _rate(self, counts: Sequence[bytes | None]) -> float | None:
        """Jobs that end a second, over the minutes in which any did; None if none did."""
        now = self._connection.now()
        ended = [(back, int(count)) for back, count in enumerate(counts) if count]
        if not ended:
            return None
        elapsed_s = max(10.0, now % 60 + 60 * max(back for back, _ in ended))
        return sum(count for _, count in ended) / elapsed_s

    async def views(self, workers: Sequence[WorkerReport]) -> list[QueueView]:
        """Every queue that a live worker serves or that held a job lately.

        Raises RelayUnavailable.
        """
        members = await self._connection.command("ZRANGE", names.QUEUES, 0, -1)
        served = {queue.name for worker in workers for queue in worker.queues}
        queues = sorted(served | {member.decode() for member in members})
        answers = await self._connection.pipeline(
            [words for queue in queues for words in self._questions(queue)]
        )
        rows = list(zip(*(iter(answers),) * 4, strict=True))
        oldest = await self._connection.pipeline(
            [("HGET", names.record(head[0].decode() if head else ""), "created_at")
             for _, _, head, _ in rows]
        )  # fmt: skip
        return [
            self._view(queue, row, created_at, workers)
            for queue, row, created_at in zip(queues, rows, oldest, strict=True)
        ]

    def _questions(self, queue: str) -> list[Sequence[Argument]]:
        return [
            ("ZCARD", names.backlog(queue)),
            ("ZCARD", names.leases(queue)),
            ("ZRANGE", names.backlog(queue), 0, 0),
            self._drained(queue),
        ]

    def _view(
        self, queue: str, row: Sequence[Any], oldest: bytes | None, workers: Sequence[WorkerReport]
    ) -> QueueView:
        depth, held, _, counts = row
        reports = [q for worker in workers for q in worker.queues if q.name == queue]
        return QueueView(
            name=queue,
            depth=depth,
            oldest_s=round(self._connection.now() - float(oldest), 1) if oldest else None,
            in_flight=held,
            slots=sum(report.slots for report in reports),
            workers=len(reports),
            drain_per_s=self._rate(counts),
        )


def _begin(record: JobRecord, request: AnyRequest, depth: int) -> Call:
    flat = [x for field in to_hash(record, encode(request)).items() for x in field]
    deadline_s = request.effective_deadline_s
    queued = Queued(queue=record.queue, position=depth + 1, reason=_ahead(depth))
    keys: Sequence[str] = [
        names.record(record.id), names.log(record.id), names.LIVE, names.DEADLINES, names.RECENT,
    ]  # fmt: skip
    if isinstance(request, PullRequest):
        keys = [*keys, names.single(record.queue, request.model)]
    args: list[Argument] = [
        record.id, names.channel(record.id), queued.model_dump_json()[1:],
        "" if deadline_s is None else deadline_s, *flat,
    ]  # fmt: skip
    return BEGIN, keys, args


def _enqueue(record: JobRecord, limit: int) -> Call:
    queue = record.queue
    keys = [names.backlog(queue), names.facts(queue), names.QUEUES, queue]
    args: list[Argument] = [
        record.id, facts_of(record), SLACK_S[record.priority], limit, ticket(queue), queue,
    ]  # fmt: skip
    return ENQUEUE, keys, args


def _place(position: int | None, rate: float | None) -> Place:
    if position is None:
        return Place()
    return Place(
        position=position,
        eta_s=round(position / rate, 1) if rate else None,
        reason=_ahead(position - 1),
    )


def _full(queue: str, depth: int, rate: float | None) -> QueueFull:
    return QueueFull(
        f"queue {queue} holds {depth} jobs, which is as many as it may "
        f"(FLEET_QUEUE_LIMIT): try again later, or start more workers",
        retry_after_s=max(1.0, min(120.0, 1 / rate)) if rate else 30.0,
    )


def _new_record(request: AnyRequest, queue: str, tenant: str, job_id: str) -> JobRecord:
    return JobRecord(
        id=job_id,
        v=VERSION,
        kind=request.kind,
        status="queued",
        queue=queue,
        backend=names.backend_of(queue),
        model=getattr(request, "model", None),
        tenant=tenant,
        priority=request.priority,
        attempt=1,
        max_attempts=request.max_attempts,
        created_at=0.0,
        metadata=request.metadata,
    )


def _ahead(count: int) -> str:
    if count == 0:
        return "next in line"
    return "1 job before yours" if count == 1 else f"{count} jobs before yours"
