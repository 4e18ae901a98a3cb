"""OpenAI itself: refusals, prices, limits, and what no retry mends."""

import base64
import json
from array import array
from typing import Any

import httpx
import pytest
from pydantic_core import from_json
from support.backends import against_bytes, chat_request, folded

from contract.chat import ChatRequest, ImagePart, Message, SchemaFormat, TextPart
from contract.embeddings import EmbedRequest, unpack
from contract.errors import (
    BackendBusy,
    QuotaExhausted,
    Refused,
)
from contract.result import Result
from workers.backends.openai.dialects import DIALECTS, LLAMACPP
from workers.backends.openai.requests import to_chat


def sse(*deltas: dict[str, Any], finish: str = "stop") -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    chunks = [{"object": "chat.completion.chunk", "choices": [each]} for each in choices]
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    chunks.append({"choices": [], "usage": usage})
    lines = [f"data: {json.dumps(chunk | {'obfuscation': 'xyz'})}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


async def answer(*packets: bytes, **options: Any) -> Result:
    async with against_bytes("openai", *packets, **options) as backend:
        return await folded(backend.chat(chat_request("gpt-5.1")))


async def test_a_refusal_is_separate_from_content() -> None:
    first = {"role": "assistant", "content": "", "refusal": None}
    result = await answer(sse(first, {"refusal": "I can"}, {"refusal": "not."}))

    assert (result.refusal, result.content, result.finish_reason) == ("I cannot.", "", "stop")


async def test_a_refusal_that_was_not_streamed_is_one_as_well() -> None:
    message = {"role": "assistant", "content": None, "refusal": "No."}
    raw = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
    result = await answer(raw, content_type="application/json")

    assert (result.refusal, result.content) == ("No.", "")


async def test_an_answer_that_a_filter_cut_has_finish_reason_content_filter() -> None:
    result = await answer(sse({"content": "I wi"}, finish="content_filter"))

    assert (result.content, result.finish_reason) == ("I wi", "content_filter")


@pytest.mark.parametrize(
    "told",
    [
        {"usage": {"prompt_tokens": 9, "completion_tokens": 1}, "timings": {"cache_n": 8}},
        {"usage": {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 8}},
    ],
)
async def test_servers_that_tell_cached_tokens_in_their_own_way_are_understood(
    told: dict[str, Any],
) -> None:
    message = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], **told}
    result = await answer(json.dumps(message).encode(), content_type="application/json")

    assert result.usage is not None
    assert result.usage.cached_tokens == 8


async def test_cached_and_reasoning_tokens_are_read() -> None:
    result = await answer(sse({"content": "a"}))

    assert result.usage is not None
    assert (result.usage.cached_tokens, result.usage.reasoning_tokens) == (8, 4)


@pytest.mark.parametrize(
    "code",
    [
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    ],
)
async def test_exhausted_credit_is_not_retryable(code: str) -> None:
    error = {"message": "m", "type": "insufficient_quota", "param": None, "code": code}
    for body in (error, error | {"type": "requests"}):
        with pytest.raises(QuotaExhausted) as caught:
            await answer(json.dumps({"error": body}).encode(), status=429, retry_after="1")

        assert not caught.value.retryable


async def test_a_rate_limit_names_its_wait_in_milliseconds() -> None:
    error = {"message": "m", "type": "tokens", "code": "rate_limit_exceeded"}
    raw = json.dumps({"error": error}).encode()
    with pytest.raises(BackendBusy) as caught:
        await answer(raw, status=429, retry_after_ms="250", retry_after="1")

    assert caught.value.retry_after_s == 0.25


async def test_a_policy_is_no_bad_request() -> None:
    error = {"message": "m", "type": "invalid_request_error", "code": "content_policy_violation"}
    with pytest.raises(Refused):
        await answer(json.dumps({"error": error}).encode(), status=400)


def test_addresses_of_images_and_schemas_are_passed_on() -> None:
    content = (TextPart(text="?"), ImagePart(image="https://x.test/a.png"))
    request = ChatRequest(
        model="gpt-5.1",
        messages=(Message(role="user", content=content),),
        response_format=SchemaFormat(schema={"type": "object"}, name="n"),
        max_tokens=7,
    )
    body = to_chat(request, DIALECTS["openai"]).fields

    assert body["messages"][0]["content"][1]["image_url"] == {"url": "https://x.test/a.png"}
    assert body["response_format"]["json_schema"] == {
        "name": "n",
        "schema": {"type": "object"},
        "strict": True,
    }
    assert body["max_completion_tokens"] == 7
    assert "max_tokens" not in body


async def embedded(*texts: str) -> tuple[list[int], list[list[float]]]:
    """How many texts each request had, and all rows."""
    sizes: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        body = from_json(request.content)
        assert body["encoding_format"] == "base64"
        sizes.append(len(body["input"]))
        rows = [array("f", [float(len(text)), 1.0]).tobytes() for text in body["input"]]
        data = [
            {"index": at, "embedding": base64.b64encode(row).decode()}
            for at, row in enumerate(rows)
        ]
        return httpx.Response(200, json={"data": data[::-1], "usage": {"prompt_tokens": 1}})

    async with against_bytes("openai", handler=handler) as backend:
        request = EmbedRequest(model="text-embedding-3-small", input=texts)
        result = await folded(backend.embed(request))
    return sizes, unpack(result.embeddings.data, 2) if result.embeddings else []


async def test_no_request_has_more_texts_than_openai_takes() -> None:
    # pinchy #840: one huge request fails.
    sizes, rows = await embedded(*["a"] * 2049)

    assert sizes == [2048, 1]
    assert len(rows) == 2049


async def test_no_request_has_more_tokens_than_openai_takes() -> None:
    sizes, rows = await embedded("a" * 150_000, "b" * 100_000, "c" * 10)

    assert sizes == [1, 2]
    assert [row[0] for row in rows] == [150_000, 100_000, 10]


def test_the_text_of_an_assistant_is_one_string_however_it_came() -> None:
    # llama.cpp #14353: a beginning in parts is dropped by older servers.
    parts = (TextPart(text="It "), TextPart(text="is"))
    request = chat_request("m").model_copy(
        update={"messages": (Message(role="assistant", content=parts),)}
    )

    assert to_chat(request, LLAMACPP).fields["messages"] == [
        {"role": "assistant", "content": "It is"}
    ]
