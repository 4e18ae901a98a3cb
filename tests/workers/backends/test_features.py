"""A feature that only some backends support is sent, refused, or named as ignored.

Subjects: contract/features.py, workers/backends/protocols.py, workers/backends/logprobs.py.
"""

from typing import Any

import httpx
import pytest
from pydantic_core import from_json
from support.backends import against_bytes, against_server, chat_request, folded, make

from contract.chat import ChatRequest, Message, Tool, ToolCall
from contract.embeddings import EmbedRequest
from contract.errors import NotSupported
from contract.events import LogProb
from contract.features import REMEDIES, features_of
from contract.images import ImageRequest
from workers.backends.google.requests import to_chat as to_gemini
from workers.backends.logprobs import read_logprobs
from workers.backends.ollama.wire import to_generate
from workers.backends.openai.dialects import DIALECTS
from workers.backends.openai.requests import to_chat, to_completion
from workers.backends.protocols import grants, ungranted

RAW = ChatRequest(model="m", prompt="Once", max_tokens=5, stop=("x",), frequency_penalty=1)
WISHFUL = chat_request(
    "m", frequency_penalty=1, presence_penalty=-1, logit_bias={"3": 40}, logprobs=True,
    top_logprobs=2, parallel_tool_calls=False, tools=(Tool(name="f"),),
)  # fmt: skip


def test_every_feature_of_a_request_is_found() -> None:
    assert set(features_of(WISHFUL)) == {
        "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "parallel_tool_calls",
    }  # fmt: skip
    assert features_of(RAW.model_copy(update={"prompt": (1,), "suffix": "."})) == (
        "prompt", "suffix", "token_ids", "frequency_penalty",
    )  # fmt: skip
    assert features_of(EmbedRequest(model="m", tokens=((1,),))) == ("token_ids",)
    assert features_of(ImageRequest(model="m", prompt="p", mask="iVBORw0KGgo=")) == ("mask",)
    assert features_of(chat_request("m", parallel_tool_calls=True)) == ()


def test_a_hosted_dialect_sends_all_of_them() -> None:
    fields = to_chat(WISHFUL, DIALECTS["openai"]).fields

    assert (fields["frequency_penalty"], fields["presence_penalty"]) == (1, -1)
    assert fields["logit_bias"] == {"3": 40}
    assert (fields["logprobs"], fields["top_logprobs"]) == (True, 2)
    assert fields["parallel_tool_calls"] is False


def test_raw_text_has_a_body_of_its_own() -> None:
    body = to_completion(
        RAW.model_copy(update={"logprobs": True, "top_k": 3, "min_p": 0.5}), DIALECTS["generic"]
    )

    assert body.fields == {
        "model": "m", "prompt": "Once", "stream": True, "stream_options": {"include_usage": True},
        "max_tokens": 5, "stop": ["x"], "frequency_penalty": 1, "logprobs": 1,
    }  # fmt: skip
    assert body.ignored == ("top_k", "min_p")


def test_ollama_lays_no_template_around_raw_text_but_around_a_hole() -> None:
    hole = RAW.model_copy(update={"suffix": "the end"})

    assert to_generate(RAW) == {
        "model": "m", "prompt": "Once", "raw": True, "stream": True,
        "options": {"num_predict": 5, "stop": ["x"], "frequency_penalty": 1},
    }  # fmt: skip
    assert (to_generate(hole)["raw"], to_generate(hole)["suffix"]) == (False, "the end")


@pytest.mark.parametrize("type", ["ollama", "vllm", "openai", "llamacpp", "scripted"])
async def test_raw_text_is_continued(type: str) -> None:
    async with against_server(type) as (backend, _):
        request = ChatRequest(model="scripted-echo", prompt="one two three", max_tokens=2)
        result = await folded(backend.chat(request))

    assert (result.content, result.finish_reason) == ("one two", "length")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]}, [97]),
        ([{"token": "a", "logprob": -0.5}], None),
        ({"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [None]}, [97]),
    ],
)
def test_likelihoods_are_read_in_every_shape(given: Any, expected: Any) -> None:
    (one,) = read_logprobs(given) or ()

    assert one == LogProb(token="a", logprob=-0.5, bytes=expected)


@pytest.mark.parametrize("given", [None, {}, {"content": None}, {"content": []}, []])
def test_no_likelihoods_are_none(given: Any) -> None:
    assert read_logprobs(given) is None


@pytest.mark.parametrize(
    "begun",
    [
        b'"delta":{"content":""},"logprobs":{"content":[{"token":"\\u00c3","logprob":-0.5}]}',
        b'"delta":{},"logprobs":{"content":[{"token":"\\u00c3","logprob":-0.5}]}',
        b'"text":"","logprobs":{"tokens":["\\u00c3"],"token_logprobs":[-0.5]}',
    ],
)
async def test_logprobs_of_a_part_of_a_character_are_kept(begun: bytes) -> None:
    rest = b'"finish_reason":"stop","delta":{"content":"e"}'
    events = b"".join(b'data: {"choices":[{%b}]}\n\n' % choice for choice in (begun, rest))
    async with against_bytes("vllm", events, b"data: [DONE]\n\n") as backend:
        result = await folded(backend.chat(chat_request("m", logprobs=True)))

    assert result.content == "e"
    assert [each.token for each in result.logprobs or ()] == ["\u00c3"]


