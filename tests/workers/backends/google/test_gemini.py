"""Gemini's words: what goes out, what comes back, and what must go out again unchanged."""

import json
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json
from support.backends import against_bytes, against_server, chat_request, folded

from contract.chat import (
    ChatRequest,
    ImagePart,
    JsonFormat,
    Message,
    NamedTool,
    SchemaFormat,
    TextPart,
    Tool,
    ToolCall,
)
from contract.embeddings import EmbedRequest, unpack
from contract.errors import (
    AuthenticationRefused,
    BackendBusy,
    BackendError,
    InvalidRequest,
    ModelMissing,
    NotSupported,
    QuotaExhausted,
    Refused,
    ServerFault,
    TruncatedStream,
)
from contract.images import ImageRequest
from contract.result import Result
from workers.backends.google.chunks import ChunkReader
from workers.backends.google.requests import contents, to_chat, to_embed
from workers.scripted.script import vector

PNG = "iVBORw0KGgoAAAA="
USER = Message(role="user", content="hi")


def sse(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks)


def chunk(*parts: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})], **more}


async def answer(*packets: bytes, **options: Any) -> Result:
    async with against_bytes("gemini", *packets, **options) as backend:
        return await folded(backend.chat(chat_request("gemini-3-pro")))


def message_of(result: Result) -> Message:
    return Message(
        role="assistant",
        content=result.content,
        thinking=result.thinking or None,
        tool_calls=result.tool_calls,
        provider_meta=result.provider_meta,
    )


def sent_back(message: Message, *after: Message) -> list[dict[str, Any]]:
    request = ChatRequest(model="gemini-3-pro", messages=(USER, message, *after))
    return contents(request)[1:]


def signed(part: dict[str, Any], signature: str) -> dict[str, Any]:
    return part | {"thoughtSignature": signature}


def call(name: str, id: str | None = None, **args: Any) -> dict[str, Any]:
    return {"functionCall": {**({"id": id} if id else {}), "name": name, "args": args}}


ANSWERS: dict[str, list[dict[str, Any]]] = {
    "parallel calls, the first signed": [signed(call("f", "a", x=1), "S1"), call("f", "b", x=2)],
    "calls without ids": [signed(call("f", x=1), "S1"), call("g", y=[1, {"z": None}])],
    "text before a call": [{"text": "Let me look."}, signed(call("f"), "S1")],
    "an empty text that is signed": [{"text": "Hello."}, signed({"text": ""}, "S2")],
    "a signed text between others": [
        {"text": "One "},
        signed({"text": "two "}, "S1"),
        {"text": "three"},
    ],
    "two signed texts": [signed({"text": "a"}, "S1"), signed({"text": "b"}, "S2")],
    "text behind a call": [signed(call("f"), "S1"), {"text": "and"}, signed({"text": ""}, "S2")],
    "a signed thought": [
        signed({"text": "hm", "thought": True}, "S0"),
        {"text": "Yes 🌍"},
        signed({"text": ""}, "S1"),
    ],
}


