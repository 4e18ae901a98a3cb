"""Reasoning of earlier assistant messages: sent in each server's field, or reported as ignored.

So are `strict` tools, and a request to think that names no level.

Subjects: workers/backends/openai/requests.py, workers/backends/ollama/wire.py.
"""

from typing import Any

import httpx
import pytest
from pydantic_core import from_json, to_json
from support.backends import FunctionTransport, against_bytes, folded, make

from contract.chat import DETAILS, ChatRequest, Message, Tool, ToolCall
from contract.errors import BackendRejected
from workers.backend_registry import build
from workers.backends.declarations import DeclaredEndpoint
from workers.backends.dsn import parse
from workers.backends.google import requests as gemini_requests
from workers.backends.in_process.chat_template import templated, unsupported_fields
from workers.backends.ollama import wire
from workers.backends.openai import requests
from workers.backends.openai.adapter import OpenAI
from workers.backends.openai.dialects import DIALECTS, generic
from workers.backends.openai.one_address_a_model import DeclaredEndpoints
from workers.backends.protocols import grants, ungranted

CALL = ToolCall(id="c1", name="look", arguments="{}")
TURN = Message(role="assistant", thinking="secret thoughts", tool_calls=(CALL,))
RESULT = Message(role="tool", content="rain", tool_call_id="c1", tool_name="look")
PIECES = [{"type": "reasoning.encrypted", "data": "e30=", "index": 0}]
OLLAMA_DONE = b'{"message":{"role":"assistant","content":"a"},"done":true,"done_reason":"stop"}\n'


def conversation(turn: Message = TURN, **fields: Any) -> ChatRequest:
    question = Message(role="user", content="hi")
    return ChatRequest(model="m", messages=(question, turn, RESULT), **fields)


@pytest.mark.parametrize(
    ("type", "field"),
    [
        ("llamacpp", "reasoning_content"),
        ("llamacpp-router", "reasoning_content"),
        ("llamaswap", "reasoning_content"),
        ("vllm", "reasoning_content"),
    ],
)
def test_thoughts_go_back_under_each_servers_name(type: str, field: str) -> None:
    sent = requests.to_chat(conversation(), DIALECTS[type]).fields["messages"][1]

    assert sent[field] == "secret thoughts"


def test_thoughts_go_back_to_ollama_with_their_message() -> None:
    assert wire.to_chat(conversation())["messages"][1]["thinking"] == "secret thoughts"


def test_thoughts_go_back_to_gemini_as_a_part_before_the_others() -> None:
    thought, call = gemini_requests.contents(conversation())[1]["parts"]

    assert thought == {"text": "secret thoughts", "thought": True}
    assert "functionCall" in call


@pytest.mark.parametrize("type", ["openai", "generic", "lmstudio"])
async def test_thoughts_are_named_where_there_is_no_word_for_them(type: str) -> None:
    backend = make(type, "http://backend.test")
    sent = requests.to_chat(conversation(), DIALECTS[type]).fields

    assert "secret" not in str(sent)
    assert ungranted(conversation(), backend) == ("messages[].thinking",)
    await backend.aclose()


@pytest.mark.parametrize("type", ["ollama", "llamacpp", "vllm", "gemini"])
async def test_thoughts_that_are_sent_are_not_named(type: str) -> None:
    backend = make(type, "http://backend.test")

    assert ungranted(conversation(), backend) == ()
    await backend.aclose()


@pytest.mark.parametrize(
    ("dsn", "field"),
    [
        ("generic://api.deepseek.com/v1", "reasoning_content"),
        ("generic://openrouter.ai/api/v1", "reasoning"),
        ("generic://box.test/v1?thinking=reasoning", "reasoning"),
        ("generic://box.test/v1?thinking=reasoning_content", "reasoning_content"),
    ],
)
async def test_a_compatible_server_gets_them_where_its_word_is_known(dsn: str, field: str) -> None:
    backend = build(parse("LLM_BOX", dsn))
    assert isinstance(backend, OpenAI)
    sent = requests.to_chat(conversation(), backend.dialect).fields["messages"][1]

    assert sent[field] == "secret thoughts"
    await backend.aclose()


def test_pieces_of_thoughts_go_back_as_they_came_to_openrouter_alone() -> None:
    turn = TURN.model_copy(update={"provider_meta": {DETAILS: PIECES}})
    at = "https://openrouter.ai/api/v1"

    sent = requests.to_chat(conversation(turn), generic(at)).fields["messages"][1]
    elsewhere = requests.to_chat(conversation(turn), DIALECTS["vllm"]).fields["messages"][1]

    assert (sent[DETAILS], DETAILS in elsewhere) == (PIECES, False)
    assert "messages[].reasoning_details" not in DIALECTS["vllm"].grants


def piece(**fields: Any) -> dict[str, Any]:
    return {"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1", **fields}


def openrouter(*deltas: dict[str, Any]) -> bytes:
    chunks = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    last: dict[str, Any] = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    return (
        b"".join(b"data: %s\n\n" % to_json(each) for each in (*chunks, last)) + b"data: [DONE]\n\n"
    )


async def test_signed_thoughts_of_openrouter_make_the_round_trip() -> None:
    packets = openrouter(
        {"reasoning": "so ", "reasoning_details": [piece(text="so ")]},
        {"reasoning": "be it", "reasoning_details": [piece(text="be it")]},
        {"reasoning_details": [piece(signature="c2ln")]},
        {"reasoning_details": PIECES},
        {"content": "a"},
    )
    async with against_bytes("generic", packets) as backend:
        result = await folded(backend.chat(conversation()))
    turn = Message(role="assistant", content="a", provider_meta=result.provider_meta)
    at = generic("https://openrouter.ai/api/v1")
    sent = requests.to_chat(conversation(turn), at).fields["messages"][1]

    assert (result.thinking, result.content) == ("so be it", "a")
    assert sent[DETAILS] == [piece(text="so be it", signature="c2ln"), *PIECES]


