"""Scripts of a queue: its order and its leases (relay/lua/queues; relay/order.py has the rules).

The name of a queue is also the name of the list that holds its tickets.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from contract import redis_keys
from contract.wire import VERSION, finite
from relay.connection import Argument, ScriptCall
from relay.order import Arrival, ClaimFilter
from relay.scripts.loader import load

HELD_S: Final = 10
"""Seconds for which a claim delays a job of a tenant that is held; then a claim looks again."""
IDLE_S: Final = 60
"""Seconds after which the recorded idle slots of a worker expire."""


class Patience(NamedTuple):
    """For how long, in seconds, jobs are passed over for a preference."""

    model_s: float
    """Those of a model that is not in memory."""
    conversation_s: float
    """Messages whose conversation is at another address."""


class IdleCount(NamedTuple):
    """Idle slots of a worker, as `claim` records them: new jobs wake them, or are assigned."""

    member: str
    """The worker's name; for one that takes any job, `+<lease in seconds> ` before it."""
    slots: int


NO_SLOTS: Final = IdleCount("", 0)


class EndedJob(NamedTuple):
    """A job that has ended, for `claim` to release."""

    job_id: str
    holder: str
    """`<attempt> <worker>`."""


NO_JOB: Final = EndedJob("", "")


class Place(NamedTuple):
    """Where a job is or would be in the backlog."""

    position: int
    """1: next; 0: held already; -1 to -6: refused, by the first to sixth field of `Bounds`;
    -7 to -9: by the tenant's share of jobs, of tokens, of bytes."""
    held: int = 0
    """If refused: how many jobs, tokens or bytes wait."""
    limit: int = 0
    """If refused: how many may wait."""
    why: str = ""
    """What is in `redis_keys.paused` of a paused queue."""


class QueueCounts(NamedTuple):
    """What waits, runs and has ended in a queue."""

    queue: str
    depth: int
    """Waiting jobs."""
    urgent: int
    """Those of them that are not of class `batch`."""
    interactive: int | None
    """Those of class `interactive`; None if `tenants` is None."""
    delayed: int
    """Jobs between two attempts, and scheduled ones that are due soon."""
    leased: int
    oldest_at: float | None
    """When the job that has waited longest was enqueued, in unix seconds."""
    tokens: int
    """Estimated tokens of the waiting jobs; 0 if `tenants` is None."""
    tenants: dict[str, int] | None
    """Waiting jobs by tenant; None if more tenants wait than are read."""
    ended: list[bytes | None]
    """Jobs that ended, by minute, this minute first."""
    why: str
    """What is in `redis_keys.paused`; empty: the queue is not paused."""
    schedule: str
    """What is in `redis_keys.schedule`; empty: it has none."""
    scheduled: int
    """Jobs that are due later, or wait for other jobs."""


class Woken(NamedTuple):
    """A queue after `wake`."""

    missing: int
    """How many tickets are still missing; negative: there are more than waiting jobs."""
    why: str
    """What is in `redis_keys.paused`; empty: the queue is not paused."""
    schedule: str
    """What is in `redis_keys.schedule`; empty: it has none. `WRONGTYPE ...`: no string."""


class Picked(NamedTuple):
    """A job that was leased."""

    job_id: str
    attempt: int
    now: float
    """Redis's time, unix seconds."""
    model: str | None
    context_length: int | None
    conversation: str | None = None
    """The conversation that it is a message of."""
    home: str | None = None
    """The address where that conversation ran last."""


class NothingYet(NamedTuple):
    """No job may be claimed here now; a message of a conversation may be, in some seconds."""

    again_s: float


def may_write() -> ScriptCall[bool]:
    """Whether Redis takes new jobs: else it refuses the script, which writes nothing."""
    return ScriptCall(load("probe/may_write"), [], [], bool)


def expect(arrival: Arrival) -> ScriptCall[Place]:
    """Where `enqueue` would put a job now; writes nothing."""
    return ScriptCall(load("queues/expect"), queue_keys(arrival.queue), _arriving(arrival), _place)


