"""Who fails when a request does, and who does not; jobs that leave; backends that must not pack."""

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


def ill(fail: str, more: str = "") -> str:
    """A model that has this fault whenever the word `bad` is among the texts."""
    return f"scripted-embed:dim=16,first=0.05,poison=bad,fail={fail}{more}"


async def answers(stage: Stage, model: str, texts: list[str]) -> list[object]:
    """One job a text; the first is out alone before the others come."""
    await stage.trusted(model)
    return await stage.jobs(["first", *texts], model)


def errors(found: list[object]) -> dict[int, type]:
    return {at: type(each) for at, each in enumerate(found) if isinstance(each, BaseException)}


async def test_a_text_that_the_server_refuses_fails_alone() -> None:
    # One bad text must not fail the others: openrag #465, pinchy #840.
    async with packing(most=1) as stage:
        texts = [*WORDS[:40], "bad", *WORDS[40:62]]
        found = await answers(stage, ill("context"), texts)

        assert errors(found) == {41: ContextExceeded}
        assert len(stage.sizes) <= 2 + 2 * 6


async def test_a_text_that_breaks_the_server_fails_alone_and_may_be_tried_again() -> None:
    async with packing(most=1) as stage:
        found = await answers(stage, ill("crash"), [*WORDS[:20], "bad"])

        assert errors(found) == {21: ServerFault}
        assert found[21].retryable  # type: ignore[attr-defined]


async def test_two_bad_texts_fail_and_nobody_else() -> None:
    async with packing(most=1) as stage:
        found = await answers(stage, ill("context"), ["bad 1", *WORDS[:30], "bad 2"])

        assert errors(found) == {1: ContextExceeded, 32: ContextExceeded}


async def test_a_text_that_broke_a_request_goes_alone_the_next_time() -> None:
    async with packing(most=1) as stage:
        model = ill("crash")
        await answers(stage, model, ["bad", *WORDS[:20]])
        stage.server.seen.texts.clear()
        found = await stage.jobs(["first", "bad", *WORDS[:20]], model)

        assert errors(found) == {1: ServerFault}
        assert sorted(stage.sizes) == [1, 1, 20]


async def test_a_text_that_works_again_is_no_suspect_any_more() -> None:
    async with packing(most=1) as stage:
        model = ill("crash", ",times=5")
        await answers(stage, model, ["bad", *WORDS[:20]])
        await stage.jobs(["first", "bad", *WORDS[:20]], model)
        stage.server.seen.texts.clear()
        found = await stage.jobs(["first", "bad", *WORDS[:20]], model)

        assert errors(found) == {}
        assert stage.sizes == [1, 21]


async def test_a_broken_server_is_not_asked_once_a_text() -> None:
    async with packing(most=1) as stage:
        found = await answers(stage, ill("crash"), [f"bad {number}" for number in range(63)])

        assert errors(found) == dict.fromkeys(range(1, 64), ServerFault)
        assert len(stage.sizes) <= 1 + 1 + 2 + 4


@pytest.mark.parametrize(
    ("fail", "error"),
    [("busy", BackendBusy), ("missing", ModelMissing), ("drop", BackendUnreachable)],
)
async def test_what_no_text_can_cause_is_everybodys_at_once(
    fail: str, error: type[BackendError]
) -> None:
    async with packing(most=1) as stage:
        found = await answers(stage, ill(fail), ["bad", *WORDS[:9]])

        assert errors(found) == dict.fromkeys(range(1, 11), error)
        assert set(stage.sizes) == {1, 10}  # a connection that was dropped is tried again


async def test_a_request_that_failed_for_many_counts_as_one_failure() -> None:
    async with packing(most=1) as stage:
        found = await answers(stage, ill("busy"), ["bad", *WORDS[:9]])
        echoes = [each.is_echo for each in found if isinstance(each, BackendError)]

        assert sorted(echoes) == [False] + [True] * 9


async def test_a_job_of_many_texts_is_told_which_of_them_is_bad() -> None:
    async with packing() as stage:
        with pytest.raises(ContextExceeded, match=re.escape("input[37]: ")):
            await stage.job(*WORDS[:37], "bad", *WORDS[37:], model=ill("context"))

        assert len(stage.sizes) <= 1 + 6


async def test_a_job_of_many_texts_that_breaks_the_server_is_told_which_of_them_does() -> None:
    async with packing() as stage:
        model = ill("crash")
        with pytest.raises(ServerFault, match=re.escape("input[37]: ")) as caught:
            await stage.job(*WORDS[:37], "bad", *WORDS[37:63], model=model)
        asked = list(stage.sizes)
        stage.server.seen.texts.clear()
        with pytest.raises(ServerFault, match=re.escape("input[37]: ")):
            await stage.job(*WORDS[:37], "bad", *WORDS[37:63], model=model)

        assert caught.value.retryable
        assert len(asked) <= 1 + 2 * 6
        assert len(stage.sizes) <= 3  # what it is, is known: it goes alone


