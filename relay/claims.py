"""What a worker asks of the queues: the next job, its attempt, and tickets for its idle slots.

Two calls make an attempt of a waiting job: `claim` leases it, `start` writes `started` with the
address that was chosen in between. A job that a shim has leased to the worker needs only the second
(docs/adr/0038).
"""

from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import Final, NamedTuple

from contract import redis_keys
from contract.errors import JobDamaged, NewerVersion
from contract.events import Started
from contract.jobs import JobRecord
from contract.model_names import variant
from relay.connection import Connection
from relay.leases import Holder, Leases
from relay.order import LOOK_AHEAD, ClaimFilter
from relay.position import Positions
from relay.records import from_hash
from relay.room.held_tenants import HeldTenants
from relay.scripts import jobs, queues
from relay.scripts.queues import NO_JOB, EndedJob, IdleCount, Patience, Picked
from relay.scripts.turn_scripts import Remembered, TurnPlace, start_turn
from relay.tickets import ticket

_LEFT_FOR_S: Final = 5.0
_LEFT_AT_MOST: Final = 20
"""How long, and how often without using up attempts, a job that this version cannot read is left to
a worker that can."""
_ANY: Final = ClaimFilter()


class Claim(NamedTuple):
    """A lease on the job that should run next; `Claims.start` makes an attempt of it."""

    queue: str
    worker: str
    job_id: str
    attempt: int
    """The attempt that the lease permits, counted from 1."""
    model: str | None
    loaded: str | None
    """Its model as it is to be loaded: contract/model_names.py."""
    conversation: str | None = None
    """The id of the conversation that it is a message of."""
    home: str | None = None
    """The id of the address where that conversation ran last."""


class StartedJob(NamedTuple):
    """A job whose attempt a worker has started."""

    record: JobRecord
    request: bytes
    """The request as it was written: JSON, not validated yet."""
    length: int
    """Entries in its log; `started` is the last."""

    @property
    def attempt(self) -> int:
        """The number of the attempt, counted from 1."""
        return self.record.attempt

    @property
    def nonce(self) -> str:
        """What tells the attempt from another one with its number."""
        return self.record.nonce or ""


