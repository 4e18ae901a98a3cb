"""Any order of the relay's verbs keeps its promises, and leaves nothing behind.

A machine enqueues, claims, starts, appends, cancels, renews and loses leases, hands over, retries,
moves, pauses and compacts as Hypothesis likes, lets processes die in between and Redis lose recent
writes, and compares what is in Redis with what it knows (tests/support/relay_model.py).

Each of these checks of relay/lua was removed, alone, and the test failed: of `append` the nonce,
the length; of `start` the attempt, the status, the nonce; of `hand_over` ended, moved, stale, the
nonce, and that it counts the attempt; of `end` ended, and the attempt; of `move` stale; of
`give_back` the attempt, and that the job waits; of `release` and `renew` the holder; of `claim` the
turn; of `begin_turn` the reject. Not seen alone, because a second check seems to refuse the same:
the nonces that `append`, `hand_over`, `move` and `end` remove (the length), `move` ended (the
attempt), `withdraw` the holder (the lists of the backlog); removing both was not tried. Nor is the
limit of attempts in `hand_over` seen.

Subjects: relay/queue.py, relay/claims.py, relay/leases.py, relay/publisher.py, relay/parents.py.
"""

from collections import Counter
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from support.relay import QUEUE, chat, restore, saved
from support.relay_model import QUEUES, ROUTE, Attempt, Job, RelayModel
from support.shim import Stage

from contract.errors import ConversationBusy, LeaseLost
from contract.events import Delta, Done, Event, Failed, Started
from contract.tenants import Tenant
from relay.aliases.moves import MovableJob, Moves
from relay.idempotency import Idempotency, Key
from relay.queue import Once
from relay.scheduling.pauses import QueuePauses
from relay.scripts import jobs
from relay.scripts.jobs import HeldKey

LATE_S: Final = 5000.0
MOST_ROUNDS: Final = 300
"""Of work at the end: a job may be due after 10 ms."""
WANTED: Final = (
    "done", "failed", "cancelled", "repeated", "child", "refused", "dies", "falls silent",
    "returns", "fails", "compacted", "turn", "busy", "moved", "died between", "torn", "two starts",
    "not started",
)  # fmt: skip
"""What some run of the machine must come to."""
EXAMPLES: Final = 20
"""Runs of the machine, and again as many, each other ones, while something was not reached."""
MOST_EXAMPLES: Final = 80
which = some.integers(0, 30)
workers = some.sampled_from(["w1", "w2"])
queues = some.permutations(QUEUES).map(tuple)


