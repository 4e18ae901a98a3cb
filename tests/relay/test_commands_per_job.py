"""The commands that a job costs Redis are counted, so that no change makes it dearer unnoticed.

Subjects: relay/queue.py, relay/publisher.py, relay/leases.py.
"""

from typing import Any

from support.relay import QUEUE, Relay, chat, relay_on, words

from relay.publisher import AttemptLog

CHUNKS = 16
SCRIPTS_A_JOB = 8
COMMANDS_A_JOB = 95
COMMANDS_A_CHUNK = 5.1
"""Those inside scripts included, of a chunk that is written alone."""
COMMANDS_A_CHUNK_OF_MANY = 0.1
"""Of a chunk that is written with others of its job: they are one entry and one message."""


async def calls(relay: Relay) -> dict[str, int]:
    stats: dict[str, Any] = await relay.connection.command("INFO", "commandstats")
    return {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()}


async def run_jobs(relay: Relay, count: int, chunks: int) -> None:
    for _ in range(count):
        await relay.queue.enqueue(chat(), queue=QUEUE)
        claim = await relay.start_next(QUEUE, "w1")
        assert claim is not None
        await relay.run(claim, *words(chunks))


async def cost_of(relay: Relay, count: int, chunks: int) -> tuple[float, float]:
    """Scripts and commands a job."""
    await run_jobs(relay, 1, chunks)  # loads the scripts
    before = await calls(relay)
    await run_jobs(relay, count, chunks)
    after = await calls(relay)
    grown = {name: after[name] - before.get(name, 0) for name in after if name != "info"}
    scripts = grown.get("evalsha", 0) + grown.get("eval", 0)
    return scripts / count, (sum(grown.values()) - scripts) / count


async def test_a_job_costs_redis_no_more_than_its_bounds(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        scripts, commands = await cost_of(relay, 20, CHUNKS)

    assert scripts <= SCRIPTS_A_JOB
    assert commands <= COMMANDS_A_JOB


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
