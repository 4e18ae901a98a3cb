"""The document at /openapi.json costs a second to make, and no stream waits for it."""

import asyncio
import threading

import httpx
import pytest

from api_shim.http.openapi import Document


class Press:
    """Makes a document, and remembers in which threads."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.may_end = threading.Event()

    def __call__(self) -> bytes:
        self.threads.append(threading.get_ident())
        assert self.may_end.wait(10)
        return b"{}"


async def test_the_loop_runs_while_it_is_made_and_it_is_made_once() -> None:
    press = Press()
    document = Document(press)
    readers = [asyncio.create_task(document.read()) for _ in range(5)]
    async with asyncio.timeout(10):
        while not press.threads:
            await asyncio.sleep(0)
    # This line runs on the loop while the document is under way.
    press.may_end.set()

    assert await asyncio.gather(*readers) == [b"{}"] * 5
    assert len(press.threads) == 1
    assert press.threads != [threading.get_ident()]


async def test_it_is_begun_before_anybody_asks() -> None:
    press = Press()
    press.may_end.set()
    document = Document(press)
    document.begin(0.0)
    async with asyncio.timeout(10):
        while not press.threads:
            await asyncio.sleep(0)

    assert await document.read() == b"{}"


async def test_after_a_failure_it_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    failures = [RuntimeError("dictionary changed size during iteration")]

    def render() -> bytes:
        if failures:
            raise failures.pop()
        return b"{}"

    document = Document(render)
    with pytest.raises(RuntimeError):
        await document.read()

    assert await document.read() == b"{}"
    assert "/openapi.json could not be rendered" in caplog.text


async def test_the_document_is_not_rendered_while_a_shim_starts() -> None:
    press = Press()
    document = Document(press)
    document.begin(60.0)
    await asyncio.sleep(0)
    document.drop()

    assert press.threads == []


async def test_a_client_that_leaves_while_it_is_made_stops_it_for_no_other() -> None:
    press = Press()
    document = Document(press)
    leaving, staying = (asyncio.create_task(document.read()) for _ in range(2))
    async with asyncio.timeout(10):
        while not press.threads:
            await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait({leaving})
    press.may_end.set()

    assert await staying == b"{}"


def test_the_shim_sends_it_as_json(session_shim: str) -> None:
    answer = httpx.get(f"{session_shim}/openapi.json")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["info"]["title"] == "llm-fleet"
