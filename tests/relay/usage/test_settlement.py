"""What jobs use is in the ledger exactly once, however they end.

Subjects: relay/usage/settlement.py, relay/usage/job_meter.py, relay/usage/ended_job.py,
relay/usage/ledger.py, relay/usage/__init__.py.
"""

import asyncio
from datetime import UTC, date, datetime
from typing import Any

from support.relay import QUEUE, Relay, chat, relay_on, words

from contract import redis_keys
from contract.errors import WorkerLost
from contract.events import Delta, Done, Event, Resumed, Usage
from contract.tenants import Tenant
from contract.usage import ModelPrice, UsageCounts
from relay.scripts import jobs
from relay.usage.ledger import Ledger, UsageQuery
from relay.usage.settlement import Settlement

BEGAN = datetime.now(UTC).date()
COUNTED = Done(usage=Usage(prompt_tokens=7, completion_tokens=4, cached_tokens=2))


async def ledger(relay: Relay, *group_by: Any) -> dict[tuple[str, ...], UsageCounts]:
    await Settlement(relay.connection).settle(5)
    return await Ledger(relay.connection).read(
        UsageQuery(BEGAN, datetime.now(UTC).date(), group_by)
    )


async def total(relay: Relay) -> UsageCounts:
    return (await ledger(relay)).get((), UsageCounts())


async def finish(relay: Relay, *events: Event, **fields: Any) -> None:
    """Run the next job to the last of these events."""
    job = await relay.start_next(QUEUE, "w1")
    assert job is not None
    log = relay.attempt_log(job)
    for event in events:
        log.append(event)
    await log.flush()


