"""Model leases: one owner per model, which releases it, dies or is idle."""

import asyncio
from collections.abc import Callable

import pytest
from support.relay import Relay, relay_on

from contract import redis_keys
from relay.model_leases import ModelLeases

KEY = redis_keys.residence("llama", "tiny")


def worker(relay: Relay, name: str) -> ModelLeases:
    return ModelLeases(relay.connection, "llama", name)


def ignored() -> None:
    """An owner that keeps its model in use."""


async def claims(leases: ModelLeases, leave: Callable[[], None] = ignored) -> None:
    async with asyncio.timeout(10):
        await leases.claim("tiny", leave)


async def owner(relay: Relay) -> str | None:
    told = await relay.connection.command("HGET", KEY, "owner")
    return told.decode() if told else None


async def test_the_first_that_claims_has_the_model(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first = worker(relay, "w1")
        await claims(first)

        assert await owner(relay) == "w1"
        await first.release("tiny")
        assert await owner(relay) is None


async def test_another_waits_until_it_is_released(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first, second = worker(relay, "w1"), worker(relay, "w2")
        await claims(first)
        waiting = asyncio.create_task(claims(second))
        while not await relay.connection.command("HEXISTS", KEY, "wanted"):
            assert not waiting.done()
        await first.release("tiny")
        await waiting

        assert await owner(relay) == "w2"
        await second.release("tiny")


async def test_the_model_passes_to_the_waiting_worker_not_back_to_a_faster_one(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        first, second = worker(relay, "w1"), worker(relay, "w2")
        await claims(first)
        waiting = asyncio.create_task(claims(second))
        while not await relay.connection.command("HEXISTS", KEY, "wanted"):
            assert not waiting.done()
        await first.release("tiny")
        again = asyncio.create_task(claims(first))
        await waiting

        assert await owner(relay) == "w2"
        await second.release("tiny")
        await again
        await first.release("tiny")


async def test_another_model_can_be_claimed_meanwhile(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first, second = worker(relay, "w1"), worker(relay, "w2")
        await claims(first)
        await second.claim("other", ignored)

        assert await relay.connection.command(
            "HGET", redis_keys.residence("llama", "other"), "owner"
        )
        await first.release("tiny")
        await second.release("other")


async def test_the_owner_learns_that_another_worker_waits(redis_url: str) -> None:
    async with relay_on(redis_url, renew_s=0.05) as relay:
        first, second = worker(relay, "w1"), worker(relay, "w2")
        told = asyncio.Event()
        await claims(first, told.set)
        waiting = asyncio.create_task(claims(second))
        async with asyncio.timeout(5):
            await told.wait()
        await first.release("tiny")
        await waiting

        assert await owner(relay) == "w2"
        await second.release("tiny")


async def test_the_model_of_a_dead_worker_is_free_when_its_lease_expires(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.3, renew_s=60) as relay:
        await claims(worker(relay, "dead"))
        second = worker(relay, "w2")
        await claims(second)

        assert await owner(relay) == "w2"
        await second.release("tiny")


async def test_a_model_that_is_used_outlives_its_lease(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.3, renew_s=0.05) as relay:
        first = worker(relay, "w1")
        await claims(first)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await worker(relay, "w2").claim("tiny", ignored)

        assert await owner(relay) == "w1"
        await first.release("tiny")


async def test_the_lease_of_a_former_owner_is_not_released_by_it(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.2, renew_s=60) as relay:
        dead, second = worker(relay, "w1"), worker(relay, "w2")
        await claims(dead)
        await claims(second)
        await dead.release("tiny")

        assert await owner(relay) == "w2"
        await second.release("tiny")


async def test_a_former_owner_has_to_leave(redis_url: str) -> None:
    async with relay_on(redis_url, renew_s=0.05) as relay:
        first = worker(relay, "w1")
        told = asyncio.Event()
        await claims(first, told.set)
        await relay.connection.command("HSET", KEY, "owner", "w2")
        async with asyncio.timeout(5):
            await told.wait()
        await first.release("tiny")

        assert await owner(relay) == "w2"
        await relay.connection.command("DEL", KEY)


async def test_every_key_has_a_time_to_live(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first = worker(relay, "w1")
        await claims(first)

        assert await relay.connection.command("PTTL", KEY) > 0
        await first.release("tiny")


async def test_a_cancelled_release_raises_cancelled_error(redis_url: str) -> None:
    async with relay_on(redis_url, renew_s=60) as relay:
        first = worker(relay, "w1")
        await claims(first)
        releasing = asyncio.create_task(first.release("tiny"))
        await asyncio.sleep(0)  # it waits for the renewal to end
        releasing.cancel()
        await asyncio.wait({releasing})

        assert releasing.cancelled()
        assert await owner(relay) == "w1"
