"""Jobs with which workers died run apart from each other."""

import pytest
from support.backends import asking, told
from support.relay import QUEUE, relay_on

from contract.errors import ServerFault, TruncatedStream
from contract.jobs import JobRecord
from workers.poison_jobs import PoisonJobs
from workers.scripted.backend import Scripted


def record(id: str, lost: int) -> JobRecord:
    return JobRecord(
        id=id, v=1, kind="chat", status="running", queue=QUEUE, backend="scripted",
        tenant="default", priority="standard", attempt=1, max_attempts=3, created_at=0.0, lost=lost,
    )  # fmt: skip


def test_jobs_that_outlived_one_worker_go_on_together() -> None:
    poison_jobs = PoisonJobs()

    assert [poison_jobs.enter(record(f"j{n}", lost=n % 2)) for n in range(10)] == [True] * 10


def test_of_jobs_that_outlived_two_one_runs_at_a_time() -> None:
    poison_jobs = PoisonJobs()
    first, second = record("first", lost=2), record("second", lost=2)
    entered = [poison_jobs.enter(first), poison_jobs.enter(second)]
    poison_jobs.leave(second)
    entered.append(poison_jobs.enter(second))
    poison_jobs.leave(first)

    assert [*entered, poison_jobs.enter(second)] == [True, False, False, True]


async def test_a_death_of_the_worker_is_counted_and_a_failure_of_the_backend_is_not(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        claim = await relay.claim("w1")
        await relay.leases.release_worker("w1")
        claim = await relay.claim("w2")
        await relay.leases.hand_over(
            QUEUE, job, claim.attempt, reason="HTTP 500", counts=True, error=ServerFault("HTTP 500")
        )
        kept = await relay.records.get(job)

        assert (kept.lost, kept.tries) == (1, 2)


async def test_a_script_kills_nobody_who_was_not_told_that_it_may() -> None:
    with pytest.raises(TruncatedStream):
        await told(Scripted().chat(asking("scripted-story:fail=die")))
