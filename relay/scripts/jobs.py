"""Scripts of jobs: their records and logs, from the first event to the last (relay/lua/jobs)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

from pydantic import TypeAdapter

from contract import redis_keys
from contract.events import Cancelled, Failed, Queued, Started
from contract.jobs import JobRecord
from contract.requests import Route
from contract.result import Status
from relay.connection import Argument, Hash, ScriptCall, pairs
from relay.scripts.loader import load
from relay.settings import RelaySettings

NOTED_S: Final = 1e9
"""A child whose parent has ended is to be looked at first: at the time of the end less so much."""


class Begun(NamedTuple):
    """A job that exists: its id, and when it was created (unix seconds).

    `created_at` is None if it is another job, of which one is enough.
    """

    job_id: str
    created_at: float | None


class HeldKey(NamedTuple):
    """The job of an Idempotency-Key."""

    job_id: str
    queue: str
    state: int
    """1: it is new; 0: it is that of the same request; -1: of another one."""
    created_at: float | None = None
    """Of a new job, unix seconds."""


class FirstFollower(NamedTuple):
    """The first follower of a job that lives for its followers."""

    process: str
    """The process that follows it; `expected` if none does yet; empty if none is needed."""
    seconds: float
    """Its lease, or within which one must come."""


NO_FOLLOWER: Final = FirstFollower("", 0.0)


class NewJob(NamedTuple):
    """What the scripts write that begin a job."""

    record: JobRecord
    fields: Mapping[str, Argument]
    """Those of the record's hash."""
    queued: Queued
    """Its first event."""
    deadline_s: float | None
    """Counts from now."""
    follower: FirstFollower

    @property
    def keys(self) -> list[str]:
        """The first keys of these scripts: relay/lua/shared/begin.lua."""
        id = self.record.id
        return [
            redis_keys.record(id),
            redis_keys.log(id),
            redis_keys.LIVE,
            redis_keys.DEADLINES,
            redis_keys.RECENT,
            redis_keys.recent(self.record.tenant),
            redis_keys.audience(id),
            redis_keys.FOLLOWED,
        ]

    @property
    def args(self) -> list[Argument]:
        """Their last arguments."""
        return [
            self.record.id, redis_keys.channel(self.record.id), event_fields(self.queued),
            "" if self.deadline_s is None else self.deadline_s, *self.follower,
            *(each for field in self.fields.items() for each in field),
        ]  # fmt: skip


def begin(new: NewJob) -> ScriptCall[Begun]:
    """Write a job's record and its first event, unless it exists."""
    return ScriptCall(load("jobs/begin"), new.keys, new.args, _begun)


def begin_single(new: NewJob, single: str, bound_key: str = "") -> ScriptCall[Begun]:
    """Do the same, unless `single` (`redis_keys.single`) names a job that has not ended.

    `bound_key` (its name in Redis), an Idempotency-Key of the new job, is bound to that then.
    """
    args = [redis_keys.record("*"), *new.args]
    keys = [*new.keys, single, *([bound_key] if bound_key else [])]
    return ScriptCall(load("jobs/begin_single"), keys, args, _begun)


def begin_once(
    new: NewJob, key: str, fingerprint: str, *, ttl_s: int, renew_s: float
) -> ScriptCall[HeldKey]:
    """Do the same, unless an Idempotency-Key (its name in Redis) has a job; else bind it."""
    args: list[Argument] = [fingerprint, new.record.queue, ttl_s, renew_s, redis_keys.record("*")]
    return ScriptCall(
        load("jobs/begin_once"), [*new.keys, key, redis_keys.IDEMPOTENCY], [*args, *new.args],
        _held_key,
    )  # fmt: skip


def start(job_id: str, started: Started) -> ScriptCall[tuple[int, Hash] | None]:
    """Write `started` for a claimed job; its attempt and nonce are the event's.

    Returns how many events the log has, and the record; None if the claim is out of date.
    """
    keys = [redis_keys.record(job_id), redis_keys.log(job_id)]
    args: list[Argument] = [
        redis_keys.channel(job_id), started.attempt, started.worker, started.nonce or "",
        event_fields(started),
    ]  # fmt: skip
    return ScriptCall(load("jobs/start"), keys, args, _started)


class NewFrames(NamedTuple):
    """Frames to add to one job's log; `append` sends the fields in this order."""

    id: str
    channel: str
    nonce: str
    """Of the attempt; the record must have it."""
    length: int
    """How many entries the log must have before."""
    last: str
    """The id of the last frame: the entry's."""
    data: bytes
    """`contract.events.to_entry` of the frames."""
    status: str
    """The job's new status if the last frame is a terminal event, else empty."""
    usage: bytes = b""
    """What the job has used, with that event: `relay.usage.ended_job.EndedJobUsage` as JSON."""
    notice: bytes = b""
    """What webhooks are told, with that event: `relay.webhooks.notices.Notice` as JSON."""
    retention_s: str = ""
    """How long its texts are kept after that event, 0: not at all; empty: as others."""


