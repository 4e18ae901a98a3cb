"""Every adapter that can swap models behaves alike, over a real socket.

Subjects: workers/backends/protocols.py.
"""

import pytest
from support.backends import SWAPPING, against_imitation, chat_request, folded

from contract.errors import (
    ModelMissing,
)
from contract.events import Details, Done, Phase
from contract.models import (
    EVERY_MODEL,
    LoadRequest,
    UnloadRequest,
)
from workers.backends.protocols import SwapModels, capabilities

swapping = pytest.mark.parametrize("type", SWAPPING)
STORY = "scripted-story"


async def in_memory(backend: object) -> set[str]:
    """The names of `running`."""
    assert isinstance(backend, SwapModels)
    events = [event async for event in backend.running()]
    assert isinstance(events[0], Details)
    assert events[1:] == [Done()]
    return {model["name"] for model in events[0].details["models"]}


@swapping
async def test_it_implements_the_protocol(type: str) -> None:
    async with against_imitation(type) as (backend, _):
        assert isinstance(backend, SwapModels)
        assert {"running", "load", "unload"} <= set(capabilities(backend))


@swapping
async def test_a_model_is_loaded_once_and_then_unloaded(type: str) -> None:
    async with against_imitation(type) as (backend, _):
        await folded(backend.unload(UnloadRequest(model=EVERY_MODEL)))
        assert await in_memory(backend) == set()
        events = [event async for event in backend.load(LoadRequest(model=STORY))]
        assert STORY in await in_memory(backend)
        again = [event async for event in backend.load(LoadRequest(model=STORY))]
        count = len(await in_memory(backend))
        gone = [event async for event in backend.unload(UnloadRequest(model=STORY))]
        await folded(backend.unload(UnloadRequest(model=STORY)))

        assert await in_memory(backend) == set()
    assert events[0] == Phase(phase="loading")
    assert isinstance(events[-1], Done)
    assert isinstance(again[-1], Done)
    assert gone == [Done()]
    assert (count == 1) == (type != "vllm-dev")  # vLLM sleeps and wakes as a whole


@swapping
async def test_the_reports_show_which_models_are_in_memory(type: str) -> None:
    async with against_imitation(type) as (backend, _):
        await folded(backend.unload(UnloadRequest(model=EVERY_MODEL)))
        cold = {report.name: report.warm for report in await backend.models()}
        await folded(backend.load(LoadRequest(model=STORY)))
        warm = {report.name: report.warm for report in await backend.models()}

    assert (cold[STORY], warm[STORY]) == (False, True)


@swapping
async def test_all_models_are_unloaded_with_one_word(type: str) -> None:
    async with against_imitation(type) as (backend, _):
        await folded(backend.load(LoadRequest(model=STORY)))
        await folded(backend.load(LoadRequest(model="scripted-echo")))
        assert {STORY, "scripted-echo"} <= await in_memory(backend)
        await folded(backend.unload(UnloadRequest(model=EVERY_MODEL)))

        assert await in_memory(backend) == set()


@swapping
async def test_a_model_that_it_does_not_have_is_missing(type: str) -> None:
    async with against_imitation(type) as (backend, _):
        with pytest.raises(ModelMissing):
            await folded(backend.load(LoadRequest(model="nobody")))
        with pytest.raises(ModelMissing):
            await folded(backend.unload(UnloadRequest(model="nobody")))


@swapping
async def test_an_unsupported_keep_alive_is_reported(type: str) -> None:
    async with against_imitation(type) as (backend, _):
        *_, done = [e async for e in backend.load(LoadRequest(model=STORY, keep_alive_s=60))]

    assert done.ignored == ("keep_alive_s",)


@swapping
async def test_no_command_line_of_a_server_is_shown(type: str) -> None:
    async with against_imitation(type) as (backend, _):
        await folded(backend.load(LoadRequest(model=STORY)))
        events = [event async for event in backend.running()]
        models = await backend.models()

    assert "s3cret" not in f"{events} {models}"


@pytest.mark.parametrize("type", ["llamacpp-router", "llamaswap"])
async def test_only_the_first_chat_reports_that_its_model_loads(type: str) -> None:
    async with against_imitation(type) as (backend, _):
        first = [event async for event in backend.chat(chat_request(STORY))]
        second = [event async for event in backend.chat(chat_request(STORY))]

    assert first[0] == Phase(phase="loading")
    assert not any(isinstance(event, Phase) for event in [*first[1:], *second])


@pytest.mark.parametrize("type", ["llamacpp-router", "llamaswap", "lmstudio"])
async def test_a_cold_load_may_take_longer_than_any_limit_on_silence(type: str) -> None:
    slow = "scripted-story:load=0.3,chunks=2"
    async with against_imitation(type, slow, idle_s=0.05) as (backend, _):
        await folded(backend.load(LoadRequest(model=slow)))
        result = await folded(backend.chat(chat_request(slow)))

    assert result.content == "This is"
