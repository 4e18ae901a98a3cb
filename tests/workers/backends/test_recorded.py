"""Recorded responses of real servers, and responses that only a broken server sends, are decoded.

Subjects: workers/backends/openai/chunks.py, workers/backends/ollama/wire.py.
"""

import json
from typing import Any

import aiohttp
import httpx
import pytest
from support.backends import WIRE, against_bytes, chat_request, folded

from contract.chat import Tool
from contract.errors import (
    BackendUnreachable,
    BadEndpoint,
    ContextExceeded,
    NotSupported,
    Refused,
    ServerFault,
    TruncatedStream,
)
from contract.result import Result

LLAMACPP_STREAM = (WIRE / "llamacpp-chat-stream.sse").read_bytes()


async def answer(type: str, *packets: bytes | Exception, **options: Any) -> Result:
    async with against_bytes(type, *packets, **options) as backend:
        return await folded(backend.chat(chat_request("tiny")))


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
async def test_a_recorded_stream_of_llama_server_is_understood(size: int) -> None:
    raw = LLAMACPP_STREAM
    result = await answer("llamacpp", *(raw[at : at + size] for at in range(0, len(raw), size)))

    assert result.content == " stindnom piwot nimplas fleck letbrea namtick"
    assert result.finish_reason == "length"
    assert result.usage is not None
    assert (
        result.usage.prompt_tokens,
        result.usage.completion_tokens,
        result.usage.cached_tokens,
    ) == (24, 6, 23)


async def test_a_recorded_tool_call_is_put_together_although_it_was_cut() -> None:
    raw = (WIRE / "llamacpp-tool-stream.sse").read_bytes()
    async with against_bytes("llamacpp", raw) as backend:
        result = await folded(backend.chat(chat_request("tiny", tools=(Tool(name="f"),))))

    assert result.finish_reason == "length"
    assert result.tool_calls[0].name == "f"
    assert result.tool_calls[0].arguments.startswith('{ "c"')


async def test_an_answer_that_was_not_streamed_is_read_all_the_same() -> None:
    raw = (WIRE / "llamacpp-chat.json").read_bytes()
    result = await answer("llamacpp", raw, content_type="application/json; charset=utf-8")

    assert result.content == " stindnom piwot nimplas fleck letbrea namtick"


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("context", 400, ContextExceeded),
        ("embeddings", 501, NotSupported),
        ("bad-json", 500, ServerFault),
    ],
)
async def test_recorded_errors_have_their_class(
    name: str, status: int, error: type[Exception]
) -> None:
    raw = (WIRE / f"llamacpp-error-{name}.json").read_bytes()
    with pytest.raises(error):
        await answer("llamacpp", raw, status=status, content_type="application/json")


async def test_the_recorded_lists_of_llama_server_tell_its_model() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/v1/models":
                return httpx.Response(200, content=(WIRE / "llamacpp-models.json").read_bytes())
            case "/props":
                return httpx.Response(200, content=(WIRE / "llamacpp-props.json").read_bytes())
            case "/health":
                return httpx.Response(200, json={"status": "ok"})
            case _:
                error = (WIRE / "llamacpp-error-embeddings.json").read_bytes()
                return httpx.Response(501, content=error)

    async with against_bytes("llamacpp", handler=handler) as backend:
        [model] = await backend.models()
        assert await backend.check() == "b1-0c1e570"
        assert await backend.slots() == 4

    assert (model.name, model.traits) == ("tiny", ("chat", "schema", "tools"))
    assert (model.context_length, model.size_bytes, model.warm) == (4096, 386304, True)


@pytest.mark.parametrize("cut", [40, 250, 600, 1500])
async def test_a_stream_that_merely_ends_is_a_failure(cut: int) -> None:
    with pytest.raises(TruncatedStream):
        await answer("llamacpp", LLAMACPP_STREAM[:cut])


async def test_a_connection_lost_behind_the_finish_loses_only_the_usage() -> None:
    end = LLAMACPP_STREAM.index(b'"length"')
    end = LLAMACPP_STREAM.index(b"\n\n", end) + 2
    result = await answer("llamacpp", LLAMACPP_STREAM[:end], aiohttp.ClientPayloadError("reset"))

    assert (result.status, result.finish_reason) == ("done", "length")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"error":"Unexpected endpoint or method. (POST /v1/x)"}', BadEndpoint),
        (b'{"error":{"message":"m","code":"content_filter"}}', Refused),
    ],
)
async def test_an_error_with_status_200_is_an_error(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        await answer("lmstudio", data, content_type="application/json")


async def test_a_refusal_and_a_filter_are_part_of_the_answer() -> None:
    raw = (
        b'data: {"choices":[{"index":0,"delta":{"refusal":"I will not."}}]}\n\n'
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}\n\n'
    )
    result = await answer("openai", raw)

    assert (result.refusal, result.finish_reason) == ("I will not.", "content_filter")


async def test_calls_without_index_or_id_are_separate() -> None:
    raw = (
        b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"name":"a","arguments":"{"}}]}}]}'
        b'\n\ndata: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"}"}}]}}]}\n\n'
        b'data: {"choices":[{"delta":{"tool_calls":[{"id":7,"function":{"name":"b"}}]}}]}\n\n'
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    )
    result = await answer("lmstudio", raw)

    assert [(c.name, c.arguments) for c in result.tool_calls] == [("a", "{}"), ("b", "{}")]
    assert [call.id for call in result.tool_calls] == ["call_0", "7"]
    assert result.finish_reason == "tool_calls"


async def test_done_without_a_finish_reason_is_an_end_only_after_content() -> None:
    body = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n'

    assert (await answer("generic", body)).content == "hi"
    with pytest.raises(TruncatedStream):
        await answer("generic", b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "lines",
    [
        b'{"message":{"content":"a"},"done":false}\n',
        b'{"message":{"content":"a"},"done":false}\n{"message":{"con',
        b'{"message":{"content":""},"done":true,"done_reason":""}\n',
        b"",
    ],
)
async def test_ollama_lines_without_a_last_one_are_a_failure(lines: bytes) -> None:
    with pytest.raises(TruncatedStream):
        await answer("ollama", lines)


async def test_ollama_may_send_text_in_its_last_line() -> None:
    call = {"function": {"index": 0, "name": "f", "arguments": {"x": 1}}}
    last = {
        "message": {"content": "a", "tool_calls": [call]},
        "done": True,
        "done_reason": "stop",
        "load_duration": 5_000_000,
    }
    result = await answer("ollama", json.dumps(last).encode())

    assert (result.content, result.tool_calls[0].arguments) == ("a", '{"x":1}')
    assert result.finish_reason == "tool_calls"
    assert result.timings is not None
    assert result.timings.load_ms == 5.0


async def test_a_refused_connection_is_not_tried_again() -> None:
    tries: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        tries.append(request.url.path)
        raise aiohttp.ClientConnectionError("refused")

    async with against_bytes("ollama", handler=handler) as backend:
        with pytest.raises(BackendUnreachable):
            await backend.check()

    assert len(tries) == 1


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    with pytest.raises(BadEndpoint, match="redirects to https://other"):
        await answer("openai", b"", status=307, location="https://other")
