"""The books of a queue: a job is in one place, and what is counted is what is there."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from support.queues import check_books
from support.relay import QUEUE, Relay, chat, relay_on

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
                await check_books(relay, held)

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
            await relay.claims.wake(QUEUE)
        case "reap":
            await relay.leases.reap()