async def test_logprobs_are_on_the_delta_of_their_text() -> None:
    chunk = (
        b'data: {"choices":[{"delta":{"content":"a"},"logprobs":{"content":[{"token":"a",'
        b'"logprob":-0.5,"bytes":[97],"top_logprobs":[]}]},"finish_reason":"stop"}]}\n\n'
    )
    async with against_bytes("vllm", chunk, b"data: [DONE]\n\n") as backend:
        result = await folded(backend.chat(chat_request("m", logprobs=True)))

    assert result.content == "a"
    assert result.logprobs == (LogProb(token="a", logprob=-0.5, bytes=(97,)),)


async def test_ids_of_tokens_are_sent_as_they_are() -> None:
    seen: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(from_json(request.content)["input"])
        return httpx.Response(200, json={"data": [{"index": 0, "embedding": [1.0]}]})

    async with against_bytes("vllm", handler=handler) as backend:
        await folded(backend.embed(EmbedRequest(model="m", tokens=((1, 2),))))

    assert seen == [[[1, 2]]]


@pytest.mark.parametrize("type", ["ollama", "lmstudio", "generic", "gemini"])
async def test_ids_of_tokens_are_refused_with_the_remedy_elsewhere(type: str) -> None:
    backend = make(type, "http://backend.test")
    try:
        with pytest.raises(NotSupported, match="check_embedding_ctx_length=False"):
            ungranted(EmbedRequest(model="m", tokens=((1,),)), backend)
    finally:
        await backend.aclose()


async def test_minor_unsupported_fields_are_reported() -> None:
    backend = make("gemini", "http://backend.test")
    try:
        request = WISHFUL.model_copy(update={"logprobs": False})

        assert ungranted(request, backend) == ("logit_bias", "parallel_tool_calls")
        assert grants(backend) == {
            "task", "frequency_penalty", "presence_penalty", "messages[].thinking",
            "messages[].extra_content", "messages[].tool_calls[].extra_content",
            "messages[].tool_name",
        }  # fmt: skip
    finally:
        await backend.aclose()


def test_a_refusal_always_has_a_remedy() -> None:
    assert all(":" in remedy for remedy in REMEDIES.values())


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"messages": []},
        {"prompt": "a", "messages": [Message(role="user", content="b")]},
        {"suffix": "a", "messages": [Message(role="user", content="b")]},
        {"prompt": ""},
        {"prompt": [-1]},
    ],
)
def test_a_chat_has_messages_or_a_prompt(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"messages|prompt"):
        ChatRequest(model="m", **fields)


SIGNED = {"google": {"thought_signature": "c2ln"}}
NAMED_RESULT = ChatRequest(
    model="gemini-3-pro",
    messages=(
        Message(role="user", content="hi"),
        Message(
            role="assistant",
            tool_calls=(ToolCall(id="a", name="f", provider_meta=SIGNED),),
            provider_meta={"google": {"parts": []}},
        ),
        Message(role="tool", content="1", tool_call_id="a", tool_name="g"),
    ),
)


@pytest.mark.parametrize(
    ("type", "expected"),
    [
        ("generic", {"extra_content", "tool_calls[].extra_content", "tool_name"}),
        ("openai", {"extra_content", "tool_calls[].extra_content", "tool_name"}),
        ("lmstudio", {"extra_content", "tool_calls[].extra_content", "tool_name"}),
        ("vllm", {"extra_content", "tool_calls[].extra_content"}),
        ("llamacpp", {"extra_content", "tool_calls[].extra_content"}),
        ("ollama", {"extra_content", "tool_calls[].extra_content"}),
        ("gemini", set()),
    ],
)
async def test_data_of_earlier_answers_is_sent_or_reported(type: str, expected: set[str]) -> None:
    backend = make(type, "http://backend.test")
    try:
        assert set(ungranted(NAMED_RESULT, backend)) == {f"messages[].{name}" for name in expected}
    finally:
        await backend.aclose()


def test_the_name_of_a_tool_that_the_id_of_its_call_gives_is_no_feature() -> None:
    result = NAMED_RESULT.messages[2].model_copy(update={"tool_name": "f"})
    request = NAMED_RESULT.model_copy(update={"messages": (*NAMED_RESULT.messages[:2], result)})

    assert "messages[].tool_name" not in features_of(request)


def test_a_tool_result_has_its_name_where_the_server_reads_it() -> None:
    sent = {type: to_chat(NAMED_RESULT, DIALECTS[type]).fields for type in ("vllm", "generic")}

    assert sent["vllm"]["messages"][2]["name"] == "g"
    assert "name" not in sent["generic"]["messages"][2]


def test_a_signature_is_sent_to_gemini_also_under_its_compatible_name() -> None:
    turn = to_gemini(NAMED_RESULT).fields["contents"][1]

    assert turn["parts"][0]["thoughtSignature"] == "c2ln"
