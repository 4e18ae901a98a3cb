"""OpenVINO GenAI inside the worker, with tiny models: a GGUF, its export, and one that embeds."""

import asyncio
import json
import shutil
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.in_process import answer, ask, embed, events_of, needed

from contract.chat import ChatRequest, NamedTool, SchemaFormat, Tool
from contract.errors import (
    BadEndpoint,
    ContextExceeded,
    InputTooLarge,
    ModelMissing,
    NotSupported,
)
from contract.events import Delta, Done, Phase
from contract.models import UnloadRequest
from fleet.real.tiny_model import TinyShape, tiny_model, write_model
from fleet.real.tiny_openvino import MAX_TOKENS, WIDTH, exported_chat, exported_embedder
from workers.backend_registry import build
from workers.backends.dsn import parse
from workers.backends.in_process.adapter import InMemory
from workers.backends.in_process.openvino import openvino
from workers.backends.protocols import HasModelLease, capabilities

needed("openvino_genai")
pytestmark = pytest.mark.real

CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two GGUF files, the second of which talks for ever, and two exported models."""
    place = tmp_path_factory.mktemp("models")
    shutil.copy(tiny_model(), place / "tiny.gguf")
    write_model(place / "talkative.gguf", TinyShape(mean_answer_tokens=1_000_000_000))
    exported_embedder(place, exported_chat(place))
    return place


def running_in(path: Path, **options: Any) -> aclosing[InMemory]:
    return aclosing(openvino("openvino", path, {"threads": "1", **options}))


@pytest.mark.parametrize("model", ["tiny", "tiny-chat"])
async def test_a_chat_streams_to_its_last_word_with_usage(folder: Path, model: str) -> None:
    async with running_in(folder) as backend:
        request = ask(model=model, seed=3, temperature=1)
        loading, *deltas, done = await events_of(backend, request)

    assert loading == Phase(phase="loading")
    assert deltas
    assert all(isinstance(delta, Delta) for delta in deltas)
    assert isinstance(done, Done)
    assert done.finish_reason == "stop"
    assert done.usage.prompt_tokens == 30
    assert done.usage.completion_tokens >= len(deltas)
    assert done.timings.load_ms


async def test_a_seed_gives_the_same_text_again(folder: Path) -> None:
    async with running_in(folder) as backend:
        once, again, other = [
            (await answer(backend, ask(model="talkative", seed=seed, temperature=1, max_tokens=9)))[
                0
            ]
            for seed in (1, 1, 2)
        ]

    assert once == again
    assert once != other


async def test_max_tokens_ends_it_with_length(folder: Path) -> None:
    async with running_in(folder) as backend:
        _, done = await answer(backend, ask(model="talkative", max_tokens=3))

    assert (done.finish_reason, done.usage.completion_tokens) == ("length", 3)


async def test_a_stop_word_cuts_the_answer_before_it(folder: Path) -> None:
    wish = {"model": "talkative", "seed": 1, "temperature": 1, "max_tokens": 30}
    async with running_in(folder) as backend:
        whole, _ = await answer(backend, ask(**wish))
        word = whole.split()[3]
        text, done = await answer(backend, ask(**wish, stop=(word,)))

    assert text == whole[: whole.index(word)]
    assert done.finish_reason == "stop"


async def test_a_schema_is_kept(folder: Path) -> None:
    request = ask(response_format=SchemaFormat(schema_=CITY), temperature=1, seed=1)
    async with running_in(folder) as backend:
        text, done = await answer(backend, request)

    assert json.loads(text)["city"] in {"Oslo", "Rome"}
    assert done.finish_reason == "stop"


async def test_a_call_that_must_be_made_is_whole_and_valid(folder: Path) -> None:
    tools = (Tool(name="get_weather", parameters=CITY), Tool(name="other"))
    choice = NamedTool(name="get_weather")
    request = ask(tools=tools, tool_choice=choice, temperature=1, seed=1)
    async with running_in(folder) as backend:
        *_, delta, done = await events_of(backend, request)

    assert isinstance(delta, Delta)
    assert delta.tool_calls
    assert delta.tool_calls[0].name == "get_weather"
    assert json.loads(delta.tool_calls[0].arguments or "")["city"] in {"Oslo", "Rome"}
    assert isinstance(done, Done)
    assert done.finish_reason == "tool_calls"


async def test_a_prompt_longer_than_the_context_is_told_apart(folder: Path) -> None:
    async with running_in(folder, n_ctx="64") as backend:
        with pytest.raises(ContextExceeded, match="64"):
            await answer(backend, ask("the queue " * 100))


async def test_a_closed_stream_stops_between_two_tokens(folder: Path) -> None:
    async with running_in(folder, n_ctx="1000000") as backend:
        stream = backend.chat(ask(model="talkative"))
        async for event in stream:
            if isinstance(event, Delta):
                break
        async with asyncio.timeout(2):
            await stream.aclose()
            _, done = await answer(backend, ask(model="talkative", max_tokens=2))

    assert done.usage.completion_tokens == 2


async def test_one_model_is_in_memory_until_it_is_unloaded(folder: Path) -> None:
    async with running_in(folder) as backend:
        await answer(backend, ask(max_tokens=1))
        await embed(backend, "a", model="tiny-embed")
        warm = [report.name for report in await backend.models() if report.warm]
        _ = [event async for event in backend.unload(UnloadRequest(model="tiny-embed"))]
        cold = [report.name for report in await backend.models() if report.warm]

    assert (warm, cold) == (["tiny-embed"], [])


async def test_the_roster_hears_what_the_models_can_do(folder: Path) -> None:
    async with running_in(folder) as backend:
        reports = {report.name: report for report in await backend.models()}

    assert set(reports) == {"tiny", "talkative", "tiny-chat", "tiny-embed"}
    assert reports["tiny-chat"].traits == ("chat", "schema", "tools")
    assert reports["tiny-chat"].context_length == 8192
    assert reports["tiny-embed"].traits == ("embed",)
    assert reports["tiny-embed"].dimension == WIDTH


async def test_vectors_have_length_one_and_the_order_of_their_texts(folder: Path) -> None:
    texts = [f"the queue {at}" for at in range(40)]
    async with running_in(folder / "tiny-embed") as backend:
        rows, done = await embed(backend, *texts, model="tiny-embed")
        (alone,), _ = await embed(backend, texts[23], model="tiny-embed")

    array = np.array(rows)
    assert array.shape == (40, WIDTH)
    assert np.linalg.norm(array, axis=1) == pytest.approx(np.ones(40), abs=1e-5)
    assert int((array @ np.array(alone)).argmax()) == 23
    assert done.usage.prompt_tokens > 100


async def test_a_text_that_is_too_long_is_cut_or_refused(folder: Path) -> None:
    long = "the queue " * 200
    async with running_in(folder) as backend:
        _, done = await embed(backend, long, model="tiny-embed")
        with pytest.raises(InputTooLarge, match=r"input\[1\]"):
            await embed(backend, "a", long, model="tiny-embed", truncate=False)

    assert done.usage.prompt_tokens == MAX_TOKENS


async def test_a_model_that_chats_does_not_embed(folder: Path) -> None:
    async with running_in(folder) as backend:
        with pytest.raises(NotSupported, match="cannot embed"):
            await embed(backend, "a")


async def test_a_model_that_embeds_does_not_chat(folder: Path) -> None:
    async with running_in(folder) as backend:
        with pytest.raises(NotSupported, match="embedding model"):
            await answer(backend, ask(model="tiny-embed"))


async def test_what_is_no_model_is_told_apart(tmp_path: Path) -> None:
    async with running_in(tmp_path) as backend:
        with pytest.raises(ModelMissing):
            await backend.check()
        (tmp_path / "tiny.gguf").write_bytes(b"GGUF, it says")
        with pytest.raises(BadEndpoint, match="tiny"):
            await answer(backend, ask())


async def test_a_line_makes_a_backend_that_can_all_this(folder: Path) -> None:
    backend = build(parse("LLM_BOX", f"openvino://{folder}?device=CPU&threads=1"))

    assert capabilities(backend) == ("chat", "embed", "list", "running", "load", "unload")
    assert isinstance(backend, HasModelLease)
    await backend.aclose()


async def test_raw_text_is_continued_with_no_template_around_it(folder: Path) -> None:
    request = ChatRequest(
        model="talkative", prompt="The queue", max_tokens=4, seed=1, presence_penalty=0.5
    )
    async with running_in(folder) as backend:
        text, done = await answer(backend, request)

    assert text
    assert done.usage.prompt_tokens < 10
    assert done.usage.completion_tokens <= 4
