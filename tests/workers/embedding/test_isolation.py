"""Failed requests of packed jobs, cancelled jobs, and backends that must not be packed."""

import asyncio
import re

import pytest
from support.packing import Stage, close, packing

from contract.errors import (
    BackendBusy,
    BackendError,
    BackendUnreachable,
    BadAnswer,
    ContextExceeded,
    ModelMissing,
    ServerFault,
)
from workers.embedding.packing_check import BATCHES

WORDS = [f"text number {number}" for number in range(64)]


def failing(fail: str, more: str = "") -> str:
    """A model with this fault for every request with the word `bad`."""
    return f"scripted-embed:dim=16,first=0.05,poison=bad,fail={fail}{more}"


async def answers(stage: Stage, model: str, texts: list[str]) -> list[object]:
    """Run one job per text; the first is sent alone before the others are queued."""
    await stage.trusted(model)
    return await stage.jobs(["first", *texts], model)


def errors(found: list[object]) -> dict[int, type]:
    return {at: type(each) for at, each in enumerate(found) if isinstance(each, BaseException)}


async def test_a_text_that_the_server_refuses_fails_alone() -> None:
    # One bad text must not fail the others: openrag #465, pinchy #840.
    async with packing(max_requests=1) as stage:
        texts = [*WORDS[:40], "bad", *WORDS[40:62]]
        found = await answers(stage, failing("context"), texts)

        assert errors(found) == {41: ContextExceeded}
        assert len(stage.sizes) <= 2 + 2 * 6


async def test_a_text_that_breaks_the_server_fails_alone_and_is_retryable() -> None:
    async with packing(max_requests=1) as stage:
        found = await answers(stage, failing("crash"), [*WORDS[:20], "bad"])

        assert errors(found) == {21: ServerFault}
        assert found[21].retryable  # type: ignore[attr-defined]


async def test_only_the_two_bad_texts_fail() -> None:
    async with packing(max_requests=1) as stage:
        found = await answers(stage, failing("context"), ["bad 1", *WORDS[:30], "bad 2"])

        assert errors(found) == {1: ContextExceeded, 32: ContextExceeded}


async def test_a_text_that_broke_a_request_is_sent_alone_the_next_time() -> None:
    async with packing(max_requests=1) as stage:
        model = failing("crash")
        await answers(stage, model, ["bad", *WORDS[:20]])
        stage.server.seen.texts.clear()
        found = await stage.jobs(["first", "bad", *WORDS[:20]], model)

        assert errors(found) == {1: ServerFault}
        assert sorted(stage.sizes) == [1, 1, 20]


async def test_a_text_that_succeeds_is_no_longer_a_suspect() -> None:
    async with packing(max_requests=1) as stage:
        model = failing("crash", ",times=5")
        await answers(stage, model, ["bad", *WORDS[:20]])
        await stage.jobs(["first", "bad", *WORDS[:20]], model)
        stage.server.seen.texts.clear()
        found = await stage.jobs(["first", "bad", *WORDS[:20]], model)

        assert errors(found) == {}
        assert stage.sizes == [1, 21]


async def test_a_broken_server_does_not_get_a_request_per_text() -> None:
    async with packing(max_requests=1) as stage:
        found = await answers(stage, failing("crash"), [f"bad {number}" for number in range(63)])

        assert errors(found) == dict.fromkeys(range(1, 64), ServerFault)
        assert len(stage.sizes) <= 1 + 1 + 2 + 4


@pytest.mark.parametrize(
    ("fail", "error"),
    [("busy", BackendBusy), ("missing", ModelMissing), ("drop", BackendUnreachable)],
)
async def test_an_error_that_no_text_can_cause_fails_all_jobs_at_once(
    fail: str, error: type[BackendError]
) -> None:
    async with packing(max_requests=1) as stage:
        found = await answers(stage, failing(fail), ["bad", *WORDS[:9]])

        assert errors(found) == dict.fromkeys(range(1, 11), error)
        assert set(stage.sizes) == {1, 10}  # a dropped connection is retried


async def test_a_failed_request_of_many_jobs_counts_as_one_failure() -> None:
    async with packing(max_requests=1) as stage:
        found = await answers(stage, failing("busy"), ["bad", *WORDS[:9]])
        echoes = [each.is_echo for each in found if isinstance(each, BackendError)]

        assert sorted(echoes) == [False] + [True] * 9


async def test_the_error_of_a_job_with_many_texts_names_the_bad_one() -> None:
    async with packing() as stage:
        with pytest.raises(ContextExceeded, match=re.escape("input[37]: ")):
            await stage.job(*WORDS[:37], "bad", *WORDS[37:], model=failing("context"))

        assert len(stage.sizes) <= 1 + 6


async def test_the_error_of_a_job_that_breaks_the_server_names_the_text() -> None:
    async with packing() as stage:
        model = failing("crash")
        with pytest.raises(ServerFault, match=re.escape("input[37]: ")) as caught:
            await stage.job(*WORDS[:37], "bad", *WORDS[37:63], model=model)
        sizes = list(stage.sizes)
        stage.server.seen.texts.clear()
        with pytest.raises(ServerFault, match=re.escape("input[37]: ")):
            await stage.job(*WORDS[:37], "bad", *WORDS[37:63], model=model)

        assert caught.value.retryable
        assert len(sizes) <= 1 + 2 * 6
        assert len(stage.sizes) <= 3  # the text is a suspect and is sent alone