async def test_the_tokens_that_the_backend_counts_are_in_the_ledger(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        await finish(relay, *words(3), COUNTED)
        found = await ledger(relay, "day", "tenant", "backend", "model", "kind")

    (((day, *names), counts),) = found.items()
    assert BEGAN <= date.fromisoformat(day) <= datetime.now(UTC).date()
    assert names == ["default", "scripted", "m", "chat"]
    assert counts._replace(backend_ms=0) == UsageCounts(
        requests=1, prompt_tokens=7, completion_tokens=4, cached_tokens=2
    )


async def test_a_stream_that_is_cancelled_counts_what_was_streamed(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job_id = await relay.enqueue("12345678")
        await finish(relay, *words(5))
        await relay.queue.cancel(job_id, by="caller")
        counts = await total(relay)

    assert counts._replace(backend_ms=0) == UsageCounts(
        requests=1, cancelled=1, estimated=1, prompt_tokens=3, completion_tokens=5
    )


async def test_a_job_that_never_began_uses_nothing(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.queue.cancel(await relay.enqueue(), by="caller")

        assert await total(relay) == UsageCounts()


async def test_every_attempt_counts_that_a_backend_answered(redis_url: str) -> None:
    """Also the first, whose worker died; its prompt has the tokens that the second reports."""
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        await finish(relay, *words(5))
        await relay.leases.release_worker("w1")
        await finish(relay, *words(2), COUNTED)
        counts = await total(relay)

    assert (counts.requests, counts.prompt_tokens, counts.completion_tokens) == (1, 14, 9)


async def test_an_answer_that_is_continued_counts_its_beginning_once(redis_url: str) -> None:
    """The beginning is sent back, so that the backend reads it as a part of the prompt."""
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        await finish(relay, *words(5))
        await relay.leases.release_worker("w1")
        whole = Done(usage=Usage(prompt_tokens=7, completion_tokens=9))
        await finish(relay, Resumed(attempt=2, reason=""), *words(4), whole)
        counts = await total(relay)

    assert (counts.prompt_tokens, counts.completion_tokens) == (7 + 7 + 5, 9)


async def test_a_job_that_its_workers_left_counts_when_it_fails(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job_id = await relay.enqueue()
        await finish(relay, Delta(thinking="hm "), *words(4))
        await relay.leases.end(QUEUE, job_id, WorkerLost("gone"), dead=True)
        counts = await total(relay)

    assert (counts.failed, counts.estimated, counts.completion_tokens) == (1, 1, 5)


async def test_settling_at_once_and_again_counts_each_job_once(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for _ in range(20):
            await relay.enqueue()
            await finish(relay, COUNTED)
        before = await relay.connection.command("XRANGE", redis_keys.UNSETTLED, "-", "+")
        await asyncio.gather(*(Settlement(relay.connection).settle(5) for _ in range(4)))
        # As if a maintainer had died before it trimmed the stream.
        for id, fields in before:
            await relay.connection.command(
                "XADD",
                f"{redis_keys.UNSETTLED}:copy",
                id,
                *(each for pair in fields.items() for each in pair),
            )
        await relay.connection.command(
            "RENAME", f"{redis_keys.UNSETTLED}:copy", redis_keys.UNSETTLED
        )
        counts = await total(relay)

    assert (counts.requests, counts.prompt_tokens) == (20, 140)


class Halted:
    """A connection whose next scripts wait until they are let go."""

    def __init__(self, relay: Relay) -> None:
        self._connection = relay.connection
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def call(self, call: Any) -> Any:
        self.reached.set()
        await self.go.wait()
        return await self._connection.call(call)


async def test_who_has_read_more_than_another_settled_loses_nothing(redis_url: str) -> None:
    """The second process has read both entries; the first, which read one, settles before it."""
    async with relay_on(redis_url) as relay, asyncio.timeout(20), asyncio.TaskGroup() as group:
        halts = Halted(relay), Halted(relay)
        settlements = []
        for halted in halts:
            await relay.enqueue()
            await finish(relay, COUNTED)
            settlements.append(group.create_task(Settlement(halted).settle(0)))
            await halted.reached.wait()
        for halted, task in zip(halts, settlements, strict=True):
            halted.go.set()
            await task
        counts = await total(relay)
        left = await relay.connection.command("XLEN", redis_keys.UNSETTLED)

    assert (counts.requests, counts.prompt_tokens, left) == (2, 14, 0)


async def test_what_cannot_be_read_stops_no_other(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.connection.command(
            "XADD", redis_keys.UNSETTLED, "*", "job", "a" * 32, "usage", "{"
        )
        await relay.enqueue()
        await finish(relay, COUNTED)
        counts = await total(relay)
        left = await relay.connection.command("XLEN", redis_keys.UNSETTLED)

    assert (counts.requests, left) == (1, 0)


async def test_models_beyond_the_bound_of_a_day_are_added_up(redis_url: str) -> None:
    async with relay_on(redis_url, usage_rows=2) as relay:
        for model in ("a", "b", "c", "d", "a"):
            request = chat().model_copy(update={"model": model})
            await relay.queue.enqueue(request, queue=QUEUE)
            await finish(relay, COUNTED)
            found = await ledger(relay, "model")

    assert {names[0]: counts.requests for names, counts in found.items()} == {
        "a": 2, "b": 1, "other": 2,
    }  # fmt: skip


async def test_a_price_is_that_of_the_time_of_the_enqueue(redis_url: str) -> None:
    price = ModelPrice(input=2, output=10, cached_input=1)
    async with relay_on(redis_url, prices={"scripted/*": price}) as relay:
        await relay.queue.enqueue(chat(), queue=QUEUE, tenant=Tenant(name="a"))
    async with relay_on(redis_url) as relay:
        await finish(relay, COUNTED)
        found = await ledger(relay, "tenant")

    # 5 tokens at 2, 2 cached at 1, 4 at 10, of a million each.
    assert found["a",].cost_nano == 52_000


async def test_a_job_that_is_deleted_at_once_counts_what_was_streamed(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job_id = await relay.enqueue()
        await finish(relay, *words(5))
        await relay.queue.cancel(job_id, by="caller")
        deleted = await relay.connection.call(jobs.forget([job_id], "default"))
        counts = await total(relay)
        ttl_s = await relay.connection.command("TTL", redis_keys.log(job_id))

    assert (deleted, counts.requests, counts.completion_tokens) == (1, 1, 5)
    assert 0 < ttl_s <= 60
