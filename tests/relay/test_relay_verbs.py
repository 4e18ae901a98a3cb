"""Any order of the relay's verbs keeps its promises, and leaves nothing behind.

A machine enqueues, claims, appends, cancels, loses leases, hands over, retries, pauses and compacts
as Hypothesis likes, and compares what is in Redis with what it knows.

Subjects: relay/queue.py, relay/leases.py, relay/publisher.py, relay/parents.py, relay/log.py.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple, TypeVar
from uuid import uuid4

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.queues import check_books, left_in_queues
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from contract.errors import LeaseLost
from contract.events import LAST_WORDS, Delta, Done, Event, EventId, Failed
from contract.tenants import Tenant
from relay.claims import StartedJob
from relay.idempotency import Idempotency, Key
from relay.log import frames_of
from relay.publisher import AttemptLog
from relay.queue import Once
from relay.scheduling.pauses import QueuePauses
from relay.scripts.jobs import HeldKey

T = TypeVar("T")
LATE_S: Final = 5000.0
OWNED: Final = {
    QUEUE, redis_keys.RECENT, redis_keys.COMPACTED, redis_keys.UNCOMPACTED, redis_keys.DEAD,
    redis_keys.QUEUES, redis_keys.UNSETTLED, redis_keys.IDEMPOTENCY,
}  # fmt: skip
"""Keys that may outlive all jobs without a time to live: each has an owner, who drops from it."""
WANTED: Final = (
    "done", "failed", "cancelled", "repeated", "child", "refused", "dead", "silent", "compacted",
)  # fmt: skip
"""What some run of the machine must come to."""
which = some.integers(0, 30)


@dataclass
class Job:
    """What the machine knows of a job."""

    id: str
    tenant: str
    is_late: bool
    parent: str | None
    frames: list[tuple[EventId | None, str, bytes]]
    """What its log held when it was last read."""

    @property
    def end(self) -> str | None:
        """The type of its terminal event."""
        last = self.frames[-1][1] if self.frames else ""
        return last if last in LAST_WORDS else None


class Attempt(NamedTuple):
    """What a worker holds."""

    started: StartedJob
    log: AttemptLog
    worker: str

    @property
    def id(self) -> str:
        return self.started.record.id


class Verbs(RuleBasedStateMachine):
    """The relay, and what it should hold."""

    url: ClassVar[str] = ""
    reached: ClassVar[Counter[str]] = Counter()
    """How often jobs came to what matters here, over all runs."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Job] = {}
        self.held: list[Attempt] = []
        self.fenced: list[Attempt] = []
        """Attempts that have lost their job."""
        self.keys: dict[str, str] = {}
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

    @initialize()
    def begin_with_a_job_that_waits_for_another(self) -> None:
        self.do(self.relay.connection.command, "FLUSHDB")
        for start in ("now", "after"):
            self._put("a", start, 0, priority="standard")

    # What callers do.

    @rule(
        tenant=some.sampled_from("ab"),
        priority=some.sampled_from(["interactive", "standard", "batch"]),
        start=some.sampled_from(["now", "now", "now", "soon", "late", "after"]),
        number=which,
        attempts=some.integers(1, 3),
    )
    def enqueue(self, tenant: str, priority: str, start: str, number: int, attempts: int) -> None:
        self._put(tenant, start, number, priority=priority, max_attempts=attempts)

    def _put(self, tenant: str, start: str, number: int, **fields: Any) -> None:
        mine = [job for job in self.jobs.values() if job.tenant == tenant and job.end is None]
        parent = mine[number % len(mine)].id if mine and start == "after" else None
        if parent is not None:
            fields["after"] = (parent,)
        if start in {"soon", "late"}:
            in_s = LATE_S if start == "late" else 0.01
            fields["not_before"] = self.relay.connection.now() + in_s
        record, _ = self.do(
            self.relay.queue.enqueue, chat(**fields), queue=QUEUE, tenant=Tenant(name=tenant)
        )
        assert record.id not in self.jobs
        self.jobs[record.id] = Job(record.id, tenant, start == "late", parent, frames=[])

    @rule(tenant=some.sampled_from("ab"), key=some.sampled_from("xy"))
    def enqueue_with_a_key(self, tenant: str, key: str) -> None:
        request = chat("once")
        held = Key.of(tenant, key, request)
        once = Once(uuid4().hex, held, Idempotency(self.relay.connection).times)
        answer = self.do(
            self.relay.queue.enqueue_once, request, once, queue=QUEUE, tenant=Tenant(name=tenant)
        )
        known = self.keys.get(held.name)
        if isinstance(answer, HeldKey):
            assert (answer.job_id, answer.state) == (known, 0)
            self.reached["repeated"] += 1
            return
        assert known is None
        self.keys[held.name] = answer[0].id
        self.jobs[answer[0].id] = Job(answer[0].id, tenant, is_late=False, parent=None, frames=[])

    @precondition(lambda self: self.jobs)
    @rule(number=which)
    def cancel(self, number: int) -> None:
        job = list(self.jobs.values())[number % len(self.jobs)]
        record = self.do(self.relay.queue.cancel, job.id, by="test")
        assert record.status == (job.end or "cancelled")
        self._lose(lambda attempt: attempt.id == job.id)

    # What workers do.

    @rule(worker=some.sampled_from(["w1", "w2"]), count=some.integers(1, 3))
    def work(self, worker: str, count: int) -> None:
        for _ in range(count):
            self.claim(worker)

    def claim(self, worker: str) -> None:
        """Start the next job, if there is one."""
        started = self.do(self.relay.start_next, QUEUE, worker)
        if started is None:
            return
        job = self.jobs[started.record.id]
        assert not self.is_paused
        assert job.end is None
        assert not job.is_late
        assert job.id not in {attempt.id for attempt in self.held}
        if job.parent is not None:
            assert self.jobs[job.parent].end == "done"
            self.reached["child"] += 1
        self.held.append(
            Attempt(started, self.portal.call(self.relay.attempt_log, started), worker)
        )

    @precondition(lambda self: self.held)
    @rule(number=which, count=some.integers(1, 4))
    def append(self, number: int, count: int) -> None:
        attempt = self.held[number % len(self.held)]
        self.do(self._write, attempt, *(Delta(content=f"{each} ") for each in range(count)))

    @precondition(lambda self: self.held)
    @rule(number=which, end=some.sampled_from([Done(), Failed(code="x", message="no")]))
    def end(self, number: int, end: Event) -> None:
        attempt = self.held.pop(number % len(self.held))
        self.do(self._write, attempt, end)
        self.do(
            self.relay.leases.release, QUEUE, attempt.id, f"{attempt.log.attempt} {attempt.worker}"
        )

    @precondition(lambda self: self.held)
    @rule(number=which, counts=some.booleans(), delay_s=some.sampled_from([0.0, 0.01]))
    def retry(self, number: int, counts: bool, delay_s: float) -> None:  # noqa: FBT001
        attempt = self.held[number % len(self.held)]
        self._hand_over(attempt, counts=counts, delay_s=delay_s)
        self._lose(lambda each: each is attempt)

    @precondition(lambda self: self.fenced)
    @rule(number=which)
    def write_or_hand_over_what_was_lost(self, number: int) -> None:
        attempt = self.fenced[number % len(self.fenced)]
        with suppress(LeaseLost):
            self.do(self._write, attempt, Delta(content="late"), Done())
            raise AssertionError("a fenced attempt has written")
        assert not self._hand_over(attempt, counts=True, delay_s=0.0)
        self.do(
            self.relay.leases.release, QUEUE, attempt.id, f"{attempt.log.attempt} {attempt.worker}"
        )
        self.reached["refused"] += 1

    @precondition(lambda self: self.held)
    @rule(number=which)
    def die(self, number: int) -> None:
        worker = self.held[number % len(self.held)].worker
        self.do(self.relay.leases.release_worker, worker)
        self._lose(lambda attempt: attempt.worker == worker)
        self.reached["dead"] += 1

    @precondition(lambda self: self.held)
    @rule(number=which)
    def fall_silent(self, number: int) -> None:
        attempt = self.held[number % len(self.held)]
        leases = redis_keys.leases(QUEUE)
        self.do(self.relay.connection.command, "ZADD", leases, "XX", 1, attempt.id)
        self.do(self.relay.leases.reap)
        self._lose(lambda each: each is attempt)
        self.reached["silent"] += 1

    # What admins and the maintainer do.

    @rule(pause=some.booleans())
    def pause_or_resume(self, pause: bool) -> None:  # noqa: FBT001
        pauses = QueuePauses(self.relay.connection)
        self.do(pauses.pause if pause else pauses.resume, QUEUE)
        self.is_paused = pause

    @rule()
    def maintain(self) -> None:
        self.do(self.relay.leases.reap)
        self.do(self.relay.reconciler.reconcile)

    @rule()
    def compact(self) -> None:
        self.do(self.relay.compactor.compact_for, 0.01)
        logs = self.do(self._logs).values()
        self.reached["compacted"] += any(b"b" in fields for log in logs for _, fields in log)

    # What holds at any time.

    def logs_only_grow_and_end_once(self) -> None:
        for job_id, entries in self.do(self._logs).items():
            job = self.jobs[job_id]
            before, now = job.frames, [(f.id, f.type, f.body) for f in frames_of(entries)]
            ids = [id for id, _, _ in now]
            assert ids == sorted(set(ids))
            assert now[: len(before)] == before
            assert [type for _, type, _ in now[:-1] if type in LAST_WORDS] == []
            job.frames = now

    @invariant()
    def each_job_is_in_one_place(self) -> None:
        self.logs_only_grow_and_end_once()
        self.do(check_books, self.relay, {attempt.id for attempt in self.held})
        live = self.do(self.relay.connection.command, "ZRANGE", redis_keys.LIVE, 0, -1)
        assert {id.decode() for id in live} == {
            job.id for job in self.jobs.values() if job.end is None
        }

    def teardown(self) -> None:
        """End all jobs; then nothing of them may be left that does not go by itself."""
        with self.stack:
            self.pause_or_resume(pause=False)
            while self.held:
                (self.fall_silent if len(self.held) % 2 else self.die)(0)
            for number, job in enumerate(self.jobs.values()):
                if job.is_late:
                    self.cancel(number)
            while any(job.end is None for job in self.jobs.values()):
                self.maintain()
                self.claim("w3")
                while self.held:
                    self.end(0, Done())
                self.logs_only_grow_and_end_once()
            self.each_job_is_in_one_place()
            self.maintain()
            self.reached.update(str(job.end) for job in self.jobs.values())
            assert self.do(left_in_queues, self.relay) == []
            assert self.do(self._lasting) - OWNED == set()

    async def _lasting(self) -> set[str]:
        """Keys that do not expire."""
        keys = await self.relay.connection.command("KEYS", "*")
        return {
            key.decode() for key in keys if await self.relay.connection.command("TTL", key) == -1
        }

    async def _write(self, attempt: Attempt, *events: Event) -> None:
        for event in events:
            attempt.log.append(event)
        await attempt.log.flush()

    def _hand_over(self, attempt: Attempt, *, counts: bool, delay_s: float) -> bool:
        return self.do(
            self.relay.leases.hand_over, QUEUE, attempt.id, attempt.log.attempt, reason="test",
            counts=counts, delay_s=delay_s,
        )  # fmt: skip

    def _lose(self, is_lost: Callable[[Attempt], bool]) -> None:
        """Those attempts have lost their jobs."""
        self.fenced += [attempt for attempt in self.held if is_lost(attempt)]
        self.held = [attempt for attempt in self.held if not is_lost(attempt)]

    async def _logs(self) -> dict[str, list[Any]]:
        """The entries of all logs."""
        read = [("XRANGE", redis_keys.log(job_id), "-", "+") for job_id in self.jobs]
        found = await self.relay.connection.pipeline(read) if read else []
        return dict(zip(self.jobs, found, strict=True))


@pytest.mark.slow
def test_any_order_of_verbs_keeps_every_promise(redis_url: str) -> None:
    machine = type("VerbsOnRedis", (Verbs,), {"url": redis_url, "reached": Counter()})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

    missed = [name for name in WANTED if not machine.reached[name]]
    assert missed == []