async def test_a_job_of_many_texts_survives_one_failure_of_the_server() -> None:
    async with packing() as stage:
        found = await stage.job(*WORDS[:20], "bad", model=failing("crash", ",times=1"))

        assert len(found.rows) == 21
        assert stage.sizes == [21, 10, 11]


async def test_a_broken_server_gets_seven_requests_for_a_job_of_many_texts() -> None:
    async with packing() as stage:
        with pytest.raises(ServerFault, match=r"^(?!input\[)"):
            await stage.job(*(f"bad {number}" for number in range(64)), model=failing("crash"))

        assert stage.sizes == [64, 32, 32, 16, 16, 16, 16]


async def test_too_few_vectors_are_an_error() -> None:
    async with packing() as stage:
        with pytest.raises(BadAnswer, match=r"vectors for [12] texts"):
            await stage.job("a", "b", model="scripted-embed:wire=short")


async def test_a_cancelled_job_is_removed_and_the_others_get_their_vectors() -> None:
    async with packing(max_requests=1) as stage:
        model = "scripted-embed:dim=16,first=0.1"
        await stage.trusted(model)
        first = asyncio.create_task(stage.job("first", model=model))
        await asyncio.sleep(0)
        kept = asyncio.create_task(stage.job("kept", model=model))
        cancelled = asyncio.create_task(stage.job("cancelled", model=model))
        await first
        await stage.server.seen.until(lambda seen: seen.open == 1 and len(seen.texts) == 2)
        cancelled.cancel()
        answer = await kept

        assert close(answer.rows[0], "kept")
        assert stage.sizes == [1, 2]
        assert stage.server.seen.aborted == 0


async def test_the_text_of_a_cancelled_job_is_not_sent() -> None:
    async with packing(max_requests=1) as stage:
        model = "scripted-embed:dim=16,first=0.1"
        await stage.trusted(model)
        work = [asyncio.create_task(stage.job(text, model=model)) for text in ("first", "a", "b")]
        await stage.server.seen.until(lambda seen: len(seen.texts) == 1)
        work[1].cancel()
        await asyncio.wait(work)

        assert stage.sizes == [1, 1]


async def test_a_request_is_closed_when_its_last_job_is_cancelled() -> None:
    async with packing(max_requests=1) as stage:
        model = "scripted-embed:dim=16,first=30"
        work = [asyncio.create_task(stage.job("same", model=model)) for _ in range(2)]
        await stage.server.seen.until(lambda seen: seen.open == 1)
        work[0].cancel()
        await asyncio.wait(work[:1])
        assert stage.server.seen.open == 1
        work[1].cancel()
        await stage.server.seen.until(lambda seen: seen.aborted == 1)

        assert stage.server.seen.open == 0


async def test_a_text_whose_request_was_closed_is_sent_again() -> None:
    async with packing(max_requests=1) as stage:
        model = "scripted-embed:dim=16,first=0.2"
        cancelled = asyncio.create_task(stage.job("same", model=model))
        await stage.server.seen.until(lambda seen: seen.open == 1)
        cancelled.cancel()
        await asyncio.sleep(0)
        answer = await stage.job("same", model=model)

        assert close(answer.rows[0], "same")
        assert stage.sizes == [1, 1]


async def test_closing_a_packer_fails_the_waiting_jobs() -> None:
    async with packing(max_requests=1) as stage:
        model = "scripted-embed:first=30"
        work = [asyncio.create_task(stage.job(text, model=model)) for text in ("out", "waits")]
        await stage.server.seen.until(lambda seen: seen.open == 1)
        await stage.packer.aclose()
        late = asyncio.create_task(stage.job("late", model=model))
        ends = await asyncio.gather(*work, late, return_exceptions=True)

        assert [type(end) for end in ends] == [BackendUnreachable] * 3
        assert stage.sizes == [1]


async def test_before_the_check_no_two_jobs_share_a_request() -> None:
    async with packing(max_requests=8) as stage:
        await stage.jobs(WORDS[:30])
        checks = {size for size in stage.sizes if size > 1}

        assert checks <= {len(batch) for batch in BATCHES}


async def test_a_model_whose_vectors_change_in_a_batch_is_never_packed() -> None:
    # Parallel embeds changed the vectors: ollama #6262.
    async with packing("ollama", max_requests=1) as stage:
        model = "scripted-embed:dim=16,wire=company,first=0.02"
        await stage.trusted(model)
        found = await stage.jobs(WORDS[:8], model)

        assert stage.packer.packs(model) is False
        assert stage.sizes == [1] * 8
        assert all(close(a.rows[0], text) for a, text in zip(found, WORDS, strict=False))


async def test_after_a_failed_check_packing_stays_undecided() -> None:
    async with packing(max_requests=1) as stage:
        # The texts of the check contain the word, those of the jobs do not.
        model = "scripted-embed:dim=16,first=0.02,poison=queue,fail=busy"
        for _ in range(3):
            found = await stage.jobs(WORDS[:5], model)

        assert stage.packer.packs(model) is None
        assert errors(found) == {}


async def test_a_single_caller_triggers_no_check() -> None:
    async with packing() as stage:
        for text in WORDS[:10]:
            await stage.job(text)

        assert stage.sizes == [1] * 10
        assert stage.packer.packs("scripted-embed:dim=16") is None
