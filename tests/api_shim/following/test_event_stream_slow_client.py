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
from api_shim.following.event_stream import SSE, EventStreamResponse
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