def enqueue(arrival: Arrival, ticket: str) -> ScriptCall[Place]:
    """Put a job into the backlog, unless it is there, and wake a worker for it.

    A worker with an idle slot gets a message on its wake channel; one that takes any job gets
    the job itself, leased, if no other waits. If there is none, and fewer tickets than waiting
    jobs, the ticket is pushed.
    """
    turn, queue = arrival.turn, arrival.queue
    keys = [*queue_keys(queue), redis_keys.homes(queue), redis_keys.addresses(queue)]
    about: list[Argument] = ["", 0, ""]
    if turn is not None:
        keys += [redis_keys.turns(turn.conversation), redis_keys.behind(queue)]
        about = [turn.conversation, int(turn.policy == "queue"), redis_keys.record("*")]
    args = [*_arriving(arrival), ticket, redis_keys.wake_channel("*"), arrival.assignment, *about]
    return ScriptCall(load("queues/enqueue"), keys, args, _place)


def claim(
    queue: str,
    worker: str,
    claim_filter: ClaimFilter,
    *,
    lease_s: float,
    patience: Patience,
    look_ahead: int,
    drained: str,
    idle_slots: IdleCount = NO_SLOTS,
    ended: EndedJob = NO_JOB,
) -> ScriptCall[Picked | NothingYet | None]:
    """Lease the job that should run next to a worker for `lease_s` seconds; None if none fits.

    Up to `look_ahead` jobs that do not fit are skipped in each list. Within the `patience` jobs
    of a model in memory may overtake one that is not, and messages are left to other addresses. If
    no job waits at all, the `idle_slots` of the worker are recorded, so that the next enqueue wakes
    it. Before that, the `ended` job is released, as `release` does. Jobs of tenants that the
    filter holds are delayed for `HELD_S`, up to 100 in a call.
    """
    args: list[Argument] = [
        *queue_head(queue), worker, VERSION, lease_s, look_ahead, int(claim_filter.batch),
        "drains" if claim_filter.drains else int(claim_filter.cold), patience.model_s,
        _filter_json(claim_filter), idle_slots.slots, IDLE_S, idle_slots.member, *ended,
        patience.conversation_s, redis_keys.turns("*"), redis_keys.record("*"),
        redis_keys.wake_channel("*"),
    ]  # fmt: skip
    homes, addresses = redis_keys.homes(queue), redis_keys.addresses(queue)
    keys = [*queue_keys(queue), drained, homes, addresses, redis_keys.behind(queue)]
    return ScriptCall(load("queues/claim"), keys, args, _picked)


def _filter_json(claim_filter: ClaimFilter) -> str:
    wanted = {
        "choosy": claim_filter.warm is not None,
        "warm": sorted(claim_filter.warm or ()),
        "resting": sorted(claim_filter.resting),
        "failing": sorted(claim_filter.failing),
        "held": sorted(claim_filter.held),
        "held_s": HELD_S,
        "contexts": claim_filter.only is not None,
        "one_runner": claim_filter.one_runner,
        "only": {model: sorted(variants) for model, variants in (claim_filter.only or {}).items()},
    }
    if claim_filter.here is not None:
        wanted["here"] = sorted(claim_filter.here)
    return json.dumps(wanted)


def release(queue: str, job_id: str, holder: str, drained: str) -> ScriptCall[str | None]:
    """Remove a job that has ended, if `holder` (`<attempt> <worker>`; empty: any) has it.

    Returns its holder; if it had one, the job is counted in `drained` (a key).
    """
    args = [*queue_head(queue), job_id, holder]
    return ScriptCall(load("queues/release"), [*queue_keys(queue), drained], args, _text)


def supersede(queue: str, job_id: str, attempt: int, drained: str) -> ScriptCall[bool]:
    """Remove a job as attempts before this one have left it in a queue, waiting or held.

    Returns whether it is there as this attempt or a later one: then it stays. One that was held is
    counted in `drained` (a key).
    """
    args: list[Argument] = [*queue_head(queue), job_id, attempt]
    return ScriptCall(load("queues/supersede"), [*queue_keys(queue), drained], args, bool)


def withdraw(queue: str, job_id: str) -> ScriptCall[bool]:
    """Remove a waiting job, which moves to another queue; False: a worker holds it, or it is gone.

    Without its queue a job is lost until `give_back` or `enqueue`; the reconciler finds it.
    """
    return ScriptCall(
        load("queues/withdraw"), queue_keys(queue), [*queue_head(queue), job_id], bool
    )


def forget(queue: str, worker: str) -> ScriptCall[int]:
    """Forget a silent worker's idle slots and its addresses; returns how many addresses went."""
    keys = [redis_keys.idle(queue), redis_keys.addresses(queue)]
    return ScriptCall(load("queues/forget"), keys, [worker], int)


