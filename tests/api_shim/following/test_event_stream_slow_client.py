"""A client that reads slowly gets the end of its stream, too, however long that takes.

Subjects: api_shim/following/event_stream.py, api_shim/following/answer_stream.py.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from typing import Any

import pytest
from starlette.responses import Response
from support.responses import JOB, frames

from api_shim.following import answer_stream, event_stream
from api_shim.following.answer_stream import AnswerStream
from api_shim.following.event_stream import NDJSON, SSE, EventStreamResponse, Format, pieces
from api_shim.following.shutdown import OpenCalls
from api_shim.openai.chat_response import ChatChunks
from api_shim.openai.response_head import ResponseHead
from contract.events import Delta, Done, Frame


async def pages() -> AsyncGenerator[list[Frame]]:
    yield frames(Delta(content="a"), Done())


def native() -> Response:
    return EventStreamResponse(JOB, pages(), SSE, OpenCalls(), nullcontext())


def answer() -> Response:
    chunks = ChatChunks(ResponseHead(JOB, 1, "m", "standard"), with_usage=False)
    return AnswerStream(pages(), chunks, OpenCalls(), nullcontext(), headers={}, head_timeout_s=9)


@pytest.mark.parametrize("response", [native, answer])
async def test_the_last_bytes_wait_for_the_client(
    response: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (answer_stream, event_stream):
        monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.01)
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        if message.get("more_body") is False:
            await asyncio.sleep(0.1)  # the buffer is full until the client has read on
        sent.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    await response()({"type": "http", "headers": []}, receive, send)

    assert [message.get("more_body") for message in sent] == [None, True, False]


async def test_others_have_their_turn_while_a_large_event_leaves_at_once() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def send(_: Any) -> None:
        """An operating system that takes everything."""

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def large() -> AsyncGenerator[list[Frame]]:
        for frame in frames(Delta(content="x" * 2**20), Done()):
            yield [frame]

    response = EventStreamResponse(JOB, large(), SSE, OpenCalls(), nullcontext())
    async with asyncio.TaskGroup() as group:
        other = group.create_task(others())
        await response({"type": "http", "headers": []}, receive, send)
        other.cancel()

    assert turns > 16


class Client:
    """A client that takes so many messages of a response, then nothing."""

    def __init__(self, takes: int) -> None:
        self.taken: list[bytes] = []
        self.takes = takes
        self.waits = asyncio.Event()

    async def send(self, message: Any) -> None:
        if len(self.taken) == self.takes:
            self.waits.set()
            await asyncio.Event().wait()
        self.taken.append(message.get("body", b""))

    async def receive(self) -> Any:
        await asyncio.Event().wait()


@pytest.mark.parametrize("count", [1, 8])
async def test_nothing_further_is_read_before_most_of_something_large_has_left(count: int) -> None:
    read: list[int] = []

    async def large() -> AsyncGenerator[list[Frame]]:
        for number in range(2):
            read.append(number)
            yield frames(*[Delta(content="x" * (400_000 // count))] * count)

    client = Client(takes=8)
    response = EventStreamResponse(JOB, large(), SSE, OpenCalls(), nullcontext())
    sending = asyncio.create_task(
        response({"type": "http", "headers": []}, client.receive, client.send)
    )
    await client.waits.wait()
    sending.cancel()

    assert read == [0]
    assert max(map(len, client.taken)) <= 65_600


@pytest.mark.parametrize("format", [SSE, NDJSON])
@pytest.mark.parametrize("text", ["x", "é", "\u2028", "🦙", "a\x85"])
def test_the_pieces_of_a_large_frame_are_its_event(format: Format, text: str) -> None:
    for shift in range(4):
        (frame,) = frames(Delta(content="a" * shift + text * 100_000))

        assert b"".join(pieces(format, frame)) == format.encode([frame])
