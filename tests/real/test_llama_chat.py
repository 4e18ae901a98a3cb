"""The OpenAI adapter against the real llama-server: chats."""

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from contract.chat import ChatRequest, JsonFormat, Message, SchemaFormat, Tool
from contract.embeddings import EmbedRequest
from contract.errors import (
    BackendError,
    BackendUnreachable,
    ContextExceeded,
    NotSupported,
)
from contract.events import Delta, Done
from fleet.real.run_llama_server import LlamaServer, running_llama_server
from fleet.real.tiny_model import TinyShape, tiny_model, write_model
from workers.backends.openai.adapter import OpenAI
from workers.backends.openai.dialects import LLAMACPP

pytestmark = pytest.mark.real


def speaking(server: LlamaServer) -> aclosing[OpenAI]:
    return aclosing(OpenAI("llamacpp", server.url, LLAMACPP))


def ask(content: str = "Tell me of the queue.", **fields: Any) -> ChatRequest:
    return ChatRequest(model="tiny", messages=(Message(role="user", content=content),), **fields)


async def answer(server: LlamaServer, request: ChatRequest) -> tuple[list[Delta], Done]:
    async with speaking(server) as backend:
        events = [event async for event in backend.chat(request)]
    assert isinstance(events[-1], Done)
    return [event for event in events if isinstance(event, Delta)], events[-1]


def read(server: LlamaServer, path: str) -> Any:
    """What the server itself says, asked without the adapter."""
    with urllib.request.urlopen(server.root + path) as response:
        return json.load(response)


def text(deltas: list[Delta]) -> str:
    return "".join(delta.content or "" for delta in deltas)


async def test_a_chat_streams_to_its_last_word_with_usage(chat_server: LlamaServer) -> None:
    deltas, done = await answer(chat_server, ask(seed=1))

    assert len(deltas) > 3
    assert done.finish_reason == "stop"
    assert done.usage.prompt_tokens > 5
    assert done.usage.completion_tokens >= len(deltas)


async def test_max_tokens_ends_it_with_length(chat_server: LlamaServer) -> None:
    _, done = await answer(chat_server, ask(seed=1, max_tokens=3))

    assert done.finish_reason == "length"
    assert done.usage.completion_tokens == 3


async def test_a_seed_gives_the_same_text_again(chat_server: LlamaServer) -> None:
    once, again, other = [
        text((await answer(chat_server, ask(seed=seed, temperature=1)))[0]) for seed in (1, 1, 2)
    ]

    assert once == again
    assert once != other


async def test_a_stop_word_cuts_the_answer_before_it(chat_server: LlamaServer) -> None:
    whole = text((await answer(chat_server, ask(seed=1)))[0])
    word = whole.split()[2]
    deltas, done = await answer(chat_server, ask(seed=1, stop=(word,)))

    assert text(deltas) == whole[: whole.index(word)]
    assert done.finish_reason == "stop"


async def test_sixteen_at_once_each_get_an_answer(chat_server: LlamaServer) -> None:
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(answer(chat_server, ask(seed=at, max_tokens=8))) for at in range(16)
        ]

    assert all(task.result()[1].usage.completion_tokens > 0 for task in asked)


async def test_an_answer_that_began_is_continued_not_repeated(chat_server: LlamaServer) -> None:
    said = "The queue is"
    messages = (Message(role="user", content="Go on."), Message(role="assistant", content=said))
    request = ChatRequest(model="tiny", messages=messages, seed=1, max_tokens=8)
    deltas, _ = await answer(chat_server, request)

    assert not text(deltas).startswith(said)
    assert text(deltas).startswith(" ")


async def test_a_prompt_longer_than_the_context_is_told_apart(chat_server: LlamaServer) -> None:
    with pytest.raises(ContextExceeded):
        await answer(chat_server, ask("the queue " * 9000))


@pytest.mark.parametrize(
    "wanted",
    [
        SchemaFormat(
            schema_={
                "type": "object",
                "properties": {"city": {"enum": ["Oslo", "Rome"]}},
                "required": ["city"],
                "additionalProperties": False,
            }
        ),
        JsonFormat(),
    ],
)
async def test_a_wanted_format_is_kept(
    chat_server: LlamaServer, wanted: SchemaFormat | JsonFormat
) -> None:
    deltas, done = await answer(chat_server, ask(seed=1, response_format=wanted, max_tokens=400))

    assert text(deltas).lstrip().startswith("{")
    if isinstance(wanted, SchemaFormat):
        assert done.finish_reason == "stop"
        assert json.loads(text(deltas))["city"] in {"Oslo", "Rome"}