def give_back(
    queue: str, job_id: str, *, old: str, new: int, delay_s: float, ticket: str, facts: str
) -> ScriptCall[int]:
    """Return a job that attempt `old` or no attempt holds to its place, as attempt `new`.

    `old` is `<attempt>`, or `<attempt> <worker>` for that of no other worker.
    It waits again after `delay_s` seconds. `facts` (JSON) are for a job whose facts are lost.
    Returns 1 if it was moved, 0 if not; -1: the facts are needed, and damaged.
    """
    args: list[Argument] = [*queue_head(queue), job_id, old, new, delay_s, ticket, facts]
    return ScriptCall(load("queues/give_back"), queue_keys(queue), args, int)


def wake(queue: str, idle_s: int, tickets: Sequence[str] = ()) -> ScriptCall[Woken]:
    """Move delayed jobs that are due to the backlog, and push missing tickets.

    No ticket is missing while the queue is paused. Removes the name of a queue that was empty for
    `idle_s` seconds and has no schedule.
    """
    args: list[Argument] = [*queue_head(queue), idle_s, *tickets]
    keys = [*queue_keys(queue), redis_keys.schedule(queue)]
    return ScriptCall(load("queues/wake"), keys, args, _woken)


def schedule(
    queue: str, seen: str | bytes, new: str, why: str, until: float | None
) -> ScriptCall[bool]:
    """Replace a queue's schedule, if it is still `seen`; pause or resume the queue with it.

    `why` is what is put into `redis_keys.paused`, until a time (unix seconds; None: no end);
    empty: the queue is not paused. Returns False if the schedule is another one by now, or if
    `until` has passed.
    """
    until_ms: Argument = "" if until is None else int(until * 1000)
    args: list[Argument] = [*queue_head(queue), seen, new, why, until_ms]
    keys = [*queue_keys(queue), redis_keys.schedule(queue)]
    return ScriptCall(load("queues/schedule"), keys, args, bool)


def unblock(queue: str, job_id: str, due: float) -> ScriptCall[bool]:
    """Have a job that waits for other jobs join the backlog at a time (unix seconds)."""
    args: list[Argument] = [*queue_head(queue), job_id, f"{due:.6f}"]
    return ScriptCall(load("queues/unblock"), queue_keys(queue), args, bool)


def oldest(queue: str, limit: int = 100) -> ScriptCall[str | None]:
    """The id of the waiting job that was enqueued first; None if no job waits.

    Passes over up to `limit` entries that an older version left behind.
    """
    keys = [redis_keys.backlog(queue), redis_keys.arrivals(queue)]
    return ScriptCall(load("queues/oldest"), keys, [limit], _text)


def foreign(queue: str, limit: int) -> ScriptCall[int]:
    """How many of the `limit` messages that are taken next from a queue's list are no tickets."""
    args: list[Argument] = [redis_keys.TICKET_TASK, limit]
    return ScriptCall(load("queues/foreign"), [queue], args, int)


def renew(
    queue: str, worker: str, lease_s: float, jobs: Sequence[tuple[str, int]]
) -> ScriptCall[tuple[float, list[str]]]:
    """Renew a worker's leases on jobs (id and attempt) for `lease_s` seconds.

    Returns Redis's time (unix seconds), and the ids of jobs that the worker does not hold or that
    are cancelled.
    """
    records = [redis_keys.record(job_id) for job_id, _ in jobs]
    keys = [redis_keys.leases(queue), redis_keys.holders(queue), *records]
    args: list[Argument] = [worker, lease_s, *(str(each) for job in jobs for each in job)]
    return ScriptCall(load("queues/renew"), keys, args, _lost)


def expired(queue: str, limit: int) -> ScriptCall[list[tuple[str, str]]]:
    """Up to `limit` jobs whose lease has expired, with their holders (empty: not known)."""
    keys = [redis_keys.leases(queue), redis_keys.holders(queue)]
    return ScriptCall(load("queues/expired"), keys, [limit], _with_holders)