@pytest.mark.parametrize("parts", ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_is_sent_back_with_the_same_parts(parts: list[dict[str, Any]]) -> None:
    end = chunk({"text": ""}, finish="STOP")
    result = await answer(sse(*(chunk(part) for part in parts), end))

    assert [{"role": "model", "parts": parts}] == sent_back(message_of(result))


@pytest.mark.parametrize("parts", ANSWERS.values(), ids=ANSWERS)
async def test_parts_may_share_a_chunk_and_survive_json(parts: list[dict[str, Any]]) -> None:
    result = await answer(sse(chunk(*parts, finish="STOP")))
    message = Message.model_validate_json(message_of(result).model_dump_json())

    assert [{"role": "model", "parts": parts}] == sent_back(message)


async def test_unsigned_thoughts_are_sent_back_as_one_part_and_text_is_joined() -> None:
    parts = [{"text": "hm", "thought": True}, {"text": "Hel"}, {"text": "lo"}]
    result = await answer(sse(*(chunk(part) for part in parts), chunk(finish="STOP")))

    assert (result.thinking, result.content) == ("hm", "Hello")
    sent = [{"text": "hm", "thought": True}, {"text": "Hello"}]
    assert sent_back(message_of(result)) == [{"role": "model", "parts": sent}]


async def test_an_edited_answer_goes_without_the_order_that_it_no_longer_has() -> None:
    result = await answer(sse(chunk(*ANSWERS["two signed texts"], finish="STOP")))
    edited = message_of(result).model_copy(update={"content": "something else"})

    assert sent_back(edited) == [{"role": "model", "parts": [{"text": "something else"}]}]


async def test_tools_are_used_over_two_turns_by_a_server_that_looks_at_signatures() -> None:
    lookup = Tool(name="lookup", parameters={"type": "object"})
    async with against_server("gemini") as (backend, _):
        request = chat_request("scripted-tools:calls=2", "x", tools=(lookup,))
        first = await folded(backend.chat(request))
        results = [
            Message(role="tool", content="7", tool_call_id=each.id, tool_name=each.name)
            for each in first.tool_calls
        ]
        messages = (*request.messages, message_of(first), *results)
        second = await folded(backend.chat(request.model_copy(update={"messages": messages})))
        bare = message_of(first).tool_calls[0].model_copy(update={"provider_meta": None})
        forged = Message(role="assistant", tool_calls=(bare,))
        messages = (*request.messages, forged, results[0])
        with pytest.raises(Exception, match="missing a thought_signature"):
            await folded(backend.chat(request.model_copy(update={"messages": messages})))

    assert len({each.id for each in first.tool_calls}) == 2
    assert second.status == "done"


def test_tool_results_are_one_turn_in_the_order_of_the_calls() -> None:
    calls = (ToolCall(id="a", name="f"), ToolCall(id="b", name="f"))
    turns = sent_back(
        Message(role="assistant", tool_calls=calls),
        Message(role="tool", content="second", tool_call_id="b"),
        Message(role="tool", content='{"n": 1}', tool_call_id="a"),
        USER,
    )

    assert [turn["role"] for turn in turns] == ["model", "user", "user"]
    assert turns[1]["parts"] == [
        {"functionResponse": {"name": "f", "response": {"n": 1}}},
        {"functionResponse": {"name": "f", "response": {"result": "second"}}},
    ]


def test_a_call_of_another_model_has_the_foreign_signature() -> None:
    message = Message(role="assistant", tool_calls=(ToolCall(id="a", name="f"),))

    assert sent_back(message)[0]["parts"][0]["thoughtSignature"].startswith("skip_thought")
    old = ChatRequest(model="gemini-2.5-flash", messages=(USER, message))
    assert "thoughtSignature" not in contents(old)[1]["parts"][0]


def test_arguments_that_are_no_object_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="JSON object"):
        sent_back(Message(role="assistant", tool_calls=(ToolCall(name="f", arguments="[1]"),)))


def chat(model: str = "gemini-3-pro", *messages: Message, **fields: Any) -> dict[str, Any]:
    return to_chat(ChatRequest(model=model, messages=messages or (USER,), **fields)).fields


def test_every_option_has_its_name() -> None:
    body = chat(temperature=0.5, top_p=0.9, top_k=7, seed=3, stop=("x",), max_tokens=5)

    assert body["generationConfig"] == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 7,
        "seed": 3,
        "stopSequences": ["x"],
        "maxOutputTokens": 5,
    }
    assert "generationConfig" not in chat()


def test_what_it_cannot_express_is_named() -> None:
    request = chat_request("m", min_p=0.1, keep_alive_s=1, truncate=True, shift=False)

    assert to_chat(request).ignored == ("min_p", "keep_alive_s", "truncate")