class Claims:
    """Claims jobs of the queues, starts them, and says which slots are idle."""

    def __init__(self, connection: Connection) -> None:
        """Claim through this connection."""
        self._connection = connection
        self._leases = Leases(connection)
        self._positions = Positions(connection)
        self._held = HeldTenants(connection)

    async def claim(
        self,
        queue: str,
        worker: str,
        claim_filter: ClaimFilter = _ANY,
        *,
        idle_slots: int = 0,
        ended: EndedJob = NO_JOB,
        again: Callable[[float], None] = lambda _s: None,
    ) -> Claim | None:
        """Lease the job that should run next to `worker`; None if no job waits that fits.

        If none waits at all, so many `idle_slots` of the worker are recorded for up to a minute:
        new jobs wake one by the worker's wake channel, or, if the filter takes any job, are leased
        to the worker at once (`assigned`). `ended` is released first; jobs are held (relay/room).
        `again` is called with the seconds after which a message of a conversation that is left to
        another address, or to an earlier message, may be claimed.
        Raises RelayUnavailable; a job that was leased nevertheless returns when its lease expires.
        """
        settings = self._connection.settings
        member = self.idle_member(worker, takes_any=claim_filter.takes_any)
        picked = await self._connection.call(
            queues.claim(
                queue,
                worker,
                claim_filter._replace(held=self._held.at_claim(queue)),
                lease_s=settings.lease_s,
                patience=Patience(settings.affinity_patience_s, settings.conversation_patience_s),
                look_ahead=LOOK_AHEAD,
                drained=self._positions.drained(queue)[0],
                idle_slots=IdleCount(member, idle_slots),
                ended=ended,
            )
        )
        if not isinstance(picked, Picked):
            if picked is not None:
                again(picked.again_s)
            return None
        self._connection.set_clock(picked.now)
        return _claim(queue, worker, picked)

    def idle_member(self, worker: str, *, takes_any: bool) -> str:
        """The member of a worker in the set of idle slots."""
        return f"+{self._connection.settings.lease_s:g} {worker}" if takes_any else worker

    async def start(
        self, claim: Claim, endpoint: str | None = None, home: str | None = None
    ) -> StartedJob | None:
        """Write `started` into the log of a claimed job, with the label of the job's address.

        `home` is the id of that address, where later messages of the conversation should run.

        Returns None, and releases the lease, if the job has ended meanwhile, is damaged, or only a
        newer version can read it: claim the next one then.

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
        job = await self._start(claim, started, home)
        if job is None:
            holder = Holder(claim.attempt, claim.worker)
            await self._leases.release(claim.queue, claim.job_id, holder)
            # It may have been claimed before its record was written (Connection.calls).
            await self._leases.put_back(claim.job_id)
        return job

    async def _start(self, claim: Claim, started: Started, home: str | None) -> StartedJob | None:
        if claim.conversation is None or home is None:
            call = jobs.start(claim.job_id, started)
        else:
            settings = self._connection.settings
            kept = Remembered(
                settings.conversation_ttl_s, settings.conversations_kept, settings.tenant_share
            )
            place = TurnPlace(claim.conversation, home)
            call = start_turn(claim.job_id, claim.queue, started, place, kept)
        answer = await self._connection.call_or_none(call, f"job {claim.job_id}")
        if answer is None:
            return None
        length, fields = answer
        try:
            record = from_hash(fields)
        except JobDamaged:
            await self._leases.set_aside(claim.queue, claim.job_id)
            return None
        except NewerVersion as error:
            self._connection.pass_over(redis_keys.record(claim.job_id), error)
            queue = fields.get(b"queue", claim.queue.encode()).decode(errors="replace")
            await self._leave_to_a_newer_one(queue, claim.job_id, started, error)
            return None
        if record.id != claim.job_id:
            await self._leases.set_aside(claim.queue, claim.job_id)
            return None
        return StartedJob(record, fields.get(b"request", b""), length)

    async def _leave_to_a_newer_one(
        self, queue: str, job_id: str, started: Started, error: NewerVersion
    ) -> None:
        await self._leases.hand_over(
            queue, job_id, started.attempt, reason=error.message, error=error,
            counts=started.attempt > _LEFT_AT_MOST, delay_s=_LEFT_FOR_S,
            nonce=started.nonce or "",
        )  # fmt: skip

    async def give_ticket_back(self, queue: str) -> None:
        """Push a ticket again that was consumed while no slot was free; raises RelayUnavailable."""
        await self._connection.command("LPUSH", queue, ticket(queue))

    async def set_idle_slots(self, queue: str, member: str, count: int) -> None:
        """Note how many slots of a worker new jobs of a queue may wake; raises RelayUnavailable."""
        key = redis_keys.idle(queue)
        if count:
            await self._connection.command("ZADD", key, "XX", count, member)
        else:
            await self._connection.command("ZREM", key, member)

    async def have_tickets(self, names: Sequence[str]) -> bool:
        """Whether tickets wait in any of these queues; raises RelayUnavailable."""
        return bool(names and await self._connection.command("EXISTS", *names))

    async def wake(self, queue: str) -> None:
        """Move delayed jobs that are due to the backlog, with tickets; raises RelayUnavailable."""
        await self._leases.wake(queue)


def assigned(message: bytes, worker: str) -> Claim | str:
    """Read a message of the worker's wake channel.

    Returns the claim of a job that was leased to the worker, or the queue for which one of its
    idle slots is woken.
    """
    queue, *assignment = message.decode(errors="replace").split(" ", 5)
    if not assignment:
        return queue
    at, job_id, attempt, length, last = assignment
    context_length = None if length == "-" else int(length)
    model, _, turn = last.partition("\n")
    conversation, _, home = turn.partition(" ")
    picked = Picked(
        job_id, int(attempt), float(at), model or None, context_length,
        conversation or None, home or None,
    )  # fmt: skip
    return _claim(queue, worker, picked)


def _claim(queue: str, worker: str, picked: Picked) -> Claim:
    return Claim(
        queue,
        worker,
        picked.job_id,
        picked.attempt,
        picked.model,
        picked.model and variant(picked.model, picked.context_length),
        picked.conversation,
        picked.home,
    )
