"""Every adapter behaves alike, over a real socket.

Subjects: workers/backends/protocols.py.
"""

import asyncio

import pytest
from support.backends import (
    ALL,
    NETWORKED,
    OPENAI_SHAPED,
    against_server,
    chat_request,
    folded,
)

from contract.chat import CountRequest, ImagePart, Message, NamedTool, TextPart, Tool
from contract.embeddings import EmbedRequest, unpack
from contract.errors import (
    BadAnswer,
    ModelMissing,
)
from contract.events import Delta, Done
from workers.backends.protocols import Backend, Chat, CountTokens, Embed
from workers.scripted.script import NOTICE, STORY, vector

TEXT = "héllo wörld, do you hear me 🌍🌍"
LOOKUP = Tool(name="lookup", parameters={"type": "object"})

every = pytest.mark.parametrize("type", ALL)
networked = pytest.mark.parametrize("type", NETWORKED)


@every
async def test_a_backend_is_what_the_protocols_say(type: str) -> None:
    async with against_server(type) as (backend, _):
        assert isinstance(backend, Backend)
        assert isinstance(backend, Chat)
        assert isinstance(backend, Embed)
        await backend.check()
        assert "scripted-story" in {model.name for model in await backend.models()}


@every
async def test_an_answer_arrives_word_by_word_and_ends_with_one_terminal_event(type: str) -> None:
    async with against_server(type) as (backend, _):
        events = [event async for event in backend.chat(chat_request("scripted-echo", TEXT))]

    assert all(isinstance(event, Delta) for event in events[:-1])
    assert isinstance(events[-1], Done)
    assert "".join(event.content for event in events[:-1]) == TEXT
    assert len(events) == 8


@pytest.mark.parametrize("type", ["llamacpp", "vllm", "ollama", "scripted"])
async def test_the_tokens_of_a_prompt_are_counted_without_its_images(type: str) -> None:
    picture = ImagePart(image="iVBORw0KGgoAAAAN")
    messages = (
        Message(role="user", content="one two three"),
        Message(role="assistant", content="four"),
        Message(role="user", content=(TextPart(text="five six"), picture)),
    )
    request = CountRequest(model="scripted-tools", messages=messages, tools=(LOOKUP,))
    async with against_server(type) as (backend, _):
        assert isinstance(backend, CountTokens)
        result = await folded(backend.count(request))

    words = 2 if type == "ollama" else 6  # the scripted Ollama counts the last message alone
    assert result.details == {"input_tokens": words}


@every
async def test_usage_is_read_behind_the_finish(type: str) -> None:
    async with against_server(type) as (backend, _):
        result = await folded(backend.chat(chat_request("scripted-echo", "one two three")))

    assert result.usage is not None
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (3, 3)


@networked
async def test_usage_beside_the_finish_is_read_and_none_is_no_fault(type: str) -> None:
    async with against_server(type) as (backend, _):
        beside = await folded(backend.chat(chat_request("scripted-echo:usage=with", "one two")))
        missing = await folded(backend.chat(chat_request("scripted-echo:usage=none", "one two")))

    assert beside.usage is not None
    assert beside.usage.completion_tokens == 2
    assert missing.status == "done"


@every
async def test_thinking_is_separate_from_content(type: str) -> None:
    async with against_server(type) as (backend, _):
        result = await folded(backend.chat(chat_request("scripted-think:think=4,chunks=2")))

    assert result.thinking == " The user wants to"
    assert result.content == "This is"


@pytest.mark.parametrize("style", ["llamacpp", "vllm"])
async def test_reasoning_is_read_under_both_its_names(style: str) -> None:
    # litellm #20246, Qwen-Agent #843: a field of another name is dropped without a word.
    async with against_server("generic") as (backend, _):
        result = await folded(backend.chat(chat_request(f"scripted-think:think=4,style={style}")))

    assert result.thinking == " The user wants to"


@every
async def test_parallel_tool_calls_are_put_together(type: str) -> None:
    async with against_server(type) as (backend, _):
        result = await folded(
            backend.chat(chat_request("scripted-tools:calls=2", "hi", tools=(LOOKUP,)))
        )

    assert result.finish_reason == "tool_calls"
    assert [call.name for call in result.tool_calls] == ["lookup", "lookup"]
    assert result.tool_calls[1].arguments == '{"query":"hi","number":1}'
    assert len({call.id for call in result.tool_calls}) == 2


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ("text", '{"query":"x","number":0}'),
        ("object", '{"query":"x","number":0}'),
        ("null", "{}"),
        ("empty", "{}"),
    ],
)
@pytest.mark.parametrize("type", OPENAI_SHAPED)
async def test_arguments_may_be_text_an_object_or_nothing(
    type: str, shape: str, arguments: str
) -> None:
    async with against_server(type) as (backend, _):
        model = f"scripted-tools:arguments={shape}"
        result = await folded(backend.chat(chat_request(model, "x", tools=(LOOKUP,))))

    assert arguments == result.tool_calls[0].arguments