@pytest.mark.parametrize(
    ("model", "think", "config"),
    [
        ("gemini-2.5-flash", "off", {"thinkingBudget": 0}),
        ("gemini-2.5-flash", "high", {"thinkingBudget": 24_576, "includeThoughts": True}),
        ("gemini-3-flash", "off", {"thinkingLevel": "MINIMAL", "includeThoughts": False}),
        ("gemini-3-flash", "minimal", {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("gemini-3-pro", "medium", {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("gemini-3-pro", "xhigh", {"thinkingLevel": "HIGH", "includeThoughts": True}),
    ],
)
def test_thinking_is_configured_for_each_generation(
    model: str, think: Any, config: dict[str, Any]
) -> None:
    assert chat(model, think=think)["generationConfig"] == {"thinkingConfig": config}


def test_system_messages_and_images_have_their_places() -> None:
    pictures = (
        TextPart(text="what?"),
        ImagePart(image=PNG),
        ImagePart(image="data:image/gif;base64,R0lGODlh"),
    )
    body = chat(
        "m",
        Message(role="system", content="Be brief."),
        Message(role="user", content=pictures),
    )

    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert body["contents"][0]["parts"][1:] == [
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"inlineData": {"mimeType": "image/gif", "data": "R0lGODlh"}},
    ]


def test_an_image_by_address_is_not_for_it() -> None:
    part = ImagePart(image="https://example.com/a.png")
    with pytest.raises(NotSupported, match="not as URLs"):
        chat("m", Message(role="user", content=(part,)))


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (NamedTool(name="f"), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_tools_are_declared_and_chosen(choice: Any, config: dict[str, Any]) -> None:
    tool = Tool(name="f", description="finds", parameters={"type": "object"})
    body = chat(tools=(tool,), tool_choice=choice)

    declared = {"name": "f", "description": "finds", "parametersJsonSchema": {"type": "object"}}
    assert body["tools"] == [{"functionDeclarations": [declared]}]
    assert body["toolConfig"] == {"functionCallingConfig": config}


def test_a_schema_is_sent_as_json_schema() -> None:
    schema = {"type": "object"}
    kept = {"responseMimeType": "application/json", "responseJsonSchema": schema}

    assert chat(response_format=SchemaFormat(schema=schema))["generationConfig"] == kept
    assert chat(response_format=JsonFormat())["generationConfig"] == {
        "responseMimeType": "application/json"
    }


async def test_thoughts_are_billed_as_output() -> None:
    usage = {
        "promptTokenCount": 10,
        "toolUsePromptTokenCount": 1,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 4,
        "cachedContentTokenCount": 2,
    }
    early = {"usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 1}}
    result = await answer(
        sse(chunk({"text": "a"}) | early, chunk(finish="STOP", usageMetadata=usage))
    )

    assert result.usage is not None
    assert result.usage.model_dump(exclude={"partial"}) == {
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "cached_tokens": 2,
        "reasoning_tokens": 4,
    }


@pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "SPII", "PROHIBITED_CONTENT"])
async def test_an_answer_that_is_withheld_is_a_refusal(reason: str) -> None:
    result = await answer(sse(chunk({"text": "I wi"}), chunk(finish=reason)))

    assert result.finish_reason == "content_filter"
    assert reason in result.refusal
    assert result.content == "I wi"


async def test_a_prompt_that_is_blocked_is_a_refusal() -> None:
    blocked = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 4},
    }
    result = await answer(sse(blocked))

    assert result.finish_reason == "content_filter"
    assert result.refusal == "The prompt was blocked: SAFETY."


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER"])
async def test_an_abnormal_finish_reason_is_retryable(reason: str) -> None:
    with pytest.raises(ServerFault, match=reason):
        await answer(sse(chunk({"text": "a"}), chunk(finish=reason)))


ERROR = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps(ERROR, indent=2),
        json.dumps([ERROR], indent=2),
        json.dumps(ERROR, indent=2).replace("\n", "\r\n"),
        json.dumps(ERROR),
        f"data: {json.dumps(ERROR)}\n\n",
        "".join(f"data: {line}\n" for line in json.dumps(ERROR, indent=2).splitlines()) + "\n",
        f"event: error\ndata: {json.dumps(ERROR)}\n\n",
    ],
)
@pytest.mark.parametrize("size", [1, 11, 4096])
async def test_an_error_in_the_middle_is_seen_in_every_shape(raw: str, size: int) -> None:
    whole = sse(chunk({"text": "a"})) + raw.encode()
    with pytest.raises(BackendBusy, match="overloaded"):
        await answer(*(whole[at : at + size] for at in range(0, len(whole), size)))


@pytest.mark.parametrize("tail", [b"", b"da", b'data: {"candidates": [', b"data: [DONE]\n\n"])
async def test_an_answer_without_a_finish_reason_is_cut_off(tail: bytes) -> None:
    with pytest.raises(TruncatedStream):
        await answer(sse(chunk({"text": "a"})) + tail)


async def test_an_array_that_was_not_streamed_is_read_all_the_same() -> None:
    raw = json.dumps([chunk({"text": "a"}), chunk({"text": "b"}, finish="STOP")]).encode()
    result = await answer(raw, content_type="application/json; charset=UTF-8")

    assert (result.content, result.finish_reason) == ("ab", "stop")


CHUNKS = sse(chunk({"text": "é"}), chunk({"text": "🌍"}, finish="STOP"))


def items(reader: ChunkReader, packets: list[bytes]) -> list[Any]:
    """What a reader gives for these packets; an error by its class, as the last."""
    found: list[Any] = []
    try:
        for packet in packets:
            found += reader.feed(packet)
        found += reader.flush()
    except BackendError as error:
        found.append(type(error))
    return found


@given(st.one_of(st.binary(), st.text(alphabet='data:{}[]"\r\n e1,').map(str.encode)))
def test_no_bytes_are_too_strange_for_the_reader(raw: bytes) -> None:
    found = items(ChunkReader(), [raw])

    assert all(isinstance(item, dict | type) for item in found)


@given(st.lists(st.integers(0, len(CHUNKS)), max_size=8).map(sorted))
def test_chunks_are_the_same_wherever_they_are_cut(cuts: list[int]) -> None:
    edges = [0, *cuts, len(CHUNKS)]
    packets = [CHUNKS[start:end] for start, end in pairwise(edges)]

    assert items(ChunkReader(), packets) == items(ChunkReader(), [CHUNKS])


def refusal(code: int, status: str, *details: dict[str, Any], message: str = "no") -> bytes:
    error = {"code": code, "message": message, "status": status, "details": list(details)}
    return json.dumps({"error": error}, indent=2).encode()


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12.5s"}
QUOTA = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
}
REASON = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}


