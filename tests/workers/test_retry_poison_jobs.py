"""Jobs with which workers died run apart from each other.

Subjects: workers/retry.py.
"""

import pytest
from support.backends import chat_request, folded
from support.relay import QUEUE, relay_on

from contract.errors import ServerFault, TruncatedStream
from contract.jobs import JobRecord
from workers.retry import PoisonJobs
from workers.scripted.backend import Scripted


def record(id: str, lost: int) -> JobRecord:
    return JobRecord(
        id=id, v=1, kind="chat", status="running", queue=QUEUE, backend="scripted",
        tenant="default", priority="standard", attempt=1, max_attempts=3, created_at=0.0, lost=lost,
    )  # fmt: skip


def test_jobs_that_lost_one_worker_run_together() -> None:
    poison_jobs = PoisonJobs()

    assert [poison_jobs.enter(record(f"j{n}", lost=n % 2)) for n in range(10)] == [True] * 10


def test_jobs_that_lost_two_workers_run_one_at_a_time() -> None:
    poison_jobs = PoisonJobs()
    first, second = record("first", lost=2), record("second", lost=2)
    entered = [poison_jobs.enter(first), poison_jobs.enter(second)]
    poison_jobs.leave(second)
    entered.append(poison_jobs.enter(second))
    poison_jobs.leave(first)

    assert [*entered, poison_jobs.enter(second)] == [True, False, False, True]


async def test_deaths_of_workers_are_counted_and_failures_of_the_backend_are_not(
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
        stored = await relay.records.get(job)

        assert (stored.lost, stored.tries) == (1, 2)


async def test_a_script_ends_the_process_only_where_that_is_permitted() -> None:
    with pytest.raises(TruncatedStream):
        await folded(Scripted().chat(chat_request("scripted-story:fail=die")))