@every
async def test_an_answer_cut_by_its_length_has_finish_reason_length(type: str) -> None:
    async with against_server(type) as (backend, _):
        result = await folded(backend.chat(chat_request("scripted-story", max_tokens=3)))

    assert result.finish_reason == "length"
    assert result.content == "This is the"


@pytest.mark.parametrize("type", ["ollama", "llamacpp", "vllm", "scripted"])
async def test_a_trailing_assistant_message_is_continued(type: str) -> None:
    request = chat_request("scripted-story")
    prefill = Message(role="assistant", content=NOTICE[:40])
    async with against_server(type) as (backend, _):
        assert await backend.prefills("scripted-story")
        result = await folded(
            backend.chat(request.model_copy(update={"messages": (*request.messages, prefill)}))
        )

    assert prefill.text + result.content == NOTICE + STORY


WIRES = ["trickle", "crlf", "multiline", "split", "trickle+crlf+multiline"]


@pytest.mark.parametrize("wire", WIRES)
@networked
async def test_the_answer_is_the_same_however_its_bytes_are_cut(type: str, wire: str) -> None:
    if type == "ollama" and "multiline" in wire:
        wire = wire.replace("+multiline", "").replace("multiline", "split")
    async with against_server(type) as (backend, _):
        result = await folded(backend.chat(chat_request(f"scripted-echo:wire={wire}", TEXT)))

    assert result.content == TEXT


@networked
async def test_a_line_of_ten_megabytes_arrives_whole(type: str) -> None:
    async with against_server(type) as (backend, _):
        result = await folded(backend.chat(chat_request("scripted-echo:size=10000000", "x y")))

    assert len(result.content) == 10_000_002


@every
async def test_each_vector_is_yielded_once_and_in_order(type: str) -> None:
    texts = tuple(f"text number {number}" for number in range(150))
    async with against_server(type) as (backend, _):
        request = EmbedRequest(model="scripted-embed:wire=unordered,dim=8", input=texts)
        result = await folded(backend.embed(request))

    assert result.embeddings is not None
    assert result.embeddings.count == 150
    rows = unpack(result.embeddings.data, 8)
    assert [pytest.approx(vector(text, 8), abs=1e-6) for text in texts] == rows
    assert result.usage is not None
    assert result.usage.prompt_tokens == 450


@networked
async def test_a_vector_too_few_is_an_error(type: str) -> None:
    async with against_server(type) as (backend, _):
        request = EmbedRequest(model="scripted-embed:wire=short", input=("a", "b"))
        with pytest.raises(BadAnswer, match="1 vectors for 2 texts"):
            await folded(backend.embed(request))


@pytest.mark.parametrize("type", OPENAI_SHAPED)
async def test_vectors_may_be_numbers_although_base64_was_requested(type: str) -> None:
    async with against_server(type) as (backend, _):
        request = EmbedRequest(model="scripted-embed:wire=float,dim=4", input=("a",))
        result = await folded(backend.embed(request))

    assert result.embeddings is not None
    assert result.embeddings.dimension == 4


@every
async def test_an_unknown_model_is_missing(type: str) -> None:
    async with against_server(type) as (backend, _):
        with pytest.raises(ModelMissing):
            await folded(backend.chat(chat_request("nobody-knows-it")))


@every
async def test_many_streams_run_beside_each_other(type: str) -> None:
    async with against_server(type) as (backend, _):
        requests = [chat_request("scripted-story:chunks=2") for _ in range(200)]
        results = await asyncio.gather(*(folded(backend.chat(request)) for request in requests))

    assert {"This is"} == {result.content for result in results}


async def test_a_named_tool_is_forced_where_only_required_is_known() -> None:
    async with against_server("llamacpp") as (backend, _):
        other = Tool(name="other")
        result = await folded(
            backend.chat(
                chat_request(
                    "scripted-tools",
                    tools=(LOOKUP, other),
                    tool_choice=NamedTool(name="other"),
                )
            )
        )

    assert result.tool_calls[0].name == "other"