async def test_a_busy_answer_names_its_wait_in_the_details() -> None:
    with pytest.raises(BackendBusy) as caught:
        await answer(refusal(429, "RESOURCE_EXHAUSTED", RETRY), status=429)

    assert caught.value.retry_after_s == 12.5


async def test_a_daily_quota_is_not_retryable() -> None:
    with pytest.raises(QuotaExhausted):
        await answer(refusal(429, "RESOURCE_EXHAUSTED", QUOTA, RETRY), status=429)


async def test_a_key_that_is_no_key_is_not_a_bad_request() -> None:
    with pytest.raises(AuthenticationRefused):
        await answer(refusal(400, "INVALID_ARGUMENT", REASON), status=400)


async def test_the_key_goes_into_its_header_and_into_no_error() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(400, content=refusal(400, "INVALID_ARGUMENT", message="k3y is odd"))

    async with against_bytes("gemini", handler=handler) as backend:
        with pytest.raises(Exception, match=r"\*\*\* is odd"):
            await folded(backend.chat(chat_request("gemini-3-pro")))

    assert seen[0].headers["x-goog-api-key"] == "k3y"
    assert "authorization" not in seen[0].headers
    assert seen[0].url.path == "/v1beta/models/gemini-3-pro:streamGenerateContent"


@pytest.mark.parametrize("type", ["gemini", "vertex"])
@pytest.mark.parametrize("model", ["../files/x", "models//x", "publishers/../x"])
async def test_a_name_does_not_lead_to_other_paths(type: str, model: str) -> None:
    async with against_bytes(type, b"") as backend:
        with pytest.raises(ModelMissing, match="not a valid Google model name"):
            await folded(backend.chat(chat_request(model)))


async def test_a_list_of_many_pages_is_read_to_its_end() -> None:
    async with against_server("gemini") as (backend, _):
        models = {model.name: model for model in await backend.models()}

    assert models["scripted-think"].traits == ("chat", "thinking")
    assert models["scripted-embed"].traits == ("embed",)
    story = models["scripted-story"]
    assert (story.context_length, story.max_output_tokens) == (8192, 2048)


async def test_texts_are_sent_in_hundreds_and_vectors_normalized() -> None:
    texts = tuple(f"text {number}" for number in range(101))
    async with against_server("gemini") as (backend, server):
        request = EmbedRequest(model="scripted-embed", input=texts, dimensions=8)
        result = await folded(backend.embed(request))

    assert server.seen.requests.total() == 2
    assert unpack(result.embeddings.data, 8)[100] == pytest.approx(vector("text 100", 8), abs=1e-6)


async def test_images_are_made_one_a_request_and_a_refusal_is_one() -> None:
    async with against_server("gemini") as (backend, server):
        request = ImageRequest(
            model="scripted-image", prompt="a cat", count=2, width=1600, height=900
        )
        result = await folded(backend.image(request))
        refused = ImageRequest(model="scripted-image:fail=refuse", prompt="a cat")
        with pytest.raises(Refused, match="IMAGE_SAFETY"):
            await folded(backend.image(refused))

    assert server.seen.requests.total() == 3
    assert [image.index for image in result.images] == [0, 1]
    assert result.usage.completion_tokens == 2580


async def test_a_picture_is_seen() -> None:
    message = Message(role="user", content=(TextPart(text="look"), ImagePart(image=PNG)))
    async with against_server("gemini") as (backend, _):
        result = await folded(backend.chat(ChatRequest(model="scripted-echo", messages=(message,))))

    assert result.content == "look [images: 1]"


@pytest.mark.parametrize("style", ["llamacpp", "vllm", "openai"])
async def test_an_error_in_the_middle_is_seen_on_a_socket(style: str) -> None:
    async with against_server("gemini") as (backend, _):
        with pytest.raises(ServerFault, match="scripted error in the middle"):
            await folded(backend.chat(chat_request(f"scripted-story:fail=error:2,style={style}")))


async def test_a_schema_and_a_tool_reach_the_server() -> None:
    seen: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(from_json(request.content))
        body = sse(chunk({"text": "{}"}, finish="STOP"))
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)

    async with against_bytes("gemini", handler=handler) as backend:
        request = chat_request(
            "gemini-3-pro", response_format=SchemaFormat(schema={"type": "object"})
        )
        result = await folded(backend.chat(request))

    assert result.content == "{}"
    assert seen[0]["generationConfig"]["responseJsonSchema"] == {"type": "object"}


def test_a_task_of_an_embedding_is_googles_word_for_it() -> None:
    body = to_embed(EmbedRequest(model="m", input=("a",), task="query"), "models/m", ("a",))

    assert body["requests"][0]["taskType"] == "RETRIEVAL_QUERY"
