"""Halves of characters in a backend's JSON: joined across chunks, or replaced."""

import json
from typing import Any

import httpx
import pytest
from support.backends import against_bytes, chat_request, folded

from contract.embeddings import EmbedRequest
from contract.errors import BackendError
from contract.result import Result
from workers.backends.http.json_text import StreamJson, parse_json

HIGH, LOW, FACE = "\ud83d", "\ude00", "\N{GRINNING FACE}"
LOST = "\ufffd"


def sse(*chunks: Any, end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks) + end


def openai(*texts: str) -> bytes:
    deltas = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return sse(*deltas, {"choices": []}, last)


def ollama(*texts: str) -> bytes:
    lines = [{"message": {"role": "assistant", "content": text}, "done": False} for text in texts]
    last = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    return b"".join(json.dumps(line).encode() + b"\n" for line in [*lines, last])


def gemini(*texts: str) -> bytes:
    chunks = [{"candidates": [{"content": {"parts": [{"text": text}]}}]} for text in texts]
    return sse(*chunks, {"candidates": [{"finishReason": "STOP"}]}, end=b"")


ANSWERS = {"generic": openai, "llamacpp": openai, "ollama": ollama, "gemini": gemini}


async def answer(kind: str, *packets: bytes, **options: Any) -> Result:
    async with against_bytes(kind, *packets, **options) as backend:
        return await folded(backend.chat(chat_request("m")))


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("a" + HIGH, LOW + "b"), f"a{FACE}b"),
        ((HIGH, "", LOW, "b"), f"{FACE}b"),
        (("a" + HIGH,), f"a{LOST}"),
        (("a" + HIGH, "b"), f"a{LOST}b"),
        ((LOW + "b",), f"{LOST}b"),
        ((f"a{HIGH}b{FACE}", "c"), f"a{LOST}b{FACE}c"),
        ((HIGH, HIGH, LOW), f"{LOST}{FACE}"),
    ],
)
async def test_halves_of_a_character_lose_no_answer(
    kind: str, texts: tuple[str, ...], expected: str
) -> None:
    result = await answer(kind, ANSWERS[kind](*texts))

    assert (result.content, result.finish_reason) == (expected, "stop")


async def test_halves_are_joined_within_their_own_field() -> None:
    def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    def call(index: int, arguments: str, **fields: Any) -> dict[str, Any]:
        return {"index": index, **fields, "function": {"name": "f", "arguments": arguments}}

    result = await answer(
        "generic",
        sse(
            chunk(reasoning_content="t" + HIGH),
            chunk(content="c" + HIGH),
            chunk(content=LOW),
            chunk(tool_calls=[call(0, f'{{"x":"{HIGH}', id="a")]),
            chunk(tool_calls=[call(1, f'{{"x":"{HIGH}"}}', id="b")]),
            chunk(tool_calls=[call(0, f'{LOW}"}}')]),
            chunk(content=HIGH, finish="tool_calls"),
        ),
    )

    assert (result.thinking, result.content) == (f"t{LOST}", f"c{FACE}{LOST}")
    found = [(each.id, each.arguments) for each in result.tool_calls]
    assert found == [("a", f'{{"x":"{FACE}"}}'), ("b", f'{{"x":"{LOST}"}}')]


async def test_a_half_before_done_without_a_finish_reason_is_replaced() -> None:
    chunk = {"choices": [{"delta": {"content": "a" + HIGH}}]}

    assert (await answer("generic", sse(chunk))).content == f"a{LOST}"


async def test_halves_in_parts_logprobs_and_object_arguments_are_replaced() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "t" + HIGH}]}
    text = {"type": "text", "text": "a" + HIGH}
    delta = {
        "content": [thought, text],
        "tool_calls": [{"function": {"name": "f", "arguments": {"text": HIGH}}}],
    }
    scored = {"content": [{"token": HIGH, "logprob": -1.0, "bytes": [240, 159]}]}
    chunk = {"choices": [{"delta": delta, "logprobs": scored}]}
    last = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    result = await answer("generic", sse(chunk, last))

    assert (result.thinking, result.content) == (f"t{LOST}", f"a{LOST}")
    assert json.loads(result.tool_calls[0].arguments) == {"text": LOST}
    assert [each.token for each in result.logprobs or ()] == [LOST]


async def test_a_response_that_is_not_streamed_keeps_its_text() -> None:
    choice = {"message": {"content": f"{FACE}a{HIGH}"}, "finish_reason": "stop"}
    raw = json.dumps({"choices": [choice]}).encode()

    result = await answer("generic", raw, content_type="application/json")

    assert result.content == f"{FACE}a{LOST}"


async def test_an_error_with_a_half_has_valid_text() -> None:
    with pytest.raises(BackendError) as raised:
        await answer("generic", sse({"error": {"message": "no" + HIGH}}))

    assert f"no{LOST}" in str(raised.value)


async def test_a_half_in_other_json_is_replaced() -> None:
    raw = json.dumps({"data": [{"index": 0, "embedding": [1.0]}], "model": HIGH}).encode()

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=raw)

    async with against_bytes("generic", handler=handler) as backend:
        await folded(backend.embed(EmbedRequest(model="m", input=("a",))))


@pytest.mark.parametrize(
    "data", [b'{"a":"\\ud83d', b'{"a":"\\ud83', b'{"a":"\\ud83d"', b'{"a":"\\udxyz"}']
)
def test_json_that_is_broken_is_still_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="line 1"):
        parse_json(data)
    with pytest.raises(ValueError, match="line 1"):
        StreamJson().read(data)


def test_json_that_is_too_deep_is_refused() -> None:
    deep = b'["\\ud83d",' + b"[" * 40_000 + b"]" * 40_000 + b"]"

    with pytest.raises(ValueError, match="hex escape"):
        StreamJson().read(deep)


def test_names_of_fields_are_valid_text() -> None:
    assert parse_json(b'{"\\ud83d":"a"}') == {LOST: "a"}
