"""llama.cpp inside the worker, through the real llama-cpp-python and a tiny model."""

import asyncio
import json
import shutil
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.in_process import answer, ask, embed, events_of, needed

from contract.chat import ChatRequest, ImagePart, JsonFormat, Message, NamedTool, SchemaFormat, Tool
from contract.errors import (
    BackendBusy,
    BadEndpoint,
    ContextExceeded,
    InputTooLarge,
    ModelMissing,
    NotSupported,
)
from contract.events import Delta, Details, Done, Phase
from contract.models import LoadRequest, UnloadRequest
from fleet.real.tiny_model import DEFAULT, TinyShape, tiny_model, write_model
from workers.backend_registry import build
from workers.backends.dsn import parse
from workers.backends.in_process import resident
from workers.backends.in_process.adapter import InMemory
from workers.backends.in_process.gguf_files import size_bytes
from workers.backends.in_process.llamacpp import llama
from workers.backends.protocols import HasModelLease, capabilities

needed("llama_cpp")
pytestmark = pytest.mark.real

CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = (Tool(name="get_weather", parameters=CITY), Tool(name="get_time", parameters=CITY))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models that end their answers, one that never does."""
    place = tmp_path_factory.mktemp("models")
    shutil.copy(tiny_model(), place / "tiny.gguf")
    shutil.copy(tiny_model(), place / "other.gguf")
    write_model(place / "talkative.gguf", TinyShape(mean_answer_tokens=1_000_000_000))
    return place


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return folder / "tiny.gguf"


def running_in(path: Path, **options: Any) -> aclosing[InMemory]:
    return aclosing(llama("llama", path, {"threads": "1", **options}))


async def loaded(backend: InMemory) -> list[str]:
    told = [event async for event in backend.running()]
    assert isinstance(told[0], Details)
    return [model["model"] for model in told[0].details["models"]]


async def test_a_chat_streams_to_its_last_word_with_usage(file: Path) -> None:
    async with running_in(file) as backend:
        loading, *deltas, done = await events_of(backend, ask(seed=1))

    assert loading == Phase(phase="loading")
    assert len(deltas) > 3
    assert all(isinstance(delta, Delta) for delta in deltas)
    assert isinstance(done, Done)
    assert done.finish_reason == "stop"
    assert done.usage.prompt_tokens == 30
    assert done.usage.completion_tokens == len(deltas)
    assert done.timings.load_ms


async def test_the_second_chat_finds_the_model_and_most_of_its_prompt_read(file: Path) -> None:
    async with running_in(file) as backend:
        first = await answer(backend, ask(seed=1))
        events = await events_of(backend, ask(seed=1))
        second = await answer(backend, ask(seed=1))

    assert not isinstance(events[0], Phase)
    assert first[0] == second[0]
    assert second[1].usage.cached_tokens == 29


async def test_max_tokens_ends_it_with_length(file: Path) -> None:
    async with running_in(file) as backend:
        _, done = await answer(backend, ask(seed=1, max_tokens=3))

    assert (done.finish_reason, done.usage.completion_tokens) == ("length", 3)


async def test_a_stop_word_cuts_the_answer_before_it(file: Path) -> None:
    async with running_in(file) as backend:
        whole, _ = await answer(backend, ask(seed=1))
        word = whole.split()[2]
        text, done = await answer(backend, ask(seed=1, stop=(word,)))

    assert text == whole[: whole.index(word)]
    assert done.finish_reason == "stop"


async def test_without_a_seed_no_two_are_the_same(file: Path) -> None:
    async with running_in(file) as backend, running_in(file) as another:
        once, other = [(await answer(b, ask(temperature=1)))[0] for b in (backend, another)]

    assert once != other


async def test_an_answer_that_began_is_continued(file: Path) -> None:
    messages = (Message(role="user", content="Go on."), Message(role="assistant", content="It is"))
    async with running_in(file) as backend:
        text, _ = await answer(backend, ask(messages=messages, seed=1, max_tokens=8))

    assert text.startswith(" ")


@pytest.mark.parametrize("wanted", [SchemaFormat(schema_=CITY), JsonFormat()])
async def test_a_wanted_format_is_kept(file: Path, wanted: SchemaFormat | JsonFormat) -> None:
    async with running_in(file) as backend:
        text, done = await answer(backend, ask(seed=1, response_format=wanted, max_tokens=400))

    assert text.startswith("{")
    if isinstance(wanted, SchemaFormat):
        assert done.finish_reason == "stop"
        assert json.loads(text)["city"] in {"Oslo", "Rome"}


@pytest.mark.parametrize("choice", ["required", NamedTool(name="get_time")])
async def test_a_call_that_must_be_made_is_whole_and_valid(file: Path, choice: Any) -> None:
    request = ask(tools=TOOLS, tool_choice=choice, seed=3)
    async with running_in(file) as backend:
        _, delta, done = await events_of(backend, request)

    assert isinstance(delta, Delta)
    assert delta.tool_calls
    (call,) = delta.tool_calls
    assert call.name in (
        {"get_time"} if isinstance(choice, NamedTool) else {"get_weather", "get_time"}
    )
    assert json.loads(call.arguments or "")["city"] in {"Oslo", "Rome"}
    assert isinstance(done, Done)
    assert done.finish_reason == "tool_calls"


async def test_a_conversation_with_calls_and_their_answers_fits_the_template(file: Path) -> None:
    call = {"id": "c1", "name": "get_time", "arguments": '{"city": "Oslo"}'}
    messages = [
        {"role": "user", "content": "When?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "noon", "tool_call_id": "c1", "tool_name": "get_time"},
    ]
    async with running_in(file) as backend:
        _, done = await answer(backend, ask(messages=messages, tools=TOOLS, think="off"))

    assert done.usage.prompt_tokens > 100
    assert done.ignored == ("think",)


async def test_a_prompt_longer_than_the_context_is_told_apart(file: Path) -> None:
    async with running_in(file, n_ctx="256") as backend:
        with pytest.raises(ContextExceeded, match="256"):
            await answer(backend, ask("the queue " * 900))
        _, done = await answer(backend, ask(seed=1))

    assert done.usage.prompt_tokens == 30


async def test_images_are_refused(file: Path) -> None:
    message = Message(role="user", content=(ImagePart(image="iVBORw0KGgo="),))
    async with running_in(file) as backend:
        with pytest.raises(NotSupported, match="images"):
            await answer(backend, ask(messages=(message,)))


async def test_a_closed_stream_stops_between_two_tokens(folder: Path) -> None:
    request = ask(model="talkative")
    async with running_in(folder, n_ctx="8192") as backend:
        stream = backend.chat(request)
        async for event in stream:
            if isinstance(event, Delta):
                break
        async with asyncio.timeout(1):
            await stream.aclose()
            _, done = await answer(backend, ask(model="talkative", max_tokens=2))

    assert done.usage.completion_tokens == 2


async def test_a_closed_stream_stops_while_the_prompt_is_read(folder: Path) -> None:
    request = ask("the queue " * 4000, model="talkative")
    async with running_in(folder, n_ctx="8192", batch="32") as backend:
        await answer(backend, ask(model="talkative", max_tokens=1))
        reading = asyncio.create_task(answer(backend, request))
        await asyncio.sleep(0.05)
        reading.cancel()
        async with asyncio.timeout(1):
            await asyncio.wait({reading})
            text, _ = await answer(backend, ask(model="talkative", max_tokens=2))

    assert reading.cancelled()
    assert text


async def test_chats_take_turns_and_too_many_are_told_so(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "MAX_WAITING", 2)
    async with running_in(file) as backend:
        tasks = [asyncio.create_task(answer(backend, ask(max_tokens=4))) for _ in range(5)]
        results = await asyncio.gather(*tasks, return_exceptions=True)

    assert sum(isinstance(result, BackendBusy) for result in results) > 0
    assert sum(isinstance(result, tuple) for result in results) > 1


async def test_one_model_of_a_folder_is_in_memory_at_a_time(folder: Path) -> None:
    async with running_in(folder) as backend:
        await answer(backend, ask(max_tokens=1))
        first = await loaded(backend)
        await answer(backend, ask(model="other", max_tokens=1))
        second = await loaded(backend)
        warm = [report.name for report in await backend.models() if report.warm]

    assert (first, second, warm) == (["tiny"], ["other"], ["other"])


async def test_models_are_loaded_and_unloaded_by_name(folder: Path) -> None:
    async with running_in(folder) as backend:
        _ = [event async for event in backend.load(LoadRequest(model="other"))]
        first = await loaded(backend)
        _ = [event async for event in backend.unload(UnloadRequest(model="other"))]
        second = await loaded(backend)
        await answer(backend, ask(max_tokens=1, keep_alive_s=0))
        third = await loaded(backend)

    assert (first, second, third) == (["other"], [], [])


async def test_a_model_that_is_not_there_is_missing(folder: Path) -> None:
    async with running_in(folder) as backend:
        with pytest.raises(ModelMissing, match="did you mean 'tiny'"):
            await answer(backend, ask(model="tinny"))


async def test_a_file_that_is_no_model_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF, it says")
    async with running_in(tmp_path) as backend:
        with pytest.raises(BadEndpoint, match="tiny"):
            await answer(backend, ask())


async def test_the_roster_hears_what_the_file_says(file: Path) -> None:
    async with running_in(file, n_ctx="512") as backend:
        version, (report,) = await backend.check(), await backend.models()

    assert version
    assert version.startswith("llama-cpp-python 0.")
    assert report.traits == ("chat", "embed", "schema", "tools")
    assert report.lacks == ("vision", "image")
    assert (report.context_length, report.dimension) == (512, DEFAULT.width)
    assert report.size_bytes == size_bytes(file)
    assert report.warm is False


async def test_vectors_have_length_one_and_the_order_of_their_texts(file: Path) -> None:
    texts = [f"the queue {at}" for at in range(50)]
    async with running_in(file) as backend:
        rows, done = await embed(backend, *texts)
        (alone,), _ = await embed(backend, texts[37])

    array = np.array(rows)
    assert array.shape == (50, DEFAULT.width)
    assert np.linalg.norm(array, axis=1) == pytest.approx(np.ones(50), abs=1e-5)
    assert int((array @ np.array(alone)).argmax()) == 37
    assert done.usage.prompt_tokens > 100


async def test_vectors_are_cut_to_the_dimensions_asked_for(file: Path) -> None:
    async with running_in(file) as backend:
        (front,), _ = await embed(backend, "a", dimensions=8)
        with pytest.raises(NotSupported, match="dimensions"):
            await embed(backend, "a", dimensions=65)

    assert len(front) == 8
    assert np.linalg.norm(front) == pytest.approx(1, abs=1e-5)


async def test_a_text_that_is_too_long_is_cut_or_refused(file: Path) -> None:
    async with running_in(file, n_ctx="256") as backend:
        _, done = await embed(backend, "the queue " * 300)
        with pytest.raises(InputTooLarge, match=r"input\[1\]"):
            await embed(backend, "a", "the queue " * 300, truncate=False)

    assert done.usage.prompt_tokens == 256


async def test_a_line_makes_a_backend_that_can_all_this(folder: Path) -> None:
    backend = build(parse("LLM_BOX", f"llama://{folder}?n_ctx=256&threads=1&gpu_layers=0"))

    assert capabilities(backend) == ("chat", "embed", "list", "running", "load", "unload")
    assert isinstance(backend, HasModelLease)
    await backend.aclose()


async def test_an_option_that_is_no_number_is_refused(folder: Path) -> None:
    with pytest.raises(NotSupported, match="context"):
        build(parse("LLM_BOX", f"llama://{folder}?n_ctx=many"))


async def test_raw_text_is_continued_with_no_template_around_it(file: Path) -> None:
    request = ChatRequest(
        model="tiny", prompt="The queue", max_tokens=4, seed=1, frequency_penalty=0.5
    )
    async with running_in(file) as backend:
        text, done = await answer(backend, request)

    assert text
    assert done.usage.prompt_tokens < 10
    assert done.usage.completion_tokens <= 4
