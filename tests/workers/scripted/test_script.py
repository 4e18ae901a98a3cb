"""Responses and faults of scripted models."""

import math
import time
from typing import get_args

import pytest
from support.backends import chat_request, folded

from contract.embeddings import EmbedRequest
from contract.errors import (
    BackendBusy,
    InvalidRequest,
    ModelMissing,
)
from contract.models import (
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    LoadRequest,
    PullRequest,
    ShowRequest,
    UnloadRequest,
)
from contract.roster import Capability
from workers.backends.protocols import capabilities
from workers.scripted.backend import Scripted
from workers.scripted.script import NOTICE, STORY, Prompt, generate, parse, vector


def test_a_name_is_a_form_with_parameters() -> None:
    script = parse("scripted-story:chunks=200,rate=50,fail=reset:20,wire=crlf+split,times=2")

    assert (script.chunks, script.rate, script.fail, script.after) == (200, 50.0, "reset", 20)
    assert ({"crlf", "split"}, 2) == (script.wire, script.times)


@pytest.mark.parametrize(
    "model",
    [
        "scripted-story:speed=9",
        "scripted-story:chunks=x",
        "scripted-story:fail=fire",
        "scripted-story:wire=wet",
        "scripted-story:usage=never",
    ],
)
def test_an_invalid_parameter_is_named_in_the_error(model: str) -> None:
    with pytest.raises(InvalidRequest, match="model: "):
        parse(model)


def test_an_unknown_form_lists_the_known_ones() -> None:
    with pytest.raises(ModelMissing, match="scripted-echo"):
        parse("llama3")


def test_the_story_explains_how_to_get_a_real_model() -> None:
    assert "".join(generate(parse("scripted-story"), Prompt()).content) == (NOTICE + STORY)
    assert "LLM_<NAME>=ollama://" in NOTICE


@pytest.mark.parametrize("text", ["", "  two  spaces ", "a\n\nb\t", "ünï 🌍"])
def test_an_echo_is_the_text_itself(text: str) -> None:
    assert text == "".join(generate(parse("scripted-echo"), Prompt(text)).content)


@pytest.mark.parametrize("cut", [0, 3, 4, 50, len(NOTICE + STORY)])
def test_a_story_continues_a_prefill(cut: int) -> None:
    prefill = (NOTICE + STORY)[:cut]
    turn = generate(parse("scripted-story"), Prompt(prefill=prefill))

    assert prefill + "".join(turn.content) == (NOTICE + STORY)


def test_a_story_continues_raw_text_that_ends_with_its_beginning() -> None:
    begun = " ".join((NOTICE + STORY).split(" ")[:9])
    turn = generate(parse("scripted-story"), Prompt(text=f"Tell: {begun}", is_raw=True))
    echo = generate(parse("scripted-echo"), Prompt(text="one two", is_raw=True))

    assert begun + "".join(turn.content) == NOTICE + STORY
    assert "".join(echo.content) == "one two"


def test_vectors_are_of_length_one_and_close_for_close_texts() -> None:
    fleet, again, other = (vector(t, 64) for t in ("a fleet of ships", "a fleet", "purple"))

    assert math.isclose(1.0, math.hypot(*fleet))
    assert math.dist(fleet, again) < math.dist(fleet, other)


async def test_a_fault_with_times_ends_after_that_many_requests() -> None:
    backend = Scripted()
    request = chat_request("scripted-echo:fail=busy,times=2", "hi")
    for _ in range(2):
        with pytest.raises(BackendBusy):
            await folded(backend.chat(request))

    assert (await folded(backend.chat(request))).content == "hi"


async def test_words_are_sent_at_the_given_rate() -> None:
    began = time.monotonic()
    await folded(Scripted().chat(chat_request("scripted-story:chunks=10,rate=100")))

    assert 0.08 < time.monotonic() - began < 2.0


async def test_a_cold_model_loads_first_and_a_warm_one_does_not() -> None:
    backend = Scripted()
    request = chat_request("scripted-echo:load=0.01", "hi")
    first = [event.type async for event in backend.chat(request)]
    second = [event.type async for event in backend.chat(request)]

    assert first == ["phase", "delta", "done"]
    assert second == ["delta", "done"]


async def test_models_can_be_pulled_copied_made_shown_and_deleted() -> None:
    backend = Scripted()
    pulled = await folded(backend.pull(PullRequest(model="new")))
    assert pulled.progress is not None
    assert pulled.progress.overall_total_bytes == pulled.progress.overall_completed_bytes
    await folded(backend.copy(CopyRequest(model="new", destination="newer")))
    await folded(backend.create(CreateRequest(model="newest", source="newer")))
    shown = await folded(backend.show(ShowRequest(model="newest")))
    assert shown.details is not None
    await folded(backend.delete(DeleteRequest(model="new")))

    assert {"newer", "newest"} <= {model.name for model in await backend.models()}
    with pytest.raises(ModelMissing):
        await folded(backend.chat(chat_request("new")))


async def test_models_are_loaded_and_unloaded() -> None:
    backend = Scripted()
    await folded(backend.load(LoadRequest(model="scripted-echo")))
    assert [m.name for m in await backend.models() if m.warm] == ["scripted-echo"]
    await folded(backend.unload(UnloadRequest(model="scripted-echo")))

    assert [model.name for model in await backend.models() if model.warm] == []


async def test_the_dimension_of_a_request_counts_more_than_the_models() -> None:
    request = EmbedRequest(model="scripted-embed:dim=8", input=("a",), dimensions=3)
    result = await folded(Scripted().embed(request))

    assert result.embeddings is not None
    assert result.embeddings.dimension == 3


def test_it_has_every_capability() -> None:
    assert set(get_args(Capability)) == set(capabilities(Scripted()))