def keys_of(job_id: str) -> tuple[str, str, str]:
    """The keys that `append` needs of a job: make them once a job, not once a call."""
    return redis_keys.log(job_id), redis_keys.record(job_id), redis_keys.audience(job_id)


WRITTEN, REFUSED, TORN = 1, 0, 2
"""Results of `append` for one job: its frames are in the log; another attempt has the job; the log
is shorter than what this attempt has written, because Redis restarted with older data."""


def append(
    jobs: Sequence[tuple[tuple[str, str, str], NewFrames]], ttl_s: int, grace_s: int
) -> ScriptCall[list[int]]:
    """Add frames to the logs of any jobs and publish them; what is there already counts.

    Each job, once, with its `keys_of`. Record and log of a job whose terminal event is written
    live for `ttl_s` seconds more, or as its `retention_s` says; a log that is not to be kept can
    be read for `grace_s`. Returns WRITTEN, REFUSED or TORN for each job.
    """
    keys: list[str] = [
        redis_keys.LIVE, redis_keys.DEADLINES, redis_keys.FOLLOWED, redis_keys.UNSETTLED,
        redis_keys.PARENTS, redis_keys.OUTBOX,
    ]  # fmt: skip
    args: list[Argument] = [ttl_s, grace_s]
    for its_keys, frames in jobs:
        keys += its_keys
        args += frames
    return ScriptCall(load("jobs/append"), keys, args, list)


State = Literal["queued", "ended", "moved", "stale", "exhausted", "damaged"]
_state: TypeAdapter[State] = TypeAdapter(State)


def hand_over(
    job_id: str, attempt: int, queued: Queued, *, counts: bool, is_lost: bool, nonce: str = ""
) -> ScriptCall[tuple[State, int]]:
    """Take a job from the holder of `attempt`: the attempt rises, and `queued` is logged.

    Its own worker names the `nonce` of the attempt, because Redis, restored from older data, may
    give another one with this number. `counts`: this uses up one of the job's tries. `is_lost`: its
    worker died. Returns the job's state and attempt: `queued`; `ended`; `moved` (it is not in the
    queue of `queued`); `stale` (another attempt had it); `exhausted` (it has no try left) and
    `damaged` (its record has no such number where one must be): nothing was written.
    """
    keys = [redis_keys.record(job_id), redis_keys.log(job_id)]
    args: list[Argument] = [
        redis_keys.channel(job_id), attempt, int(counts), event_fields(queued), int(is_lost),
        queued.queue, nonce,
    ]  # fmt: skip
    return ScriptCall(load("jobs/hand_over"), keys, args, _handed_over)


def move(record: JobRecord, facts: str, queued: Queued) -> ScriptCall[tuple[State, int]]:
    """Make a job one of another target of its alias, as `record` says; its attempt is the new one.

    Takes it from the holder of the attempt before, whose nonce `record` still has, or from the
    queue, and logs `queued`. Returns the job's state and attempt: `queued`; `ended`; `stale`
    (another attempt has it). `facts` are for its new queue.
    """
    keys = [redis_keys.record(record.id), redis_keys.log(record.id)]
    args: list[Argument] = [
        redis_keys.channel(record.id), record.attempt - 1, record.nonce or "", record.target,
        event_fields(queued),
        "queue", record.queue, "backend", record.backend, "model", record.model or "",
        "price", record.price or "", "facts", facts,
    ]  # fmt: skip
    return ScriptCall(load("jobs/move"), keys, args, _handed_over)


def may_move(job_id: str, wait_s: float) -> ScriptCall[bool]:
    """Have the maintainer look in `wait_s` seconds whether a job waits, and move it then."""
    return ScriptCall(load("jobs/may_move"), [redis_keys.MOVABLE], [job_id, wait_s], bool)


def moves_later(record: JobRecord, route: Route | None) -> list[ScriptCall[bool]]:
    """What makes a job move on along its route, if it waits too long; empty if it cannot."""
    if route is None or record.target + 1 >= len(route.targets):
        return []
    return [may_move(record.id, route.targets[record.target].wait_s)]


class Ended(NamedTuple):
    """A job that has just ended: its class, and whose it was."""

    priority: str
    tenant: str


def end(
    job_id: str,
    terminal: Failed | Cancelled,
    settings: RelaySettings,
    *,
    dead: bool = False,
    nonce: str = "",
) -> ScriptCall[Ended | None]:
    """Take a job from its holder, if any, and log its terminal event; None if it had ended.

    Its record and log live on as the settings and its retention say; `dead` lists it as a dead
    letter. With the `nonce` of an attempt it is taken from that one alone; None: another has it.
    """
    ttl_s = int(settings.dead_ttl_s if dead else settings.log_ttl_s)
    keys = [
        redis_keys.record(job_id),
        redis_keys.log(job_id),
        redis_keys.LIVE,
        redis_keys.DEADLINES,
        redis_keys.DEAD,
        redis_keys.audience(job_id),
        redis_keys.FOLLOWED,
        redis_keys.UNSETTLED,
        redis_keys.PARENTS,
        redis_keys.OUTBOX,
    ]
    args: list[Argument] = [
        job_id, redis_keys.channel(job_id), terminal.type, ttl_s, event_fields(terminal), int(dead),
        int(settings.retention_grace_s), nonce,
    ]  # fmt: skip
    return ScriptCall(load("jobs/end"), keys, args, _ended)


