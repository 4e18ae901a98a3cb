"""Packing: which texts share a request, when it is sent, and which job receives which vectors."""

import asyncio
from contextlib import aclosing
from time import monotonic

import pytest
from support.packing import MODEL, SLOW, close, packing, request

from contract.embeddings import EmbedRequest
from contract.events import Done, Vectors

WORDS = [f"text number {number}" for number in range(100)]


async def test_a_single_job_is_sent_at_once_as_one_request() -> None:
    async with packing(wait_s=30) as stage:
        began = monotonic()
        answer = await stage.job("a", "b", "c")

        assert stage.sizes == [3]
        assert [close(row, text) for row, text in zip(answer.rows, "abc", strict=True)] == [
            True
        ] * 3
        assert monotonic() - began < 10


@pytest.mark.parametrize("type", ["llamacpp", "ollama", "openai", "vllm", "generic"])
async def test_texts_of_many_jobs_share_requests(type: str) -> None:
    # One round trip per text: anything-llm #4529, open-webui #3965.
    async with packing(type, max_requests=1) as stage:
        await stage.trusted(SLOW)
        answers = await stage.jobs(WORDS[:60], SLOW)

        assert stage.sizes == [1, 59]
        assert all(close(a.rows[0], text) for a, text in zip(answers, WORDS, strict=False))


async def test_the_same_text_is_computed_once() -> None:
    async with packing(max_requests=1) as stage:
        await stage.trusted(SLOW)
        answers = await stage.jobs(["first", *["same"] * 20, "other"], SLOW)

        assert stage.sizes == [1, 2]
        assert all(close(answer.rows[0], "same") for answer in answers[1:21])


async def test_a_text_shares_the_open_request_of_the_same_text() -> None:
    async with packing() as stage:
        await stage.trusted(SLOW)
        await stage.jobs(["same", "same"], SLOW)

        assert stage.sizes == [1]


async def test_repeated_texts_of_one_job_are_computed_once_and_returned_in_place() -> None:
    async with packing() as stage:
        answer = await stage.job("a", "b", "a", "a")

        assert stage.sizes == [2]
        assert [close(row, t) for row, t in zip(answer.rows, "abaa", strict=True)] == [True] * 4


async def test_texts_with_different_options_do_not_share_requests() -> None:
    async with packing("vllm", max_requests=1) as stage:
        await stage.trusted(SLOW)
        await asyncio.gather(
            stage.job("first", model=SLOW),
            stage.job("a", model=SLOW),
            stage.job("b", model=SLOW, dimensions=8),
            stage.job("c", model=SLOW, truncate=False),
        )

        assert stage.sizes == [1, 1, 1, 1]


async def test_texts_gather_while_the_backend_is_busy() -> None:
    async with packing(max_requests=1, wait_s=0.0) as stage:
        await stage.trusted(SLOW)
        await stage.jobs(WORDS[:10], SLOW)

        assert stage.sizes == [1, 9]


async def test_while_one_request_is_open_a_text_waits_briefly_for_others() -> None:
    async with packing(max_requests=2, wait_s=0.02) as stage:
        await stage.trusted(SLOW)
        await stage.jobs(WORDS[:10], SLOW)

        assert stage.sizes == [1, 9]


async def test_open_requests_are_limited() -> None:
    async with packing(texts=4, max_requests=3) as stage:
        await stage.trusted(SLOW)
        work = asyncio.create_task(stage.jobs(WORDS[:60], SLOW))
        most = 0
        while not work.done():
            most = max(most, stage.server.seen.open)
            await asyncio.sleep(0.005)

        assert most == 3
        assert sum(stage.sizes) == 60


async def test_a_big_job_is_split_into_requests_and_its_vectors_are_in_order() -> None:
    # One huge request fails as a whole (openrag #465).
    count = 2048
    texts = [f"t{number}" for number in range(count)]
    async with packing("vllm", texts=256) as stage:
        answer = await stage.job(*texts)

        assert max(stage.sizes) == 256
        assert sum(stage.sizes) == count
        assert [block.index for block in answer.blocks] == sorted(b.index for b in answer.blocks)
        assert all(close(row, text) for row, text in zip(answer.rows, texts, strict=True))


async def test_rows_of_a_big_job_are_yielded_before_its_last_request_is_sent() -> None:
    async with packing(texts=10, max_requests=1) as stage:
        async with aclosing(stage.packer.embed(request(*WORDS, model=SLOW))) as events:
            first = await anext(events)

        assert isinstance(first, Vectors)
        assert (first.index, first.count) == (0, 10)
        assert len(stage.sizes) < 4


async def test_a_small_job_does_not_wait_for_all_of_a_big_one() -> None:
    async with packing(texts=10, max_requests=1) as stage:
        await stage.trusted(SLOW)
        big = asyncio.create_task(stage.job(*[f"b{n}" for n in range(300)], model=SLOW))
        while len(stage.sizes) < 2:
            await asyncio.sleep(0.005)
        await stage.job("small", model=SLOW)

        assert len(stage.sizes) <= 4
        assert not big.done()
        big.cancel()


async def test_the_usage_of_a_request_is_divided_by_length() -> None:
    async with packing(max_requests=1) as stage:
        await stage.trusted(SLOW)
        texts = ["first", "short", "a much longer text of nine words in all", "mid size one"]
        answers = await stage.jobs(texts, SLOW)
        spent = [answer.done.usage.prompt_tokens for answer in answers]

        assert spent[0] == 1
        assert sum(spent[1:]) == 1 + 9 + 3
        assert spent[2] > spent[3] > 0


async def test_the_usage_of_a_single_job_is_the_reported_one() -> None:
    async with packing() as stage:
        answer = await stage.job("one two three", "four five")

        assert answer.done is not None
        assert answer.done.usage.prompt_tokens == 5


async def test_fields_that_the_backend_ignores_are_reported_to_every_job() -> None:
    async with packing("llamacpp") as stage:
        answer = await stage.job("a", keep_alive_s=5.0)

        assert answer.done is not None
        assert answer.done.ignored == ("keep_alive_s",)


async def test_token_ids_are_packed_separately() -> None:
    async with packing("vllm") as stage:
        ids = EmbedRequest(model=MODEL, tokens=((1, 2), (3,)))
        events = [event async for event in stage.packer.embed(ids)]

        assert isinstance(events[-1], Done)
        assert stage.sizes == [2]


async def test_a_full_packer_has_no_capacity_until_its_jobs_end() -> None:
    async with packing(texts=10, max_requests=1) as stage:
        assert stage.packer.has_capacity
        await stage.job(*WORDS, model=MODEL)

        assert stage.packer.has_capacity
        assert stage.capacities == [False, True]


async def test_many_small_jobs_leave_capacity_for_more() -> None:
    async with packing(texts=64, max_requests=1) as stage:
        await stage.jobs(WORDS[:64], SLOW)

        assert stage.capacities == []