class Verbs(RelayModel):
    """What callers, workers, admins, the maintainer and accidents do."""

    @initialize()
    def begin_with_some_jobs_of_each_sort(self) -> None:
        self.do(self.relay.connection.command, "FLUSHDB")
        self.do(Stage(None, self.relay).announce, "two")  # type: ignore[arg-type]
        for start in ("now", "after"):
            self._put("a", start, 0, priority="standard")
        for _ in range(2):
            self._put("b", "now", 0, route=ROUTE)
            self._send("a", "queue", None)
        for worker in ("w1", "w2"):
            self.work(worker, QUEUES, 2, 1)

    # What callers do.

    @rule(
        tenant=some.sampled_from("ab"),
        priority=some.sampled_from(["interactive", "standard", "batch"]),
        start=some.sampled_from(["now", "now", "now", "soon", "late", "after"]),
        number=which,
        attempts=some.integers(1, 3),
        route=some.sampled_from([ROUTE, None]),
    )
    def enqueue(self, tenant: str, start: str, number: int, **fields: Any) -> None:
        self._put(tenant, start, number, max_attempts=fields.pop("attempts"), **fields)

    def _put(self, tenant: str, start: str, number: int, **fields: Any) -> None:
        mine = [job for job in self.jobs.values() if job.tenant == tenant and job.end is None]
        parent = mine[number % len(mine)].id if mine and start == "after" else None
        if parent is not None:
            fields["after"] = (parent,)
        if start in {"soon", "late"}:
            in_s = LATE_S if start == "late" else 0.01
            fields["not_before"] = self.relay.connection.now() + in_s
        self._enqueued(tenant, is_late=start == "late", parent=parent, **fields)

    def _enqueued(
        self,
        tenant: str,
        before: tuple[str, ...] = (),
        parent: str | None = None,
        *,
        is_late: bool = False,
        **fields: Any,
    ) -> str:
        record, _ = self.do(
            self.relay.queue.enqueue, chat(**fields), queue=QUEUE, tenant=Tenant(name=tenant)
        )
        assert record.id not in self.jobs
        self.jobs[record.id] = Job(record.id, tenant, is_late, parent, before)
        return record.id

    @rule(
        tenant=some.sampled_from("ab"),
        policy=some.sampled_from(["queue", "queue", "reject", "interrupt", "parallel"]),
        route=some.sampled_from([ROUTE, None]),
    )
    def send_a_message(self, tenant: str, policy: str, route: object) -> None:
        self._send(tenant, policy, route)

    def _send(self, tenant: str, policy: str, route: object) -> None:
        its = self.conversations.setdefault(tenant, [])
        live = tuple(self.live(its))
        turn = {"conversation": "c", "conversation_policy": policy, "route": route}
        if policy == "reject" and live:
            with pytest.raises(ConversationBusy):
                self._enqueued(tenant, **turn)
            self.reached["busy"] += 1
            return
        its.append(self._enqueued(tenant, live if policy == "queue" else (), **turn))
        if policy == "interrupt":
            self.lose(lambda attempt: attempt.id in live)
            self.read_logs()
            assert self.live(live) == []

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
        self.jobs[answer[0].id] = Job(answer[0].id, tenant)

    @rule(number=which)
    def cancel(self, number: int) -> None:
        job = list(self.jobs.values())[number % len(self.jobs)]
        record = self.do(self.relay.queue.cancel, job.id, by="test")
        assert record.status == (job.end or "cancelled")
        self.lose(lambda attempt: attempt.id == job.id)

    # What workers do.

    @rule(
        worker=workers,
        queues=queues,
        count=some.integers(1, 3),
        starts=some.sampled_from([1, 1, 0]),
    )
    def work(self, worker: str, queues: tuple[str, ...], count: int, starts: int) -> None:
        for _ in range(count):
            attempt = self.claim(worker, *queues)
            if attempt and starts:
                self.start(attempt)

    @rule(number=which)
    def start_what_was_claimed(self, number: int) -> None:
        if self.claimed:
            self.start(self.claimed[number % len(self.claimed)])

    @rule(number=which, count=some.integers(1, 4))
    def append(self, number: int, count: int) -> None:
        if attempt := self._running(number):
            self.write(attempt, *(Delta(content=f"{each} ") for each in range(count)))

    def _running(self, number: int) -> Attempt | None:
        """A started attempt; of none that is there, a new one.

        That is no precondition, because what runs depends on the time, and Hypothesis wants none of
        its choices to.
        """
        if not self.started:
            self.work("w1", QUEUES, 2, 1)
        return self.started[number % len(self.started)] if self.started else None

    @rule(
        number=which,
        end=some.sampled_from([Done(), Failed(code="x", message="no")]),
        releases=some.booleans(),
    )
    def end(self, number: int, end: Event, releases: bool) -> None:  # noqa: FBT001
        attempt = self._running(number)
        if attempt is None:
            return
        self.held.remove(attempt)
        self.write(attempt, end)
        if releases:
            self.do(self.relay.leases.release, attempt.claim.queue, attempt.id, attempt.holder)
        else:
            self.expire(attempt)

    @rule(
        number=which,
        how=some.sampled_from(["returns", "fails", "dies", "falls silent"]),
        delay_s=some.sampled_from([0.0, 0.01]),
    )
    def lose_what_is_held(self, number: int, how: str, delay_s: float) -> None:
        if number % 2 and not self.claimed:
            self.claim("w2", *QUEUES)
        some_held = (self.claimed if number % 2 else self.started) or self.held
        if not some_held:
            return
        attempt = some_held[number % len(some_held)]
        worker = attempt.claim.worker
        if how == "dies":
            self.do(self.relay.leases.release_worker, worker)
        elif how == "falls silent":
            self.expire(attempt)
        else:
            self.hand_over(attempt, counts=how == "fails", delay_s=delay_s)
        self.lose(lambda each: each is attempt or (how == "dies" and each.claim.worker == worker))
        self.reached[how] += 1

    @rule(number=which, dies_before=some.sampled_from([None, "queues/supersede", "jobs/move"]))
    def move(self, number: int, dies_before: str | None) -> None:
        if not self.movable:
            self._put("b", "now", 0, route=ROUTE)
            self.work("w1", QUEUES, 3, 1)
            self.read_logs()
        if not self.movable:
            return
        attempt = self.movable[number % len(self.movable)]
        job, moves = self._movable_job(attempt), Moves(self.relay.connection)
        assert job is not None
        if dies_before is None:
            assert self.do(moves.move, job, 1, "test")
        else:
            self.dying_before(dies_before, moves.move, job, 1, "test")
            self.expire(attempt)
        self.lose(lambda each: each is attempt)
        self.moved.append(attempt)
        self.reached["moved"] += 1

    def _movable_job(self, attempt: Attempt) -> MovableJob | None:
        assert attempt.started is not None
        record = attempt.started.record
        return MovableJob.of(record, self.do(self.relay.records.request, record.id))

    @rule()
    def use_all_that_was_held(self) -> None:
        """No verb of an attempt that has lost its job changes anything, and no repeated start."""
        for worker in ("w1", "w2", "w1", "w2"):
            self.claim(worker, *QUEUES)  # of what was lost, a later attempt
        for worker in ("w1", "w2"):
            for attempts, is_lost in ((self.held, False), (self.fenced, True)):
                self._renew(worker, attempts, is_lost=is_lost)
        for attempt in self.started:
            self._start_again(attempt)
        for attempt in self.fenced:
            self._use(attempt)

    def _start_again(self, attempt: Attempt) -> None:
        """A repeated call changes nothing; another one for the same attempt is refused."""
        assert attempt.log is not None
        claim = attempt.claim
        for nonce, answer in ((attempt.log.nonce, attempt.log.length), ("another", None)):
            started = Started(
                attempt=claim.attempt, worker=claim.worker, backend="scripted", nonce=nonce
            )
            told = self.do(self.relay.connection.call, jobs.start(attempt.id, started))
            assert (told and told[0]) == answer

    def _renew(self, worker: str, attempts: list[Attempt], *, is_lost: bool) -> None:
        for queue in QUEUES:
            its = [each for each in attempts if each.claim[:2] == (queue, worker)]
            held = [(each.id, each.claim.attempt) for each in its]
            lost = self.do(self.relay.leases.renew, worker, {queue: held})
            assert lost == {id for id, _ in held if is_lost}

    def _use(self, attempt: Attempt) -> None:
        """Let an attempt that has lost its job try everything."""
        claim, log = attempt.claim, attempt.log
        if log is None:
            assert self.do(self.relay.claims.start, claim) is None
            self.reached["not started"] += 1
        else:
            with suppress(LeaseLost):
                self.write(attempt, Delta(content="late"), Done())
                raise AssertionError("a fenced attempt has written")
            job = self._movable_job(attempt)
            has_moved = job is not None and self.do(
                Moves(self.relay.connection).move, job, 1, "test"
            )
            # One that is repeated completes what the first has begun, and takes nothing away.
            assert not has_moved or attempt in self.moved
        assert not self.hand_over(attempt, counts=True, delay_s=0.0)
        self.do(self.relay.leases.release, claim.queue, attempt.id, attempt.holder)
        self.reached["refused"] += 1

    # Accidents.

    @rule(count=some.integers(0, 2))
    def redis_loses_a_start(self, count: int) -> None:
        """Two workers have the same attempt, and logs of one length: only the nonce tells."""
        copy = self.do(saved, self.relay)
        lost = self.claim("w1", QUEUE)
        if lost is None:
            return
        running = self.start(lost)
        words = [Delta(content=f"{each} ") for each in range(count)]
        for word in words:
            self.write(running, word)
        self.held.remove(running)
        self.do(restore, self.relay, copy)
        again = self.claim("w2", QUEUE)
        assert again is not None
        other = self.start(again)
        for word in words:
            self.write(other, word)
        with suppress(LeaseLost):
            self.write(running, Delta(content="from before"))
            raise AssertionError("an attempt that Redis has lost has written")
        assert not self.hand_over(running, counts=False, delay_s=0.0)
        self.reached["two starts"] += other.id == running.id

    @rule(number=which)
    def redis_loses_what_was_appended(self, number: int) -> None:
        """The log of a job has no gap: its attempt ends, and is retried."""
        attempt = self._running(number)
        if attempt is None:
            return
        assert attempt.log is not None
        copy = self.do(saved, self.relay)
        self.write(attempt, Delta(content="lost"))
        self.do(restore, self.relay, copy)
        with suppress(LeaseLost):
            self.write(attempt, Delta(content="after a gap"))
            raise AssertionError("the log has a gap")
        assert attempt.log.torn
        self.hand_over(attempt, counts=False, delay_s=0.0)
        self.lose(lambda each: each is attempt)
        self.reached["torn"] += 1

    # What admins and the maintainer do.

    @rule(pause=some.booleans())
    def pause_or_resume(self, pause: bool) -> None:  # noqa: FBT001
        pauses = QueuePauses(self.relay.connection)
        self.do(pauses.pause if pause else pauses.resume, QUEUE)
        self.is_paused = pause

    @rule(compacts=some.booleans())
    def maintain(self, compacts: bool) -> None:  # noqa: FBT001
        self.do(self.relay.leases.reap)
        self.do(self.relay.reconciler.reconcile)
        if compacts:
            self.do(self.relay.compactor.compact_for, 0.01)

    # What holds at any time.

    @invariant()
    def redis_holds_what_it_should(self) -> None:
        self.compare()

    def teardown(self) -> None:
        """End all jobs; then nothing of them may be left that does not go by itself."""
        with self.stack:
            self.pause_or_resume(pause=False)
            self._lose_all()
            self.use_all_that_was_held()
            self._lose_all()
            for number, job in enumerate(self.jobs.values()):
                if job.is_late:
                    self.cancel(number)
            for _ in range(MOST_ROUNDS):
                if not self.live(list(self.jobs)):
                    break
                self.maintain(compacts=False)
                self.work("w3", QUEUES, 3, 1)
                while self.held:
                    self.end(0, Done(), releases=True)
                self.read_logs()
            assert self.live(list(self.jobs)) == []
            self.compare()
            self.maintain(compacts=True)
            self.reached.update(str(job.end) for job in self.jobs.values())
            self.nothing_is_left()

    def _lose_all(self) -> None:
        while self.held:
            self.lose_what_is_held(0, ("dies", "falls silent")[len(self.held) % 2], 0.0)


@pytest.mark.slow
def test_any_order_of_verbs_keeps_every_promise(redis_url: str) -> None:
    reached: Counter[str] = Counter()
    # What Hypothesis draws depends on the constants of all modules that are imported, so that after
    # other tests the same examples may miss something: then others follow.
    for round_ in range(MOST_EXAMPLES // EXAMPLES):
        machine = type("VerbsOnRedis", (Verbs,), {"url": redis_url, "reached": reached})
        run_state_machine_as_test(
            seed(round_)(machine),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=40,
                database=None,
                # What fails depends on the time, too, so that a smaller case seldom fails.
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
        if not (missed := [name for name in WANTED if not reached[name]]):
            break

    assert missed == []
