"""Bytes of requests are counted and bounded wherever a job waits, and given back.

Subjects: relay/order.py, relay/queue.py, relay/claims.py, relay/leases.py.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from contract.errors import JobNotFound, QueueFull, ServerFault
from contract.jobs import JobRecord
from contract.tenants import DEFAULT_TENANT, Tenant

LARGE = "x" * 100_000
A, B = Tenant(name="a"), Tenant(name="b")


async def put(
    relay: Relay, text: str = LARGE, tenant: Tenant = DEFAULT_TENANT, **fields: Any
) -> JobRecord:
    record, _ = await relay.queue.enqueue(chat(text, **fields), queue=QUEUE, tenant=tenant)
    return record


async def counted(relay: Relay) -> int:
    """Bytes that the queue counts."""
    found = 0
    for key in (redis_keys.load(QUEUE), redis_keys.scheduled(QUEUE)):
        found += int(await relay.connection.command("HGET", key, "bytes") or 0)
    return found


async def test_every_byte_of_a_request_counts(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        metadata = {f"{number:064}": "é" * 512 for number in range(16)}
        record = await put(relay, "ä" * 50_000, metadata=metadata)
        key = redis_keys.record(record.id)
        kept = [
            await relay.connection.command("HGET", key, name) for name in ("request", "metadata")
        ]

        assert await counted(relay) == sum(map(len, kept)) > 100_000 + 16 * 1024


async def test_a_queue_takes_requests_up_to_its_bound_of_bytes(redis_url: str) -> None:
    async with relay_on(redis_url, queue_limit_bytes=250_000) as relay:
        for _ in range(2):
            await put(relay)
        with pytest.raises(QueueFull, match=r"bytes.*FLEET_QUEUE_LIMIT_BYTES") as refused:
            await put(relay)
        await put(relay, "small")

        assert (refused.value.facts["scope"], refused.value.facts["limit"]) == ("queue", 250_000)
        assert await relay.connection.command("ZCARD", redis_keys.RECENT) == 3


async def _cancelled(relay: Relay, record: JobRecord) -> None:
    await relay.queue.cancel(record.id, by="caller")


async def _ended(relay: Relay, _: JobRecord) -> None:
    await relay.run(await relay.claim())


async def _dead(relay: Relay, record: JobRecord) -> None:
    claim = await relay.claim()
    await relay.leases.hand_over(
        QUEUE, record.id, claim.attempt, reason="", counts=True, error=ServerFault("it broke")
    )


@pytest.mark.parametrize("end", [_cancelled, _ended, _dead])
async def test_bytes_are_given_back(
    redis_url: str, end: Callable[[Relay, JobRecord], Awaitable[None]]
) -> None:
    async with relay_on(redis_url, queue_limit_bytes=150_000) as relay:
        for _ in range(3):
            record = await put(relay, max_attempts=1)
            with pytest.raises(QueueFull):
                await put(relay)
            await end(relay, record)

            assert await counted(relay) == 0


@pytest.mark.parametrize("wait", ["not_before", "after"])
async def test_scheduled_and_blocked_jobs_count_with_those_that_wait(
    redis_url: str, wait: str
) -> None:
    async with relay_on(redis_url, queue_limit_bytes=250_000) as relay:
        parent = await put(relay, "first")
        when: Any = relay.connection.now() + 3600 if wait == "not_before" else (parent.id,)
        later = [await put(relay, **{wait: when}) for _ in range(2)]
        with pytest.raises(QueueFull):
            await put(relay, **{wait: when})
        with pytest.raises(QueueFull):
            await put(relay)
        await relay.queue.cancel(later[0].id, by="caller")
        await put(relay)

        await relay.queue.cancel(later[1].id, by="caller")
        assert 100_000 < await counted(relay) < 110_000


async def test_a_job_between_two_attempts_counts(redis_url: str) -> None:
    async with relay_on(redis_url, queue_limit_bytes=150_000) as relay:
        record = await put(relay)
        claim = await relay.claim()
        held = await counted(relay)
        for _ in range(2):  # a second call changes nothing
            await relay.leases.hand_over(
                QUEUE, record.id, claim.attempt, reason="", counts=True, delay_s=0.3,
                error=ServerFault("it broke"),
            )  # fmt: skip
        between = await counted(relay)
        with pytest.raises(QueueFull):
            await put(relay)
        await put(relay, "small")
        while not await relay.connection.command("ZSCORE", redis_keys.backlog(QUEUE), record.id):
            await relay.claims.wake(QUEUE)

        assert (held, between > 100_000) == (0, True)
        assert await relay.connection.command("EXISTS", redis_keys.scheduled(QUEUE)) == 0
        assert await counted(relay) > between


async def test_a_tenant_has_a_share_and_a_bound_of_its_own(redis_url: str) -> None:
    async with relay_on(
        redis_url, queue_limit_bytes=1_000_000, tenant_limit_bytes=350_000
    ) as relay:
        for _ in range(3):
            await put(relay, tenant=A)
        with pytest.raises(QueueFull, match="FLEET_TENANT_LIMIT_BYTES"):
            await put(relay, tenant=A)
        wide = A.model_copy(update={"limit_bytes": 450_000})
        await put(relay, tenant=wide)
        with pytest.raises(QueueFull, match="the bound of its key") as refused:
            await put(relay, tenant=wide)
        assert (refused.value.facts["scope"], refused.value.facts["limit"]) == ("tenant", 450_000)
    async with relay_on(redis_url, queue_limit_bytes=700_000) as relay:
        with pytest.raises(QueueFull, match=r"FLEET_TENANT_SHARE .* FLEET_QUEUE_LIMIT_BYTES"):
            await put(relay, tenant=A)
        await put(relay, tenant=B)


async def test_a_request_larger_than_the_bound_is_taken_where_nothing_is_kept(
    redis_url: str,
) -> None:
    async with relay_on(redis_url, queue_limit_bytes=50_000, tenant_limit_bytes=50_000) as relay:
        await put(relay, tenant=A)
        with pytest.raises(QueueFull):
            await put(relay, tenant=A)


async def test_a_job_of_an_older_version_counts_nothing(redis_url: str) -> None:
    async with relay_on(redis_url, queue_limit_bytes=150_000) as relay:
        record = await put(relay)
        claim = await relay.claim()
        text = await relay.connection.command("HGET", redis_keys.facts(QUEUE), record.id)
        facts = json.loads(text)
        del facts["bytes"]
        await relay.connection.command(
            "HSET", redis_keys.facts(QUEUE), record.id, json.dumps(facts)
        )
        await relay.leases.hand_over(QUEUE, record.id, claim.attempt, reason="", counts=False)

        assert await counted(relay) == 0
        await put(relay)


async def test_how_many_bytes_a_queue_keeps_is_told(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await put(relay)
        await put(relay, not_before=relay.connection.now() + 3600)
        (view,) = await relay.queue.positions.views([])

        assert view.kept_bytes == await counted(relay) > 200_000


async def test_a_large_request_of_a_job_that_was_never_started_is_not_kept(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        large, small, started = [await put(relay, each) for each in ("x" * 5_000, "small", LARGE)]
        await relay.queue.cancel(large.id, by="caller")
        await relay.queue.cancel(small.id, by="caller")
        assert (await relay.claim()).record.id == started.id
        await relay.queue.cancel(started.id, by="caller")

        with pytest.raises(JobNotFound, match="ended before it was started"):
            await relay.records.request(large.id)
        assert (await relay.records.get(large.id)).status == "cancelled"
        assert [frame.type for frame in await relay.frames(large.id)] == ["queued", "cancelled"]
        for kept in (small, started):
            assert (await relay.records.request(kept.id)).kind == "chat"
