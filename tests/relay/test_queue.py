"""The queue: order, claims, positions, bounds, cancel."""

import asyncio
import base64
import json

import pytest
from celery import Celery
from kombu import pools
from support.relay import QUEUE, chat, relay_on

from contract.errors import JobNotFound, QueueFull
from contract.events import Started
from contract.redis_keys import TICKET_TASK
from relay.claims import Claim
from relay.tickets import ticket


async def test_jobs_are_claimed_in_the_order_they_came(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        jobs = [await relay.enqueue() for _ in range(5)]

        assert jobs == [(await relay.claim()).record.id for _ in jobs]


async def test_an_urgent_class_goes_before_the_others(redis_url: str) -> None:
    # litellm #361, #31830: queueing with priorities, not only when no deployment is healthy.
    async with relay_on(redis_url) as relay:
        batch = await relay.enqueue(priority="batch")
        standard = await relay.enqueue()
        interactive = await relay.enqueue(priority="interactive")

        assert [interactive, standard, batch] == [(await relay.claim()).record.id for _ in range(3)]


async def test_a_start_whose_answer_was_lost_is_the_same_start(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        started = Started(attempt=1, worker="w1", backend="scripted", nonce="a1")
        claim = Claim(QUEUE, "w1", job, 1, "m", "m")
        first = await relay.claims._start(claim, started, None)
        again = await relay.claims._start(claim, started, None)
        other = await relay.claims._start(claim, started.model_copy(update={"nonce": "b2"}), None)
        frames = [frame async for page in relay.log.read(job) for frame in page]

        assert first is not None
        assert (first, None) == (again, other)
        assert [frame.type for frame in frames] == ["queued", "started"]
        assert first.record.tries == 1


async def test_no_job_is_claimed_twice(redis_url: str) -> None:
    # litellm scheduler.py: one list that all replicas read, change and write back.
    async with relay_on(redis_url) as relay:
        jobs = {await relay.enqueue() for _ in range(50)}
        claims = await asyncio.gather(*(relay.start_next(QUEUE, f"w{i}") for i in range(80)))
        claimed = [claim.record.id for claim in claims if claim]

        assert sorted(jobs) == sorted(claimed)


async def test_a_claim_carries_the_request_as_it_was_written(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.enqueue("héllo", seed=7)
        claim = await relay.claim()

        assert chat("héllo", seed=7) == type(chat()).model_validate_json(claim.request)
        assert claim.record.status == "running"


async def test_a_version_that_a_worker_does_not_know_stays_in_the_backlog(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        newer, ours = await relay.enqueue(), await relay.enqueue()
        facts = f"fleet:q:{QUEUE}:facts"
        text = json.loads(await relay.connection.command("HGET", facts, newer))
        await relay.connection.command("HSET", facts, newer, json.dumps(text | {"v": 2}))

        assert ours == (await relay.claim()).record.id
        assert None is await relay.start_next(QUEUE, "w1")
        assert (await relay.queue.positions.place(await relay.records.get(newer))).position == 1


async def test_a_position_is_a_rank(redis_url: str) -> None:
    # ollama #2004, #5253, gpustack #2116, vllm #13395: no position.
    async with relay_on(redis_url) as relay:
        jobs = [await relay.enqueue() for _ in range(3)]
        await relay.claim()
        places = [await relay.queue.positions.place(await relay.records.get(job)) for job in jobs]

        assert [place.position for place in places] == [None, 1, 2]
        assert places[2].reason == "1 job before yours"


async def test_the_eta_is_null_until_jobs_have_ended(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first, second = await relay.enqueue(), await relay.enqueue()

        assert None is (await relay.queue.positions.place(await relay.records.get(second))).eta_s
        await relay.run(await relay.claim())
        place = await relay.queue.positions.place(await relay.records.get(second))

        assert first != second
        assert place.eta_s is not None
        assert place.eta_s > 0


async def test_the_same_id_twice_is_one_job(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for _ in range(2):
            record, place = await relay.queue.enqueue(chat(), queue=QUEUE, job_id="a" * 32)

        assert place.position == 1
        assert (await relay.queue.positions.views([]))[0].depth == 1
        assert record.created_at == (await relay.records.get("a" * 32)).created_at


async def test_a_record_has_its_times_by_the_clock_of_redis(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue(deadline_s=50)
        await relay.run(await relay.claim())
        record = await relay.records.get(job)
        seconds, _ = await relay.connection.command("TIME")

        assert record.started_at is not None
        assert record.ended_at is not None
        assert record.deadline_at == pytest.approx(record.created_at + 50)
        assert seconds - 10 < record.created_at < record.started_at < record.ended_at


async def test_a_full_queue_refuses_and_keeps_nothing(redis_url: str) -> None:
    # ollama #7758: a limit on the queue without effect.
    async with relay_on(redis_url, queue_limit=2) as relay:
        for _ in range(2):
            await relay.enqueue()
        with pytest.raises(QueueFull, match="holds 2 jobs") as caught:
            await relay.enqueue()

        assert caught.value.retry_after_s
        assert len((await relay.records.page()).jobs) == 2


async def test_a_queued_job_can_be_cancelled_and_again(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        first = await relay.queue.cancel(job, by="caller", reason="changed my mind")
        again = await relay.queue.cancel(job, by="another client")

        assert first.status == "cancelled"
        assert first == again
        assert None is await relay.start_next(QUEUE, "w1")
        assert [frame.type for frame in await relay.frames(job)] == ["queued", "cancelled"]


async def test_a_finished_job_stays_finished_when_cancelled(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.run(await relay.claim())

        assert (await relay.queue.cancel(job, by="caller")).status == "done"


async def test_an_unknown_job_cannot_be_cancelled(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        with pytest.raises(JobNotFound):
            await relay.queue.cancel("f" * 32, by="caller")


async def test_the_worker_of_a_cancelled_job_is_notified(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        await relay.claim("w7")
        async with relay.subscriber.subscribe("fleet:worker:w7:orders") as subscription:
            subscription.catch_up()
            await relay.queue.cancel(job, by="caller")
            await subscription.wait(5)

            assert [job.encode()] == list(subscription.messages)


async def test_jobs_are_listed_newest_first_a_page_at_a_time(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        jobs = [await relay.enqueue() for _ in range(5)]
        await relay.queue.cancel(jobs[1], by="caller")
        first = await relay.records.page(limit=2)
        second = await relay.records.page(limit=9, before=first.next)

        assert jobs[::-1] == [record.id for record in first.jobs + second.jobs]
        assert [jobs[1]] == [r.id for r in (await relay.records.page(status="cancelled")).jobs]


async def test_every_key_of_an_ended_job_expires(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        await relay.run(await relay.claim())
        await relay.queue.cancel(await relay.enqueue(), by="caller")
        keys = await relay.connection.command("KEYS", "*")
        lasting = {key.decode() for key in keys if await relay.connection.command("TTL", key) < 0}

        # The tickets are Celery's queue; the maintainer deletes the other two (ARCHITECTURE.md).
        assert {QUEUE, "fleet:queues", "fleet:recent", "fleet:unsettled"} == lasting


async def test_there_are_never_more_tickets_than_jobs(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for _ in range(3):
            await relay.enqueue()
        while await relay.start_next(QUEUE, "w1"):
            pass
        await relay.enqueue()

        assert await relay.connection.command("LLEN", QUEUE) == 3


async def test_a_ticket_is_what_apply_async_would_send(redis_url: str) -> None:
    app = Celery(broker=redis_url, set_as_current=False)
    await asyncio.to_thread(
        app.send_task, TICKET_TASK, kwargs={"queue": QUEUE}, queue=QUEUE, ignore_result=True
    )
    # Closed pools are forgotten, too: they are the process's, by URL, and its next producer's.
    pools.reset()
    async with relay_on(redis_url) as relay:
        theirs = json.loads(await relay.connection.command("RPOP", QUEUE))
    ours = json.loads(ticket(QUEUE))
    for message in (ours, theirs):
        message["body"] = json.loads(base64.b64decode(message["body"]))
        message["headers"].update(id="", root_id="", origin="")
        message["properties"].update(correlation_id="", delivery_tag="", reply_to="")

    assert theirs == ours


async def test_the_estimate_at_enqueue_is_that_of_a_later_request(redis_url: str) -> None:
    # On another shim: each reads the rate of a queue once a second.
    async with relay_on(redis_url) as relay, relay_on(redis_url) as shim:
        for _ in range(3):
            await relay.enqueue()
            await relay.run(await relay.claim())
        record, place = await shim.queue.enqueue(chat(), queue=QUEUE)
        later = await relay.queue.positions.place(record)

        assert place.eta_s is not None
        assert place.eta_s == pytest.approx(later.eta_s, abs=0.2)
