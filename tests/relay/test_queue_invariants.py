"""The books of a queue: a job is in one place, and what is counted is what is there."""

import asyncio
import json
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from contract.tenants import Tenant
from relay.order import ClaimFilter

Step = tuple[str, int]
steps = some.lists(
    some.tuples(
        some.sampled_from(["put", "claim", "end", "back", "later", "cancel", "wake", "reap"]),
        some.integers(0, 5),
    ),
    max_size=60,
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps)
def test_a_job_is_in_one_place_and_claimed_once(redis_url: str, steps: list[Step]) -> None:
    async def story() -> None:
        async with relay_on(redis_url) as relay:
            await relay.connection.command("FLUSHDB")
            held: dict[str, int] = {}
            for step, number in steps:
                await _step(relay, held, step, number)
                await _check_books(relay, held)

    asyncio.run(story())


async def _step(  # noqa: C901 - one flat case per step
    relay: Relay, held: dict[str, int], step: str, number: int
) -> None:
    tenant = Tenant(name="abc"[number % 3])
    mine = sorted(held)[number] if number < len(held) else None
    match step:
        case "put":
            request = chat(priority=["standard", "batch"][number % 2])
            await relay.queue.enqueue(request, queue=QUEUE, tenant=tenant)
        case "claim":
            claim = await relay.start_next(QUEUE, "w", ClaimFilter(batch=bool(number % 4)))
            if claim is not None:
                assert claim.record.id not in held
                held[claim.record.id] = claim.attempt
        case "end" if mine:
            await relay.leases.release(QUEUE, mine, None)
            del held[mine]
        case "back" | "later" if mine:
            delay_s = 0.001 if step == "later" else 0.0
            for _ in range(2):
                await relay.leases.hand_over(
                    QUEUE, mine, held[mine], reason="test", counts=False, delay_s=delay_s
                )
            del held[mine]
        case "cancel" if mine:
            await relay.queue.cancel(mine, by="test")
            del held[mine]
        case "wake":
            await relay.queue.wake(QUEUE)
        case "reap":
            await relay.leases.reap()


async def _check_books(relay: Relay, held: dict[str, int]) -> None:
    async def members(key: str) -> set[str]:
        return {id.decode() for id in await relay.connection.command("ZRANGE", key, 0, -1)}

    backlog, delayed, leases = [
        await members(key(QUEUE))
        for key in (redis_keys.backlog, redis_keys.delayed, redis_keys.leases)
    ]
    facts = await relay.connection.command("HGETALL", redis_keys.facts(QUEUE))
    known = {id.decode(): json.loads(text) for id, text in facts.items()}
    load = await relay.connection.command("HGETALL", redis_keys.load(QUEUE))
    counted = _counted([known[id] for id in backlog])
    later = await relay.connection.command("HGETALL", redis_keys.scheduled(QUEUE))
    counted_later = _counted([known[id] for id in delayed])

    assert len(backlog) + len(delayed) + len(leases) == len(known)
    assert backlog | delayed | leases == set(known)
    assert leases == set(held)
    assert await members(redis_keys.urgent(QUEUE)) == {
        i for i in backlog if "batch" not in known[i]
    }
    assert await members(redis_keys.line(QUEUE, "m")) == backlog
    assert {k: int(load.get(k.encode(), 0)) for k in counted} == dict(counted)
    assert {k: int(later.get(k.encode(), 0)) for k in counted_later} == dict(counted_later)


def _counted(jobs: list[dict[str, Any]]) -> Counter[str]:
    """What a queue counts of these jobs, by their facts."""
    counted = Counter(f"jobs {job['tenant']}" for job in jobs)
    for job in jobs:
        for what in ("tokens", "bytes"):
            counted.update({what: job[what], f"{what} {job['tenant']}": job[what]})
    return counted