def adopt(parent: str, child: str, ttl_s: int) -> ScriptCall[Status | None]:
    """Register a job that waits for the end of another one, for `ttl_s` seconds at most.

    Returns the status of the parent, None if it does not exist; an ended one has no more children.
    """
    keys = [redis_keys.record(parent), redis_keys.children(parent)]
    return ScriptCall(load("jobs/adopt"), keys, [child, ttl_s], _status)


def look_at(parent: str, children: Sequence[str], at: float) -> ScriptCall[bool]:
    """Have jobs that still wait looked at then (unix seconds), no more at the parent's end."""
    keys = [redis_keys.BLOCKED, redis_keys.children(parent)]
    args: list[Argument] = [f"{at:.6f}", *children]
    return ScriptCall(load("jobs/look_at"), keys, args, bool)


def look_again(children: Sequence[str], at: float) -> ScriptCall[bool]:
    """Have jobs that still wait looked at then (unix seconds)."""
    args: list[Argument] = [f"{at:.3f}", *children]
    return ScriptCall(load("jobs/look_at"), [redis_keys.BLOCKED], args, bool)


def note_done(job_id: str, parents: Iterable[str]) -> ScriptCall[bool]:
    """Note in a waiting job's record which of the jobs that it waits for are done."""
    args: list[Argument] = [" ".join(sorted(parents))]
    return ScriptCall(load("jobs/note_done"), [redis_keys.record(job_id)], args, bool)


def unblock(job_id: str, deadline_s: float | None, not_before: float | None) -> ScriptCall[float]:
    """Note that a job waits for no other job any more; its deadline counts from its start.

    Returns from when on it may start (unix seconds).
    """
    keys = [redis_keys.record(job_id), redis_keys.DEADLINES]
    args: list[Argument] = [
        job_id, "" if deadline_s is None else deadline_s, "" if not_before is None else not_before,
    ]  # fmt: skip
    return ScriptCall(load("jobs/unblock"), keys, args, float)


def statuses(job_ids: Sequence[str]) -> ScriptCall[list[Status | None]]:
    """The status of each job; None: there is no such job.

    One script for many jobs costs Redis a hundredth of as many commands.
    """
    keys = [redis_keys.record(job_id) for job_id in job_ids]
    return ScriptCall(load("jobs/statuses"), keys, [], _read_statuses)


def forget(job_ids: Sequence[str], tenant: str) -> ScriptCall[int]:
    """Delete records and logs of a tenant's jobs, of those that have ended. Returns how many."""
    keys = [redis_keys.RECENT, redis_keys.recent(tenant), redis_keys.DEAD]
    for job_id in job_ids:
        keys += [redis_keys.record(job_id), redis_keys.log(job_id)]
    return ScriptCall(load("jobs/forget"), keys, list(job_ids), int)


def attend(job_id: str, process: str, lease_s: float) -> ScriptCall[bool]:
    """Add a process to a job's followers for `lease_s` seconds, which stops the job's clock.

    Returns False for a job that has ended, or whose policy is `continue`.
    """
    keys = [redis_keys.record(job_id), redis_keys.audience(job_id), redis_keys.FOLLOWED]
    return ScriptCall(load("followers/attend"), keys, [job_id, process, lease_s], bool)


def event_fields(event: Queued | Started | Failed | Cancelled) -> str:
    """The event's JSON without its opening brace, before which a script puts id and time."""
    return event.model_dump_json()[1:]


def _begun(reply: Any) -> Begun:
    job_id, *created_at = reply
    return Begun(job_id.decode(errors="replace"), float(created_at[0]) if created_at else None)


def _held_key(reply: Any) -> HeldKey:
    job_id, queue, state, *created_at = reply
    at = float(created_at[0]) if created_at else None
    return HeldKey(job_id.decode(errors="replace"), queue.decode(errors="replace"), int(state), at)


def _started(reply: Any) -> tuple[int, Hash] | None:
    return (int(reply[0]), pairs(reply[1])) if reply else None


def _handed_over(reply: Any) -> tuple[State, int]:
    return _state.validate_python(reply[0].decode(errors="replace")), int(reply[1])


def _ended(reply: Any) -> Ended | None:
    return Ended(*(text.decode(errors="replace") for text in reply)) if reply else None


_STATUSES: Final = frozenset(get_args(Status))
_statuses: TypeAdapter[list[Status | None]] = TypeAdapter(list[Status | None])


def _status(reply: Any) -> Status | None:
    return _read_statuses([reply])[0]


def _read_statuses(reply: Any) -> list[Status | None]:
    texts = (text.decode(errors="replace") for text in reply)
    return _statuses.validate_python([text if text in _STATUSES else None for text in texts])
