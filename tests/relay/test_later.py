"""Scheduled jobs: they wait for a time without a worker, then take their place like new ones.

Subjects: relay/scheduling/later.py, relay/lua/shared/queue.lua, relay/order.py.
"""

import asyncio
from typing import Any

import pytest
from support.crowd import crowd
from support.queues import nothing_waits
from support.relay import QUEUE, Relay, chat, relay_on, words

from contract import redis_keys
from contract.errors import InvalidRequest, QueueFull
from contract.jobs import JobRecord
from contract.models import PullRequest
from contract.roster import KnownBackend  # noqa: F401 - the module of what demand reads
from contract.tenants import Tenant
from relay.lists.scheduled_jobs import ScheduledJobs
from relay.roster import Roster
from relay.scaling.demand import DemandReader


async def scheduled(relay: Relay, in_s: float, **fields: Any) -> JobRecord:
    not_before = relay.connection.now() + in_s
    record, place = await relay.queue.enqueue(chat(not_before=not_before, **fields), queue=QUEUE)
    assert place.is_scheduled
    assert place.reason.startswith("scheduled for 20")
    return record


async def size(relay: Relay, key: str) -> int:
    return int(await relay.connection.command("ZCARD", key))


async def test_a_job_starts_at_its_time_and_not_before(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await scheduled(relay, 0.3)
        await relay.leases.reap()
        assert await relay.claims.claim(QUEUE, "w1", idle_slots=1) is None
        assert not await relay.claims.have_tickets([QUEUE])
        await asyncio.sleep(0.35)
        await relay.leases.reap()

        assert await relay.claims.have_tickets([QUEUE])
        started = await relay.claim()
        assert started.record.id == job.id
        assert b"not_before" not in started.request
        await relay.run(started, *words(1))
        await nothing_waits(relay)


async def test_its_wait_counts_from_the_time_at_which_it_could_start(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await scheduled(relay, 0.2)
        await asyncio.sleep(0.25)
        started = await relay.claim()

        assert started.record.ready_at == pytest.approx(job.not_before, abs=0.001)
        assert started.record.started_at is not None
        assert started.record.started_at - started.record.ready_at < 0.2


async def test_a_scheduled_job_stands_behind_those_that_came_before_it_was_due(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        job = await scheduled(relay, 0.2)
        early = [await relay.enqueue() for _ in range(3)]
        await asyncio.sleep(0.25)
        order = [(await relay.claim()).record.id for _ in range(4)]

        assert order == [*early, job.id]


async def test_shares_hold_although_a_tenant_has_scheduled_many(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for _ in range(20):
            await scheduled(relay, 0.2)
        await asyncio.sleep(0.25)
        await relay.leases.reap()
        late = await relay.enqueue(priority="interactive")

        assert (await relay.claim()).record.id == late
        assert await relay.connection.command("EXISTS", redis_keys.scheduled(QUEUE)) == 0
        waiting = await relay.connection.command("HGET", redis_keys.load(QUEUE), "jobs default")
        assert waiting == b"20"


async def test_the_deadline_counts_from_the_time_at_which_the_job_may_start(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await scheduled(relay, 100, deadline_s=50)
        past, _ = await relay.queue.enqueue(chat(not_before=1, deadline_s=50), queue=QUEUE)

        assert job.deadline_at == pytest.approx(relay.connection.now() + 150, abs=5)
        assert past.deadline_at == pytest.approx(relay.connection.now() + 50, abs=5)
        assert (await relay.claim()).record.id == past.id


async def test_a_scheduled_job_is_listed_cancelled_and_leaves_nothing(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await scheduled(relay, 1000)
        await relay.enqueue()
        page = await relay.records.page(status="scheduled")
        queued = await relay.records.page(status="queued")
        assert [each.id for each in page.jobs] == [job.id]
        assert page.jobs[0].status == "scheduled"
        assert job.id not in [each.id for each in queued.jobs]
        assert await relay.connection.command("HGETALL", redis_keys.scheduled(QUEUE)) != {}

        await relay.queue.cancel(job.id, by="caller")
        assert await size(relay, redis_keys.delayed(QUEUE)) == 0
        assert await relay.connection.command("EXISTS", redis_keys.scheduled(QUEUE)) == 0
        await relay.run(await relay.claim())
        await nothing_waits(relay)


async def test_as_many_may_be_scheduled_as_may_wait_and_they_do_not_refuse_others(
    redis_url: str,
) -> None:
    async with relay_on(redis_url, queue_limit=3) as relay:
        for _ in range(3):
            await scheduled(relay, 1000)
        with pytest.raises(QueueFull, match="FLEET_QUEUE_LIMIT"):
            await scheduled(relay, 1000)
        with pytest.raises(QueueFull):
            await scheduled(relay, 1000)

        for _ in range(3):
            await relay.enqueue()


async def test_a_tenants_bound_holds_for_what_it_schedules(redis_url: str) -> None:
    async with relay_on(redis_url, tenant_limit=2) as relay:
        for _ in range(2):
            await scheduled(relay, 1000)
        with pytest.raises(QueueFull, match="tenant default"):
            await scheduled(relay, 1000)


async def test_a_scheduled_job_that_its_queue_has_lost_is_scheduled_again(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await scheduled(relay, 1000)
        keys = await relay.connection.command("KEYS", "fleet:q:*")
        await relay.connection.command("DEL", *keys)
        await relay.leases.give_back(QUEUE, job.id, 1, 1)

        due = await relay.connection.command("ZSCORE", redis_keys.delayed(QUEUE), job.id)
        assert float(due) == pytest.approx(job.not_before, abs=1)
        assert await relay.start_next(QUEUE, "w1") is None


async def test_a_job_that_is_due_much_later_wants_no_worker_now(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await scheduled(relay, 3600)
        later = await DemandReader(relay.connection).read([QUEUE], Roster([], []))
        await scheduled(relay, 10)
        soon = await DemandReader(relay.connection).read([QUEUE], Roster([], []))

        assert (later.workers, soon.workers) == (0, 1)
        (view,) = await relay.queue.positions.with_schedules(await relay.queue.positions.views([]))
        (counts,) = await relay.queue.positions.survey([])
        assert (view.scheduled, view.delayed) == (counts.scheduled, counts.delayed) == (1, 1)


async def test_a_time_too_far_away_is_refused_and_leaves_nothing(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        with pytest.raises(InvalidRequest, match="at most 30 days ahead"):
            await scheduled(relay, 31 * 86400)

        assert await relay.connection.command("KEYS", "fleet:j:*") == []


async def test_a_pull_for_now_is_not_the_pull_that_is_scheduled(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        at = relay.connection.now() + 1000
        later, _ = await relay.queue.enqueue(PullRequest(model="m", not_before=at), queue="s.pull")
        now, _ = await relay.queue.enqueue(PullRequest(model="m"), queue="s.pull")

        assert later.id != now.id
        claim = await relay.claims.claim("s.pull", "w1")
        assert claim is not None
        assert claim.job_id == now.id


async def test_a_job_that_was_scheduled_is_handed_over_like_any_other(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.1) as relay:
        job = await scheduled(relay, 0.1)
        await asyncio.sleep(0.15)
        await relay.claim()
        await asyncio.sleep(0.15)
        assert await relay.leases.reap() == 1

        again = await relay.claim()
        assert (again.record.id, again.attempt) == (job.id, 2)
        await relay.run(again)
        await nothing_waits(relay)


async def test_scheduled_jobs_are_listed_by_their_time_and_each_tenant_sees_its_own(
    redis_url: str,
) -> None:
    ann = Tenant(name="ann")
    async with relay_on(redis_url) as relay:
        late, soon = await scheduled(relay, 900), await scheduled(relay, 300)
        parent = await relay.enqueue()
        child, _ = await relay.queue.enqueue(chat(after=(parent,)), queue=QUEUE)
        hers, _ = await relay.queue.enqueue(
            chat(not_before=relay.connection.now() + 600), queue="other.chat", tenant=ann
        )
        jobs = ScheduledJobs(relay.connection, relay.records)
        every = await jobs.page(limit=10)
        first = await jobs.page(limit=2)
        own = await jobs.page(visible_to=ann, limit=10)

        assert [job.id for job in every.jobs] == [soon.id, hers.id, late.id, child.id]
        assert {job.status for job in every.jobs} == {"scheduled"}
        assert (every.complete, first.complete) == (True, False)
        assert [job.id for job in first.jobs] == [soon.id, hers.id]
        assert ([job.id for job in own.jobs], own.complete) == ([hers.id], True)


async def test_a_tenant_sees_its_scheduled_jobs_behind_thousands_of_another(
    redis_url: str,
) -> None:
    ann = Tenant(name="ann")
    async with relay_on(redis_url) as relay:
        jobs = ScheduledJobs(relay.connection, relay.records)
        at = relay.connection.now() + 600
        hers, _ = await relay.queue.enqueue(chat(not_before=at), queue=QUEUE, tenant=ann)
        await crowd(relay, redis_keys.delayed(QUEUE), at - 100)
        own = await jobs.page(visible_to=ann, limit=10)

        assert ([job.id for job in own.jobs], own.complete) == ([hers.id], True)