def survey(
    names: Sequence[str], minutes: Sequence[int], most_tenants: int, soon: float
) -> ScriptCall[list[QueueCounts]]:
    """Count the jobs of queues; `minutes` are unix seconds / 60. Writes nothing.

    Jobs that are due after `soon` (unix seconds) are scheduled, others delayed.

    The work grows with the number of queues, not with the number of jobs.
    """
    patterns = [
        *(make("*") for make in (redis_keys.backlog, redis_keys.urgent, redis_keys.delayed)),
        *(make("*") for make in (redis_keys.leases, redis_keys.load, redis_keys.arrivals)),
        *(make("*") for make in (redis_keys.paused, redis_keys.schedule)),
        redis_keys.drained("*", 0).removesuffix("0") + "*",
    ]
    args: list[Argument] = [*patterns, len(minutes), *minutes, most_tenants, f"{soon:.3f}", *names]

    def read(reply: Any) -> list[QueueCounts]:
        return [_counts(name, row) for name, row in zip(names, reply, strict=True)]

    return ScriptCall(load("queues/survey"), [], args, read)


def _counts(queue: str, row: Sequence[Any]) -> QueueCounts:
    depth, urgent, delayed, leased, oldest_at, load, (*ended, why, schedule), scheduled = row
    # What is no number was not written by the fleet, and counts as none.
    numbers = [int(text) if text.isdigit() else 0 for text in (load or ())[1::2]]
    fields = None if load is None else dict(zip(load[::2], numbers, strict=True))
    return QueueCounts(
        queue,
        depth,
        urgent,
        None if fields is None else fields.get(b"interactive", 0),
        delayed,
        leased,
        finite(oldest_at),
        0 if fields is None else fields.get(b"tokens", 0),
        None if fields is None else _by_tenant(fields),
        [count if count and count.isdigit() else None for count in ended],
        (why or b"").decode(errors="replace"),
        (schedule or b"").decode(errors="replace"),
        scheduled,
    )


def _by_tenant(fields: dict[bytes, int]) -> dict[str, int]:
    jobs = {name: count for name, count in fields.items() if name.startswith(b"jobs ")}
    return {
        name.removeprefix(b"jobs ").decode(errors="replace"): count for name, count in jobs.items()
    }


def queue_keys(queue: str) -> list[str]:
    """The first keys of every script of a queue: relay/lua/shared/queue.lua names them."""
    return [
        redis_keys.backlog(queue),
        redis_keys.urgent(queue),
        redis_keys.delayed(queue),
        redis_keys.facts(queue),
        redis_keys.leases(queue),
        redis_keys.holders(queue),
        redis_keys.clocks(queue),
        redis_keys.load(queue),
        redis_keys.QUEUES,
        queue,
        redis_keys.lines(queue),
        redis_keys.arrivals(queue),
        redis_keys.idle(queue),
        redis_keys.paused(queue),
        redis_keys.scheduled(queue),
    ]


def queue_head(queue: str) -> list[str]:
    """The first arguments of every script of a queue."""
    return [queue, redis_keys.line(queue, "*")]


def _arriving(arrival: Arrival) -> list[Argument]:
    limits = ["" if bound is None else bound for bound in arrival.bounds]
    return [
        *queue_head(arrival.queue), arrival.job_id, arrival.facts, f"{arrival.share_s:.6f}",
        arrival.flow, arrival.tenant, *limits,
    ]  # fmt: skip


def _place(reply: Any) -> Place:
    position, *counts = reply
    held, limit, *why = counts or (0, 0)
    return Place(position, held, limit, why[0].decode(errors="replace") if why else "")


def _woken(reply: Any) -> Woken:
    missing, why, schedule = reply
    return Woken(int(missing), why.decode(errors="replace"), schedule.decode(errors="replace"))


def _picked(reply: Any) -> Picked | NothingYet | None:
    if not reply:
        return None
    if not reply[0]:
        return NothingYet(float(reply[1]))
    job_id, attempt, now, model, context_length, *turn = reply
    conversation, home = turn or (b"", b"")
    return Picked(
        job_id.decode(errors="replace"),
        int(attempt),
        float(now),
        model.decode(errors="replace") or None,
        int(context_length) if context_length else None,
        conversation.decode(errors="replace") or None,
        home.decode(errors="replace") or None,
    )


def _text(reply: Any) -> str | None:
    return reply.decode(errors="replace") if reply else None


def _lost(reply: Any) -> tuple[float, list[str]]:
    now, *lost = reply
    return float(now), [job_id.decode(errors="replace") for job_id in lost]


def _with_holders(reply: Any) -> list[tuple[str, str]]:
    return [
        (job_id.decode(errors="replace"), holder.decode(errors="replace"))
        for job_id, holder in zip(reply[::2], reply[1::2], strict=True)
    ]