async def test_a_server_that_broke_once_costs_a_job_of_many_texts_nothing() -> None:
    async with packing() as stage:
        found = await stage.job(*WORDS[:20], "bad", model=ill("crash", ",times=1"))

        assert len(found.rows) == 21
        assert stage.sizes == [21, 10, 11]


async def test_a_broken_server_is_asked_seven_times_for_a_job_of_many_texts() -> None:
    async with packing() as stage:
        with pytest.raises(ServerFault, match=r"^(?!input\[)"):
            await stage.job(*(f"bad {number}" for number in range(64)), model=ill("crash"))

        assert stage.sizes == [64, 32, 32, 16, 16, 16, 16]


async def test_too_few_vectors_are_an_error() -> None:
    async with packing() as stage:
        with pytest.raises(BadAnswer, match=r"vectors for [12] texts"):
            await stage.job("a", "b", model="scripted-embed:wire=short")


async def test_a_job_that_is_cancelled_leaves_and_the_others_get_theirs() -> None:
    async with packing(most=1) as stage:
        model = "scripted-embed:dim=16,first=0.1"
        await stage.trusted(model)
        first = asyncio.create_task(stage.job("first", model=model))
        await asyncio.sleep(0)
        stays = asyncio.create_task(stage.job("stays", model=model))
        leaves = asyncio.create_task(stage.job("leaves", model=model))
        await first
        await stage.server.seen.until(lambda seen: seen.open == 1 and len(seen.texts) == 2)
        leaves.cancel()
        answer = await stays

        assert close(answer.rows[0], "stays")
        assert stage.sizes == [1, 2]
        assert stage.server.seen.aborted == 0


async def test_a_text_that_nobody_wants_any_more_is_not_sent() -> None:
    async with packing(most=1) as stage:
        model = "scripted-embed:dim=16,first=0.1"
        await stage.trusted(model)
        work = [asyncio.create_task(stage.job(text, model=model)) for text in ("first", "a", "b")]
        await stage.server.seen.until(lambda seen: len(seen.texts) == 1)
        work[1].cancel()
        await asyncio.wait(work)

        assert stage.sizes == [1, 1]


async def test_a_request_is_closed_when_the_last_who_wants_it_has_left() -> None:
    async with packing(most=1) as stage:
        model = "scripted-embed:dim=16,first=30"
        work = [asyncio.create_task(stage.job("same", model=model)) for _ in range(2)]
        await stage.server.seen.until(lambda seen: seen.open == 1)
        work[0].cancel()
        await asyncio.wait(work[:1])
        assert stage.server.seen.open == 1
        work[1].cancel()
        await stage.server.seen.until(lambda seen: seen.aborted == 1)

        assert stage.server.seen.open == 0


async def test_a_text_asked_for_after_its_request_was_closed_is_asked_again() -> None:
    async with packing(most=1) as stage:
        model = "scripted-embed:dim=16,first=0.2"
        gone = asyncio.create_task(stage.job("same", model=model))
        await stage.server.seen.until(lambda seen: seen.open == 1)
        gone.cancel()
        await asyncio.sleep(0)
        answer = await stage.job("same", model=model)

        assert close(answer.rows[0], "same")
        assert stage.sizes == [1, 1]


async def test_a_packer_that_is_closed_tells_those_who_wait() -> None:
    async with packing(most=1) as stage:
        model = "scripted-embed:first=30"
        work = [asyncio.create_task(stage.job(text, model=model)) for text in ("out", "waits")]
        await stage.server.seen.until(lambda seen: seen.open == 1)
        await stage.packer.aclose()
        late = asyncio.create_task(stage.job("late", model=model))
        ends = await asyncio.gather(*work, late, return_exceptions=True)

        assert [type(end) for end in ends] == [BackendUnreachable] * 3
        assert stage.sizes == [1]


async def test_before_the_check_no_two_jobs_share_a_request() -> None:
    async with packing(most=8) as stage:
        await stage.jobs(WORDS[:30])
        checks = {size for size in stage.sizes if size > 1}

        assert checks <= {len(crowd) for crowd in BATCHES}


async def test_vectors_that_company_changes_are_never_packed() -> None:
    # Parallel embeds changed the vectors: ollama #6262.
    async with packing("ollama", most=1) as stage:
        model = "scripted-embed:dim=16,wire=company,first=0.02"
        await stage.trusted(model)
        found = await stage.jobs(WORDS[:8], model)

        assert stage.packer.packs(model) is False
        assert stage.sizes == [1] * 8
        assert all(close(a.rows[0], text) for a, text in zip(found, WORDS, strict=False))


async def test_a_check_that_fails_leaves_it_open() -> None:
    async with packing(most=1) as stage:
        # The check's own texts hold the word; those of the jobs do not.
        model = "scripted-embed:dim=16,first=0.02,poison=queue,fail=busy"
        for _ in range(3):
            found = await stage.jobs(WORDS[:5], model)

        assert stage.packer.packs(model) is None
        assert errors(found) == {}


async def test_a_lone_caller_pays_for_no_check() -> None:
    async with packing() as stage:
        for text in WORDS[:10]:
            await stage.job(text)

        assert stage.sizes == [1] * 10
        assert stage.packer.packs("scripted-embed:dim=16") is None
