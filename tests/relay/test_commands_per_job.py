"""The commands that a job costs Redis are counted, so that no change makes it dearer unnoticed.

Subjects: relay/queue.py, relay/claims.py, relay/publisher.py, relay/leases.py.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.redis_server import RedisServer
from support.relay import QUEUE, Relay, chat, relay_on, words

from contract import redis_keys
from contract.events import Done
from relay.claims import Claim, assigned
from relay.leases import Holder
from relay.order import ClaimFilter
from relay.publisher import AttemptLog
from relay.queue import Queue
from relay.scripts.queues import NO_JOB, EndedJob
from relay.scripts.turn_scripts import report

CHUNKS = 16
SCRIPTS_A_JOB = 6
COMMANDS_A_JOB = 80
SCRIPTS_AN_ASSIGNED_JOB = 5.2
"""Begin, enqueue, start, append, and one that releases and claims; one a trial for its end."""
COMMANDS_AN_ASSIGNED_JOB = 50
COMMANDS_A_TURN = 16
"""Those that an assigned job costs more if it is a message of a conversation; no script more."""
COMMANDS_A_CHUNK = 5.1
"""Those inside scripts included, of a chunk that is written alone."""
COMMANDS_A_CHUNK_OF_MANY = 0.1
"""Of a chunk that is written with others of its job: they are one entry and one message."""


Run = Callable[[Relay, int, int], Awaitable[None]]


@pytest.fixture
def redis_url(own_redis: RedisServer) -> str:
    """Not the session's: its shim may send it commands at any time, and these are counted."""
    return own_redis.url


async def calls(relay: Relay) -> dict[str, int]:
    stats: dict[str, Any] = await relay.connection.command("INFO", "commandstats")
    return {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()}


async def run_jobs(relay: Relay, count: int, chunks: int) -> None:
    for _ in range(count):
        await relay.queue.enqueue(chat(), queue=QUEUE)
        claim = await relay.start_next(QUEUE, "w1")
        assert claim is not None
        await relay.run(claim, *words(chunks))


async def run_assigned_jobs(
    relay: Relay, count: int, chunks: int, conversation: str | None = None
) -> None:
    """What a busy worker does whose jobs come one by one: ADR 38."""
    ended = NO_JOB
    here = frozenset({"address"})
    await relay.connection.call(report(QUEUE, "w1", 15, 15, {"address": True}))
    async with relay.subscriber.subscribe(redis_keys.wake_channel("w1")) as messages:
        messages.catch_up()
        for _ in range(count):
            free = ClaimFilter(here=here)
            assert await relay.claims.claim(QUEUE, "w1", free, idle_slots=9, ended=ended) is None
            await relay.queue.enqueue(chat(conversation=conversation), queue=QUEUE)
            await messages.wait(5)
            claim = assigned(messages.take()[0], "w1")
            assert isinstance(claim, Claim)
            job = await relay.claims.start(claim, home="address")
            assert job is not None
            attempt_log = relay.attempt_log(job)
            for event in (*words(chunks), Done()):
                attempt_log.append(event)
            await attempt_log.flush()
            ended = EndedJob(claim.job_id, str(Holder(claim.attempt, "w1")))
        await relay.claims.claim(QUEUE, "w1", ended=ended)


async def cost_of(
    relay: Relay, count: int, chunks: int, run: Run = run_jobs
) -> tuple[float, float]:
    """Scripts and commands a job."""
    await run(relay, 1, chunks)  # loads the scripts
    before = await calls(relay)
    await run(relay, count, chunks)
    after = await calls(relay)
    grown = {name: after[name] - before.get(name, 0) for name in after if name != "info"}
    scripts = grown.get("evalsha", 0) + grown.get("eval", 0)
    return scripts / count, (sum(grown.values()) - scripts) / count


async def test_a_job_costs_redis_no_more_than_its_bounds(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        scripts, commands = await cost_of(relay, 20, CHUNKS)

    assert scripts <= SCRIPTS_A_JOB
    assert commands <= COMMANDS_A_JOB


async def test_a_job_that_is_assigned_costs_five_scripts_at_most(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        scripts, commands = await cost_of(relay, 20, CHUNKS, run_assigned_jobs)

    assert scripts <= SCRIPTS_AN_ASSIGNED_JOB
    assert commands <= COMMANDS_AN_ASSIGNED_JOB


async def run_told_jobs(relay: Relay, count: int, chunks: int) -> None:
    relay.queue = Queue(relay.connection, lambda _: True)
    await run_jobs(relay, count, chunks)


async def test_a_job_of_a_tenant_with_webhooks_costs_two_commands_more(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        scripts, commands = await cost_of(relay, 20, CHUNKS)
        told, more = await cost_of(relay, 20, CHUNKS, run_told_jobs)

    assert told == scripts
    assert more - commands < 3  # lists of jobs are trimmed now and then


async def run_turns(relay: Relay, count: int, chunks: int) -> None:
    await run_assigned_jobs(relay, count, chunks, "a conversation")


async def test_a_message_of_a_conversation_costs_no_script_more(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        scripts, commands = await cost_of(relay, 20, CHUNKS, run_assigned_jobs)
        in_turn, more = await cost_of(relay, 20, CHUNKS, run_turns)

    assert in_turn == scripts
    assert more - commands <= COMMANDS_A_TURN


async def test_chunks_that_come_at_once_cost_as_much_as_one(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        _, few = await cost_of(relay, 5, 10)
        _, many = await cost_of(relay, 5, 210)

    assert (many - few) / 200 <= COMMANDS_A_CHUNK_OF_MANY


async def test_a_chunk_that_comes_alone_costs_five_commands(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        attempt_log = relay.attempt_log(await relay.claim())
        await append_one_by_one(attempt_log, 1)  # loads the script
        before = await calls(relay)
        await append_one_by_one(attempt_log, 50)
        after = await calls(relay)

    grown = {name: after[name] - before.get(name, 0) for name in after if name != "info"}
    assert sum(grown.values()) / 50 <= COMMANDS_A_CHUNK


async def append_one_by_one(attempt_log: AttemptLog, count: int) -> None:
    for word in words(count):
        attempt_log.append(word)
        await attempt_log.flush()


async def test_a_job_costs_the_same_beside_a_thousand_that_wait(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        _, alone = await cost_of(relay, 10, CHUNKS)
        for _ in range(1000):
            await relay.queue.enqueue(chat(priority="batch"), queue=QUEUE)
        _, beside = await cost_of(relay, 10, CHUNKS)

    assert beside <= 1.3 * alone
