"""Failures that users of other systems reported do not happen in the relay; each test names one.

Subjects: relay/queue.py, relay/leases.py, relay/log.py.
"""

import asyncio

from support.relay import QUEUE, chat, relay_on, words

from contract import redis_keys
from contract.errors import QueueFull
from contract.events import Done


async def test_a_follower_that_subscribes_at_any_moment_misses_no_event(redis_url: str) -> None:
    # scale-agentex #330, PostHog #59109: the cursor was taken after "connected" had been said.
    async with relay_on(redis_url) as relay, relay_on(redis_url) as other:
        job = await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        followers = []
        for word in words(120):
            attempt_log.append(word)
            followers.append(asyncio.create_task(other.frames(job)))
            await attempt_log.flush()
        attempt_log.append(Done())
        views = await asyncio.gather(*followers)

        assert len(views[0]) == 123
        assert [views[0]] * 120 == views


async def test_a_log_is_there_while_its_job_lives_and_for_a_day_after(redis_url: str) -> None:
    # openai-python #2828: resume is refused after five minutes.
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue()
        claim = await relay.claim()
        while_it_runs_s = await relay.connection.command("TTL", redis_keys.log(job))
        await relay.run(claim)
        after_its_end_s = await relay.connection.command("TTL", redis_keys.log(job))

        assert while_it_runs_s == -1
        assert 86_390 < after_its_end_s <= 86_400


async def test_a_limit_holds_against_many_who_come_at_once(redis_url: str) -> None:
    # ollama #7758: a limit on the queue that let more in.
    async with (
        relay_on(redis_url, queue_limit=10) as here,
        relay_on(redis_url, queue_limit=10) as there,
    ):
        at_once = [at.queue.enqueue(chat(), queue=QUEUE) for at in (here, there) for _ in range(30)]
        answers = await asyncio.gather(*at_once, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, QueueFull)]

        assert len(refused) == 50
        assert (await here.queue.positions.views([]))[0].depth == 10


async def test_concurrent_enqueues_from_many_clients_lose_no_job(redis_url: str) -> None:
    # litellm scheduler.py: the queue is one list that all replicas read, change and write back.
    async with relay_on(redis_url) as here, relay_on(redis_url) as there:
        at_once = [at.queue.enqueue(chat(), queue=QUEUE) for at in (here, there) for _ in range(40)]
        jobs = {record.id for record, _ in await asyncio.gather(*at_once)}
        claims = [await at.start_next(QUEUE, "w") for at in (here, there) for _ in range(40)]

        assert jobs == {claim.record.id for claim in claims if claim}
        assert await there.start_next(QUEUE, "w") is None