async def test_the_roster_hears_what_the_server_tells(chat_server: LlamaServer) -> None:
    told = await asyncio.to_thread(read, chat_server, "/props")
    async with speaking(chat_server) as backend:
        version, slots, (report,) = (
            await backend.check(), await backend.slots(), await backend.models()
        )  # fmt: skip

    assert version == told["build_info"]
    assert slots == told["total_slots"] == 16
    assert report.context_length == told["default_generation_settings"]["n_ctx"]
    assert report.traits == ("chat", "schema", "tools")
    assert report.warm is True


async def test_a_model_that_chats_does_not_embed(chat_server: LlamaServer) -> None:
    async with speaking(chat_server) as backend:
        with pytest.raises(NotSupported):
            await anext(backend.embed(EmbedRequest(model="tiny", input=("a",))))


async def test_a_port_where_nobody_listens_is_unreachable() -> None:
    async with aclosing(OpenAI("llamacpp", "http://127.0.0.1:9/v1", LLAMACPP)) as backend:
        with pytest.raises(BackendUnreachable):
            await anext(backend.chat(ask()))


@pytest.fixture
def talkative(llama_binary: Path, tmp_path: Path) -> Iterator[LlamaServer]:
    """One slot whose answers fill the whole context."""
    write_model(tmp_path / "talkative.gguf", TinyShape(mean_answer_tokens=1_000_000_000))
    with running_llama_server(model=tmp_path / "talkative.gguf", slots=1) as server:
        yield server


def slots_at_work(server: LlamaServer) -> int:
    return sum(slot["is_processing"] for slot in read(server, "/slots"))


async def test_closing_the_stream_frees_the_servers_slot(talkative: LlamaServer) -> None:
    async with speaking(talkative) as backend, aclosing(backend.chat(ask())) as stream:
        await anext(stream)
        assert await asyncio.to_thread(slots_at_work, talkative) == 1
        await stream.aclose()
        async with asyncio.timeout(2):
            while await asyncio.to_thread(slots_at_work, talkative):
                pass


async def test_a_server_that_dies_in_the_middle_is_an_error_that_a_retry_may_help(
    talkative: LlamaServer,
) -> None:
    async with speaking(talkative) as backend, aclosing(backend.chat(ask())) as stream:
        await anext(stream)
        talkative.process.kill()
        with pytest.raises(BackendError) as error:
            async for _ in stream:
                pass

    assert error.value.retryable


@pytest.fixture(scope="module")
def tools_server(llama_binary: Path) -> Iterator[LlamaServer]:
    with running_llama_server(model=tiny_model(calls_tools=True), slots=1) as server:
        yield server


async def test_a_tool_call_arrives_whole_and_valid(tools_server: LlamaServer) -> None:
    city = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"]}  # fmt: skip
    tools = (Tool(name="get_weather", description="Weather of a city", parameters=city),)
    request = ask(tools=tools, tool_choice="required", seed=3, max_tokens=600)
    deltas, done = await answer(tools_server, request)
    calls = [call for delta in deltas for call in delta.tool_calls or () if call.index == 0]

    assert done.finish_reason == "tool_calls"
    assert [call.name for call in calls if call.name] == ["get_weather"]
    arguments = json.loads("".join(call.arguments or "" for call in calls))
    assert arguments["city"] in {"Oslo", "Rome"}


async def test_raw_text_and_ids_of_tokens_are_continued(chat_server: LlamaServer) -> None:
    request = ChatRequest(model="tiny", prompt="The queue", max_tokens=8, seed=1)
    deltas, done = await answer(chat_server, request)
    ids, _ = await answer(chat_server, request.model_copy(update={"prompt": (5, 6, 7)}))

    assert text(deltas)
    assert text(ids)
    assert done.finish_reason in {"length", "stop"}
    assert 0 < done.usage.completion_tokens <= 8


@pytest.mark.parametrize("fields", [{"prompt": "The queue"}, {}])
async def test_it_tells_how_likely_each_token_was(
    fields: dict[str, Any], chat_server: LlamaServer
) -> None:
    asked = ChatRequest(**fields, model="tiny") if fields else ask()
    request = asked.model_copy(update={"logprobs": True, "top_logprobs": 2, "max_tokens": 6})
    deltas, done = await answer(chat_server, request)
    likely = [each for delta in deltas for each in delta.logprobs or ()]

    # Of an answer that ends by itself the last token is counted, and mostly not told.
    untold = done.usage.completion_tokens - len(likely)
    assert 0 <= untold <= (done.finish_reason == "stop")
    assert all(each.logprob <= 0 and len(each.top_logprobs) == 2 for each in likely)