async def test_thoughts_without_a_signature_need_no_way_back() -> None:
    packets = openrouter(
        {"reasoning": "so", "reasoning_details": [piece(text="so")]}, {"content": "a"}
    )
    async with against_bytes("generic", packets) as backend:
        result = await folded(backend.chat(conversation()))

    assert (result.thinking, result.provider_meta) == ("so", None)


def test_a_template_is_given_thoughts_and_one_without_a_place_for_them_is_named() -> None:
    chat = templated(conversation())

    assert chat.messages[1]["reasoning_content"] == "secret thoughts"
    assert unsupported_fields(chat, "{{ message.reasoning_content }} {{ tools }}") == ()
    assert unsupported_fields(chat, "{{ message.thinking }}") == ()
    assert unsupported_fields(chat, "{{ enable_thinking }}") == ("messages[].thinking",)


@pytest.mark.parametrize(
    ("type", "is_said"),
    [("openai", True), ("generic", True), ("vllm", False), ("llamacpp", False), ("gemini", False)],
)
async def test_strict_is_sent_with_a_tool_or_reported(type: str, is_said: bool) -> None:  # noqa: FBT001
    request = conversation(tools=(Tool(name="look", strict=True),))
    backend = make(type, "http://backend.test")
    named = "tools[].strict" in ungranted(request, backend)
    await backend.aclose()

    assert named is not is_said
    if type in DIALECTS:
        [tool] = requests.to_chat(request, DIALECTS[type]).fields["tools"]
        assert tool["function"].get("strict") is (True if is_said else None)


async def test_endpoints_grant_what_their_servers_do_and_name_what_one_of_them_cannot() -> None:
    seen: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(from_json(request.content))
        chunk = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=chunk)

    endpoints = (
        DeclaredEndpoint(url="http://a.test", id="plain"),
        DeclaredEndpoint(url="http://b.test", id="deep", thinking="reasoning_content"),
    )
    backend = DeclaredEndpoints("box", endpoints, transport=FunctionTransport(handler))
    wishes: dict[str, Any] = {"frequency_penalty": 0.5, "logprobs": True}
    request = conversation(**wishes).model_copy(update={"model": "plain"})

    assert {"prompt", "logprobs", "frequency_penalty", "logit_bias"} <= grants(backend)
    assert ungranted(request, backend) == ()
    plain = [event async for event in backend.chat(request)][-1]
    deep = [event async for event in backend.chat(request.model_copy(update={"model": "deep"}))][-1]
    prompt = ChatRequest(model="plain", prompt="Once")
    raw = [event async for event in backend.chat(prompt)][-1]
    await backend.aclose()

    assert [each.ignored for each in (plain, deep, raw)] == [("messages[].thinking",), (), ()]
    assert [each.get("frequency_penalty") for each in seen] == [0.5, 0.5, None]
    assert seen[2]["prompt"] == "Once"


@pytest.mark.parametrize(
    ("type", "expected"),
    [
        ("llamacpp", {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": None}),
        ("vllm", {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": None}),
        ("openai", {"reasoning_effort": "medium"}),
    ],
)
def test_thinking_without_a_level_sends_no_level_if_possible(
    type: str, expected: dict[str, Any]
) -> None:
    body, ignored = requests.to_chat(conversation(think="on"), DIALECTS[type])

    assert {name: body.get(name) for name in expected} == expected
    assert ignored == ()


def test_ollama_gets_true_without_a_level() -> None:
    assert wire.to_chat(conversation(think="on"))["think"] is True
    assert wire.to_chat(conversation(think="high"))["think"] == "high"


@pytest.mark.parametrize(
    ("model", "config"),
    [
        ("gemini-2.5-flash", {"thinkingBudget": -1, "includeThoughts": True}),
        ("gemini-3-pro", {"includeThoughts": True}),
    ],
)
def test_gemini_chooses_how_hard_to_think_itself(model: str, config: dict[str, Any]) -> None:
    request = conversation(think="on").model_copy(update={"model": model})

    assert gemini_requests.to_chat(request).fields["generationConfig"]["thinkingConfig"] == config


def levelless(seen: list[Any]) -> Any:
    """An Ollama that answers as it does for a model without levels."""

    def handler(request: httpx.Request) -> httpx.Response:
        think = from_json(request.content).get("think")
        seen.append(think)
        if isinstance(think, str):
            message = f'think value "{think}" is not supported for this model'
            return httpx.Response(400, json={"error": message})
        return httpx.Response(200, content=OLLAMA_DONE)

    return handler


async def test_a_level_becomes_true_at_ollama_for_a_model_without_levels_and_is_named() -> None:
    seen: list[Any] = []
    async with against_bytes("ollama", handler=levelless(seen)) as backend:
        result = await folded(backend.chat(conversation(think="high")))

    assert (result.content, result.ignored, seen) == ("a", ("think",), ["high", True])


async def test_another_refusal_of_ollama_stays_a_refusal() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"error": f"no: {len(request.content)} bytes"})

    async with against_bytes("ollama", handler=handler) as backend:
        with pytest.raises(BackendRejected, match="no: "):
            await folded(backend.chat(conversation(think="high")))


async def test_what_a_raw_prompt_cannot_send_to_ollama_is_named() -> None:
    raw = ChatRequest(model="m", prompt="Once", think="high", truncate=False)
    async with against_bytes("ollama", OLLAMA_DONE) as backend:
        result = await folded(backend.chat(raw))

    assert result.ignored == ("think",)
    assert wire.to_generate(raw)["truncate"] is False
