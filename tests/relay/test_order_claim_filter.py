"""What a claim passes over: jobs of models that rest, or that are loaded in another way."""

from collections.abc import Mapping
from typing import Any

import pytest
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from relay.order import ClaimFilter

PLAIN = "m"
LARGE = "m#ctx=8192"


async def put(relay: Relay, model: str, count: int = 1, **fields: Any) -> list[str]:
    request = chat(**fields).model_copy(update={"model": model})
    return [(await relay.queue.enqueue(request, queue=QUEUE))[0].id for _ in range(count)]


async def claimed(relay: Relay, **fields: Any) -> str | None:
    claim = await relay.start_next(QUEUE, "w", ClaimFilter(**fields))
    return None if claim is None else claim.record.id


def running(*loaded: str) -> Mapping[str, frozenset[str]]:
    return {"m": frozenset(loaded)}


@pytest.mark.parametrize("many", [1, 31, 32, 33, 500])
async def test_jobs_of_a_model_that_rests_are_passed_over_however_many_they_are(
    redis_url: str, many: int
) -> None:
    async with relay_on(redis_url) as relay:
        resting = await put(relay, "mx", many)
        others = [*await put(relay, "my"), *await put(relay, "mz"), *await put(relay, "my")]
        taken = [await claimed(relay, resting=frozenset({"mx"})) for _ in range(4)]

        assert taken == [*others, None]
        assert resting[0] == await claimed(relay)


async def test_a_model_rests_under_every_spelling(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await put(relay, "mx:latest", 40)
        await put(relay, "mx")

        assert None is await claimed(relay, resting=frozenset({"mx"}))


async def test_a_resting_head_leaves_the_classes_as_they_are(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await put(relay, "mx", 40)
        await put(relay, "my", priority="batch")
        (standard,) = await put(relay, "my")
        rest = frozenset({"mx"})

        assert standard == await claimed(relay, resting=rest, batch=False)
        assert None is await claimed(relay, resting=rest, batch=False)


async def test_warm_models_that_rest_are_not_taken_either(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        (cold,) = await put(relay, "my")
        await put(relay, "mx")
        warm = {"warm": frozenset({"mx"}), "resting": frozenset({"mx"})}

        assert cold == await claimed(relay, **warm)
        assert None is await claimed(relay, **warm)


async def test_of_a_model_that_failed_a_job_that_was_not_tried_yet_goes_first(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        (tried,) = await put(relay, "m")
        claim = await relay.claim()
        await relay.leases.hand_over(QUEUE, tried, claim.attempt, reason="failed", counts=True)
        (fresh,) = await put(relay, "m")

        assert [await claimed(relay, failing=frozenset({"m"})) for _ in range(2)] == [fresh, tried]


async def test_a_model_is_taken_only_as_it_is_loaded(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await put(relay, "m:latest")
        large = await put(relay, "m", 2, context_length=8192)
        (other,) = await put(relay, "n", context_length=1024)
        only = running(LARGE)

        assert [await claimed(relay, only=only) for _ in range(4)] == [*large, other, None]


async def test_where_a_model_is_loaded_one_way_only_the_order_is_the_queues(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        jobs = [*await put(relay, "m", context_length=8192), *await put(relay, "m")]
        warm = frozenset({"m"})

        assert [await claimed(relay, warm=warm, cold=False) for _ in range(2)] == jobs


async def test_to_affinity_another_context_length_is_another_model(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        (plain,) = await put(relay, "m")
        (large,) = await put(relay, "m", context_length=8192)
        fields: dict[str, Any] = {"warm": frozenset({LARGE}), "only": {}}

        assert [await claimed(relay, **fields) for _ in range(2)] == [large, plain]


async def test_what_waits_to_be_loaded_otherwise_is_overtaken_for_the_patience_only(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay, relay_on(redis_url, affinity_patience_s=0) as late:
        (first, *plain) = await put(relay, "m", 3)
        (large,) = await put(relay, "m", context_length=8192)
        later = await put(relay, "m", 2)
        begun = [await claimed(relay, only={})]
        begun += [await claimed(relay, only=running(PLAIN)) for _ in range(3)]
        kept_back = await claimed(late, only=running(PLAIN))
        turn = await claimed(relay, only={})

        assert begun == [first, *plain, later[0]]
        assert kept_back is None
        assert turn == large


async def test_what_other_workers_hold_keeps_its_context_length(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        (large,) = await put(relay, "m", context_length=8192)
        assert await claimed(relay, only={}, one_runner=True) == large
        (plain,) = await put(relay, "m")
        (more,) = await put(relay, "m", context_length=8192)
        (other,) = await put(relay, "n", context_length=1024)

        # Another worker, which runs nothing itself.
        begun = [await claimed(relay, only={}, one_runner=True) for _ in range(3)]
        assert begun == [more, other, None]
        for job in (large, more):
            await relay.leases.release(QUEUE, job, None)
        assert await claimed(relay, only={}, one_runner=True) == plain


async def test_a_context_length_that_other_workers_hold_back_gets_its_turn(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, relay_on(redis_url, affinity_patience_s=0) as late:
        (first,) = await put(relay, "m")
        assert await claimed(relay, only={}, one_runner=True) == first
        (large,) = await put(relay, "m", context_length=8192)
        (later,) = await put(relay, "m")

        assert await claimed(late, only={}, one_runner=True) is None
        await relay.leases.release(QUEUE, first, None)
        assert await claimed(late, only={}, one_runner=True) == large
        assert later


async def test_the_index_of_lines_holds_the_first_job_of_each_and_ends_with_them(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        for model in ("m", "n"):
            await put(relay, model, 2)
        told = await relay.connection.command(
            "ZRANGE", redis_keys.lines(QUEUE), 0, -1, "WITHSCORES"
        )
        heads = {
            model: await relay.connection.command(
                "ZRANGE", redis_keys.line(QUEUE, model), 0, 0, "WITHSCORES"
            )
            for model in ("m", "n")
        }
        while await claimed(relay):
            pass

        assert dict(zip(told[::2], told[1::2], strict=True)) == {
            model.encode(): head[1] for model, head in heads.items()
        }
        assert not await relay.connection.command("EXISTS", redis_keys.lines(QUEUE))
