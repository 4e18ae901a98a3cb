"""What a test knows of jobs that go through the relay, and a comparison with what Redis holds.

`RelayModel` is the part of the machine of tests/relay/test_relay_verbs.py that is no rule.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Final, TypeVar

from anyio.from_thread import start_blocking_portal
from hypothesis.stateful import RuleBasedStateMachine

from contract import redis_keys
from contract.errors import RelayUnavailable
from contract.events import LAST_WORDS, Event, EventId
from contract.requests import AliasTarget, Route
from relay.claims import Claim, StartedJob
from relay.compaction.log_reader import frames_of
from relay.connection import ScriptCall
from relay.leases import Holder
from relay.publisher import AttemptLog
from relay.scripts.loader import load
from support.queues import check_books, left_in_queues
from support.relay import QUEUE, Relay, relay_on

T = TypeVar("T")
SECOND: Final = "two.chat"
QUEUES: Final = (QUEUE, SECOND)
ROUTE: Final = Route(
    alias="fast",
    targets=tuple(AliasTarget(model="m", backend=name, wait_s=0.0) for name in ("scripted", "two")),
)
"""Of jobs that may move from the first queue to the second."""
OWNED: Final = {
    *QUEUES, redis_keys.RECENT, redis_keys.COMPACTED, redis_keys.UNCOMPACTED, redis_keys.DEAD,
    redis_keys.QUEUES, redis_keys.UNSETTLED, redis_keys.IDEMPOTENCY, redis_keys.ROSTER,
    redis_keys.KNOWN, redis_keys.MOVABLE,
}  # fmt: skip
"""Keys that may outlive all jobs without a time to live: each has an owner, who drops from it."""


@dataclass
class Job:
    """What the machine knows of a job."""

    id: str
    tenant: str
    is_late: bool = False
    parent: str | None = None
    before: tuple[str, ...] = ()
    """Earlier messages of its conversation, for whose ends it waits."""
    frames: Sequence[tuple[EventId | None, str, bytes]] = ()
    """What its log held when it was last read."""

    @property
    def end(self) -> str | None:
        """The type of its terminal event."""
        last = self.frames[-1][1] if self.frames else ""
        return last if last in LAST_WORDS else None


@dataclass(frozen=True, eq=False)
class Attempt:
    """What a worker holds: a claim, and a log once it is started."""

    claim: Claim
    started: StartedJob | None = None
    log: AttemptLog | None = None

    @property
    def id(self) -> str:
        return self.claim.job_id

    @property
    def holder(self) -> Holder:
        return Holder(self.claim.attempt, self.claim.worker)


class RelayModel(RuleBasedStateMachine):
    """The relay, and what it should hold."""

    url: ClassVar[str] = ""
    reached: ClassVar[Counter[str]] = Counter()
    """How often jobs came to what matters, over all runs."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Job] = {}
        self.held: list[Attempt] = []
        """Started or not."""
        self.fenced: list[Attempt] = []
        """Attempts that have lost their job."""
        self.moved: list[Attempt] = []
        """Those of them that have moved it to another queue."""
        self.keys: dict[str, str] = {}
        self.conversations: dict[str, list[str]] = {}
        """Jobs by tenant, in the order of their messages."""
        self.is_paused = False
        self.stack = ExitStack()
        self.portal = self.stack.enter_context(
            start_blocking_portal("asyncio", {"use_uvloop": True})
        )
        opened = relay_on(self.url, compact_after_s=0.001)
        self.relay: Relay = self.stack.enter_context(self.portal.wrap_async_context_manager(opened))

    def do(self, verb: Callable[..., Awaitable[T]], *words: Any, **fields: Any) -> T:
        """Wait for a verb of the relay, which runs in its own loop."""

        async def bounded() -> T:
            return await verb(*words, **fields)

        return self.portal.call(bounded)

    @property
    def started(self) -> list[Attempt]:
        return [attempt for attempt in self.held if attempt.log is not None]

    @property
    def claimed(self) -> list[Attempt]:
        return [attempt for attempt in self.held if attempt.log is None]

    def live(self, ids: Sequence[str]) -> list[str]:
        """Those of these jobs that have not ended."""
        return [id for id in ids if self.jobs[id].end is None]

    @property
    def movable(self) -> list[Attempt]:
        """Attempts of which another target may be tried: nothing of them was sent yet."""
        return [
            attempt
            for attempt in self.held
            if attempt.started is not None
            and attempt.started.record.alias is not None
            and attempt.started.record.target == 0
            and self.jobs[attempt.id].frames[-1][1] == "started"
        ]

    def claim(self, worker: str, *queues: str) -> Attempt | None:
        """Lease the next job of the first queue that has one."""
        for queue in queues:
            if claim := self.do(self.relay.claims.claim, queue, worker):
                return self._claimed(claim)
        return None

    def _claimed(self, claim: Claim) -> Attempt:
        job = self.jobs[claim.job_id]
        if job.parent or job.before:
            self.read_logs()
        assert not (self.is_paused and claim.queue == QUEUE)
        assert job.end is None
        assert not job.is_late
        assert job.id not in {attempt.id for attempt in self.held}
        if job.parent is not None:
            assert self.jobs[job.parent].end == "done"
            self.reached["child"] += 1
        assert self.live(job.before) == []
        self.reached["turn"] += bool(job.before)
        attempt = Attempt(claim)
        self.held.append(attempt)
        return attempt

    def start(self, attempt: Attempt) -> Attempt:
        """Start what is held."""
        started = self.do(self.relay.claims.start, attempt.claim)
        assert started is not None
        running = Attempt(attempt.claim, started, self.portal.call(self.relay.attempt_log, started))
        self.held[self.held.index(attempt)] = running
        return running

    def write(self, attempt: Attempt, *events: Event) -> None:
        """Append to the log; raises LeaseLost."""
        log = attempt.log
        assert log is not None

        async def written() -> None:
            for event in events:
                log.append(event)
            await log.flush()

        self.portal.call(written)

    def hand_over(self, attempt: Attempt, *, counts: bool, delay_s: float) -> bool:
        claim = attempt.claim
        nonce = "" if attempt.log is None else attempt.log.nonce
        return self.do(
            self.relay.leases.hand_over, claim.queue, claim.job_id, claim.attempt, reason="test",
            counts=counts, delay_s=delay_s, nonce=nonce,
        )  # fmt: skip

    def expire(self, attempt: Attempt) -> None:
        """Let a lease run out."""
        leases = redis_keys.leases(attempt.claim.queue)
        self.do(self.relay.connection.command, "ZADD", leases, "XX", 1, attempt.id)
        self.do(self.relay.leases.reap)

    def lose(self, is_lost: Callable[[Attempt], bool]) -> None:
        """Those attempts have lost their jobs."""
        self.fenced += [attempt for attempt in self.held if is_lost(attempt)]
        self.held = [attempt for attempt in self.held if not is_lost(attempt)]

    def dying_before(self, script: str, verb: Callable[..., Awaitable[T]], *words: Any) -> None:
        """Let a process die before it runs this script."""
        call, text = self.relay.connection.call, load(script)

        async def dying(each: ScriptCall[Any]) -> Any:
            if each.script == text:
                raise RelayUnavailable("the process has died")
            return await call(each)

        self.relay.connection.call = dying  # type: ignore[method-assign]
        try:
            self.do(verb, *words)
        except RelayUnavailable:
            self.reached["died between"] += 1
        finally:
            self.relay.connection.call = call  # type: ignore[method-assign]

    def read_logs(self) -> None:
        """Logs only grow, have no gap, and end once."""
        for job_id, frames in self.do(self._frames).items():
            job = self.jobs[job_id]
            ids = [id for id, _, _ in frames if id is not None]
            assert all(_follows(*pair) for pair in pairwise(ids))
            assert frames[: len(job.frames)] == list(job.frames)
            assert [type for _, type, _ in frames[:-1] if type in LAST_WORDS] == []
            job.frames = frames

    def compare(self) -> None:
        """Each job is in one place, and what is counted is what is there."""
        self.read_logs()
        known: list[str] = []
        for queue in QUEUES:
            held = {attempt.id for attempt in self.held if attempt.claim.queue == queue}
            known += self.do(check_books, self.relay, held, queue)
        live = self.do(self.relay.connection.command, "ZRANGE", redis_keys.LIVE, 0, -1)
        assert sorted(known) == sorted(self.live(list(self.jobs)))
        assert {id.decode() for id in live} == set(known)

    def nothing_is_left(self) -> None:
        """Nothing is left of jobs that does not go by itself."""
        assert self.do(left_in_queues, self.relay) == []
        assert self.do(self._lasting) - OWNED == set()

    async def _lasting(self) -> set[str]:
        """Keys that do not expire."""
        keys = await self.relay.connection.command("KEYS", "*")
        return {
            key.decode() for key in keys if await self.relay.connection.command("TTL", key) == -1
        }

    async def _frames(self) -> dict[str, list[tuple[EventId | None, str, bytes]]]:
        """The frames of all logs."""
        read = [("XRANGE", redis_keys.log(job_id), "-", "+") for job_id in self.jobs]
        logs = await self.relay.connection.pipeline(read) if read else []
        self.reached["compacted"] += any(b"b" in fields for log in logs for _, fields in log)
        return {
            job_id: [(frame.id, frame.type, frame.body) for frame in frames_of(log)]
            for job_id, log in zip(self.jobs, logs, strict=True)
        }


def _follows(before: EventId, after: EventId) -> bool:
    """Whether an event comes after another one with none in between."""
    if after.attempt == before.attempt:
        return after.seq == before.seq + 1
    return after.attempt > before.attempt and after.seq == 0
