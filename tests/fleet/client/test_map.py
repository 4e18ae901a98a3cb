"""Many requests through a running fleet: a few at a time, each answered by itself."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx
import pytest
from support.up import Up

from contract.chat import ChatRequest, Message
from contract.errors import ContextExceeded, InvalidRequest
from fleet import AsyncClient, Client
from fleet.client.errors import FleetUnreachable, JobCancelled
from fleet.client.map import MapResult

ILL = "scripted-story:fail=context"
SLOW = "scripted-story:chunks=2000,rate=20"


def said(text: str, model: str = "scripted-echo") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


async def test_answers_come_in_the_order_of_the_requests(up: Up) -> None:
    asked = (said(f"n {number}") for number in range(40))
    async with AsyncClient(up.url) as fleet:
        answers = [
            answer
            async for answer in fleet.map(asked, kind="chat", in_flight=8, backend="scripted")
        ]

    assert [answer.index for answer in answers] == list(range(40))
    assert [answer.result.content for answer in answers] == [f"n {n}" for n in range(40)]


async def test_or_as_they_come(up: Up) -> None:
    slow_first = [said("a b", "scripted-echo:rate=1"), *[said("x")] * 5]
    async with AsyncClient(up.url) as fleet:
        mapped = fleet.map(slow_first, kind="chat", ordered=False, backend="scripted")
        found = [answer.index async for answer in mapped]

    assert sorted(found) == list(range(6))
    assert found[-1] == 0


async def test_what_fails_costs_no_other_its_answer(up: Up) -> None:
    words = (Message(role="user", content="fine"),)
    asked = [
        ChatRequest(model="scripted-echo", messages=words),
        ChatRequest(model=ILL, messages=words, backend="scripted"),
        {"model": "scripted-echo"},
        said("fine"),
    ]
    async with AsyncClient(up.url) as fleet:
        answers = [answer async for answer in fleet.map(asked, kind="chat")]

    assert [type(answer.error) for answer in answers] == [
        type(None), ContextExceeded, InvalidRequest, type(None),
    ]  # fmt: skip
    assert answers[1].job_id
    with pytest.raises(ContextExceeded):
        _ = answers[1].result


async def test_requests_are_taken_only_as_there_is_room(up: Up) -> None:
    taken = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal taken
        while True:
            taken += 1
            yield said(f"n {taken}")

    async with AsyncClient(up.url) as fleet:
        mapped = fleet.map(endless(), kind="chat", in_flight=4, backend="scripted")
        for _ in range(20):
            await anext(mapped)
        await mapped.aclose()

    assert taken == 23


async def test_a_run_that_comes_again_finds_its_jobs(up: Up) -> None:
    async def jobs(words: str) -> list[str | None]:
        async with AsyncClient(up.url) as fleet:
            asked = [said(f"{words} {number}") for number in range(3)]
            mapped = fleet.map(asked, kind="chat", backend="scripted", idempotency_key="nightly")
            return [answer.job_id async for answer in mapped]

    assert await jobs("n") == await jobs("n")


async def test_a_job_that_had_failed_before_is_run_again(up: Up) -> None:
    asked = ChatRequest(
        model=SLOW, messages=(Message(role="user", content="x"),), backend="scripted"
    )
    async with AsyncClient(up.url) as fleet:
        first = await fleet.enqueue(asked, idempotency_key="again-0")
        await first.cancel()
        many = fleet.many(idempotency_key="again")
        answering = asyncio.create_task(many.one((0, asked)))
        while not many.under_way:
            await asyncio.sleep(0.01)
        (again,) = many.under_way.values()
        await again.cancel()

        assert isinstance((await answering).error, JobCancelled)
        assert again.id != first.id


async def test_nobody_there_ends_the_run() -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async with AsyncClient("http://a", transport=httpx.MockTransport(gone), give_up_s=0.2) as fleet:
        with pytest.raises(FleetUnreachable):
            _ = [answer async for answer in fleet.map([said("x")] * 100, kind="chat")]


async def test_a_full_queue_is_waited_for(up: Up) -> None:
    refusals = 0

    class Full(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal refusals
            if request.method == "POST" and refusals < 3:
                refusals += 1
                full = {"code": "queue_full", "title": "full"}
                return httpx.Response(429, json=full, headers={"retry-after": "0.05"})
            return await super().handle_async_request(request)

    async with AsyncClient(up.url, transport=Full()) as fleet:
        mapped = fleet.map([said("x")], kind="chat", backend="scripted")
        answers = [answer async for answer in mapped]

    assert (refusals, answers[0].result.content) == (3, "x")


def test_the_plain_client_takes_requests_in_the_callers_own_thread(up: Up) -> None:
    threads = set()

    def asked() -> Iterator[dict[str, Any]]:
        for number in range(10):
            threads.add(threading.get_ident())
            yield said(f"n {number}")

    with Client(up.url) as fleet:
        answers = list(fleet.map(asked(), kind="chat", in_flight=3, backend="scripted"))
        unordered = list(fleet.map(asked(), kind="chat", ordered=False, backend="scripted"))

    assert [answer.result.content for answer in answers] == [f"n {n}" for n in range(10)]
    assert {answer.index for answer in unordered} == set(range(10))
    assert threads == {threading.get_ident()}


def test_leaving_a_plain_run_early_waits_for_nobody(up: Up) -> None:
    asked = [said("x"), *[said("x", SLOW)] * 3]
    with Client(up.url) as fleet:
        mapped = fleet.map(asked, kind="chat", in_flight=4, ordered=False, backend="scripted")
        began_at = time.monotonic()
        first = next(mapped)
        mapped.close()
        took_s = time.monotonic() - began_at
        left = [fleet.job(job.id).cancel() for job in fleet.jobs(limit=4).jobs if job.model == SLOW]

    assert first.index == 0
    assert left
    assert took_s < 30


BAD: list[Any] = [
    None, 7, "words", [said("x")], {}, {1: 2}, {"model": object()}, said("\ud800"),
    said("x") | {"options": {"at": object()}}, said("x") | {"temperature": "warm"},
    said("x") | {"nonsense": 1}, said("x") | {"kind": "embed"},
]  # fmt: skip


async def test_no_bad_input_costs_the_others_their_answers(up: Up) -> None:
    asked = [said("first"), *BAD, said("last")]
    async with AsyncClient(up.url) as fleet:
        mapped = fleet.map(asked, kind="chat", backend="scripted", in_flight=3)
        answers = [answer async for answer in mapped]

    assert [type(answer.error) for answer in answers[1:-1]] == [InvalidRequest] * len(BAD)
    assert [answers[0].result.content, answers[-1].result.content] == ["first", "last"]


def test_nor_does_it_in_the_plain_client(up: Up) -> None:
    with Client(up.url) as fleet:
        answers = list(fleet.map([said("first"), *BAD, said("last")], kind="chat"))

    assert [type(answer.error) for answer in answers[1:-1]] == [InvalidRequest] * len(BAD)
    assert [answers[0].result.content, answers[-1].result.content] == ["first", "last"]


@pytest.mark.parametrize("key", ["caf\u00e9", "", "a\nb", 7])
async def test_a_key_that_is_none_is_the_error_of_its_own_request(up: Up, key: Any) -> None:
    keys = ["good", key]
    async with AsyncClient(up.url) as fleet:
        mapped = fleet.map(
            [said("x"), said("y")], kind="chat", idempotency_key=lambda at, _: keys[at]
        )
        answers = [answer async for answer in mapped]

    assert answers[0].error is None
    assert isinstance(answers[1].error, InvalidRequest)


def breaks() -> Iterator[dict[str, Any]]:
    yield said("one")
    yield said("two")
    raise LookupError("the cursor is gone")


async def words_of(mapped: AsyncGenerator[MapResult, None]) -> AsyncGenerator[str, None]:
    """What is answered, then what the run ends with."""
    try:
        async for answer in mapped:
            yield answer.result.content
    except LookupError as error:
        yield str(error)


@pytest.mark.parametrize("ordered", [True, False])
async def test_what_a_source_raises_comes_after_the_answers(up: Up, *, ordered: bool) -> None:
    async with AsyncClient(up.url) as fleet:
        mapped = fleet.map(breaks(), kind="chat", backend="scripted", ordered=ordered)
        found = [word async for word in words_of(mapped)]

    assert sorted(found[:2]) == ["one", "two"]
    assert found[2:] == ["the cursor is gone"]


@pytest.mark.parametrize("ordered", [True, False])
def test_so_it_does_in_the_plain_client(up: Up, *, ordered: bool) -> None:
    with Client(up.url) as fleet:
        mapped = fleet.map(breaks(), kind="chat", backend="scripted", ordered=ordered)
        found = [next(mapped).result.content for _ in range(2)]
        with pytest.raises(LookupError, match="the cursor is gone"):
            next(mapped)

    assert sorted(found) == ["one", "two"]
