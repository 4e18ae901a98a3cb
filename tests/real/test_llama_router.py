"""The router's adapter against the real llama-server in router mode: models at one address."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from contract.chat import ChatRequest, Message, SchemaFormat
from contract.errors import (
    BackendError,
    ModelMissing,
    NotSupported,
    ServerFault,
)
from contract.events import Details, Done, Phase
from contract.models import (
    EVERY_MODEL,
    DeleteRequest,
    LoadRequest,
    PullRequest,
    UnloadRequest,
)
from contract.result import fold
from fleet.real.run_llama_server import LlamaServer, running_llama_server
from fleet.real.tiny_model import tiny_model
from workers.backends.discovery import discover
from workers.backends.openai.dialects import LLAMACPP_ROUTER
from workers.backends.openai.llamacpp_router import LlamaRouter
from workers.backends.protocols import capabilities

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def router(llama_binary: Path) -> Iterator[LlamaServer]:
    models = {"tiny-a": tiny_model(), "tiny-b": tiny_model()}
    with running_llama_server(model=models, slots=2) as server:
        yield server


def speaking(server: LlamaServer) -> aclosing[LlamaRouter]:
    return aclosing(LlamaRouter("llamacpp", server.url, LLAMACPP_ROUTER))


ENDLESS = SchemaFormat(schema={"type": "array", "items": {"const": "a word"}, "minItems": 900})


def ask(model: str, max_tokens: int = 4, **fields: Any) -> ChatRequest:
    message = Message(role="user", content="a")
    return ChatRequest(model=model, messages=(message,), max_tokens=max_tokens, **fields)


async def names_in_memory(backend: LlamaRouter) -> set[str]:
    told = await anext(backend.running())
    assert isinstance(told, Details)
    return {model["name"] for model in told.details["models"] if model["state"] == "loaded"}


async def unloaded(backend: LlamaRouter, model: str = EVERY_MODEL) -> None:
    assert [Done()] == [event async for event in backend.unload(UnloadRequest(model=model))]


async def test_a_model_that_the_router_does_not_have_is_missing(router: LlamaServer) -> None:
    async with speaking(router) as backend:
        with pytest.raises(ModelMissing, match="nope"):
            await anext(backend.chat(ask("nope")))
        with pytest.raises(ModelMissing, match="nope"):
            await anext(backend.load(LoadRequest(model="nope")))
        with pytest.raises(ModelMissing, match="nope"):
            await anext(backend.unload(UnloadRequest(model="nope")))


async def test_a_model_is_cold_until_it_is_asked(router: LlamaServer) -> None:
    async with speaking(router) as backend:
        await unloaded(backend)
        before = {report.name: report.warm for report in await backend.models()}
        first, *_, last = [event async for event in backend.chat(ask("tiny-b"))]
        after = {report.name: report for report in await backend.models()}

    assert before == {"tiny-a": False, "tiny-b": False}
    assert first == Phase(phase="loading")
    assert isinstance(last, Done)
    assert (after["tiny-a"].warm, after["tiny-b"].warm) == (False, True)
    assert after["tiny-b"].context_length
    assert "chat" in after["tiny-b"].traits


async def test_what_was_loaded_runs_and_answers_at_once_until_it_is_unloaded(
    router: LlamaServer,
) -> None:
    async with speaking(router) as backend:
        await unloaded(backend)
        phases = [event async for event in backend.load(LoadRequest(model="tiny-a"))]
        loaded = await names_in_memory(backend)
        again = [event async for event in backend.load(LoadRequest(model="tiny-a"))]
        answer = [event async for event in backend.chat(ask("tiny-a"))]
        await unloaded(backend, "tiny-a")
        left = await names_in_memory(backend)

    assert phases[0] == Phase(phase="loading")
    assert phases[-1] == Done()
    assert (loaded, left) == ({"tiny-a"}, set())
    assert again == [Done()]
    assert Phase(phase="loading") not in answer


async def test_to_unload_ends_what_the_model_was_saying(router: LlamaServer) -> None:
    async with speaking(router) as backend:
        request = ask("tiny-a", max_tokens=4000, response_format=ENDLESS)
        async with aclosing(backend.chat(request)) as events:
            async for event in events:
                if not isinstance(event, Phase):
                    break
            unloading = asyncio.create_task(unloaded(backend))
            with pytest.raises(BackendError):
                fold([event async for event in events])
        await unloading

        assert await names_in_memory(backend) == set()


async def test_a_download_of_nothing_is_an_error_although_the_router_calls_it_finished(
    router: LlamaServer,
) -> None:
    """It was built without HTTPS and started offline."""
    async with speaking(router) as backend:
        with pytest.raises(ServerFault, match="downloaded nothing"):
            fold([e async for e in backend.pull(PullRequest(model="ggml-org/nothing:Q8_0"))])


async def test_a_preset_cannot_be_deleted(router: LlamaServer) -> None:
    async with speaking(router) as backend:
        with pytest.raises(NotSupported, match="preset"):
            await anext(backend.delete(DeleteRequest(model="tiny-a")))


async def test_a_router_is_told_apart_from_a_server_of_one_model(
    router: LlamaServer, chat_server: LlamaServer
) -> None:
    configs = await discover((router.port, chat_server.port))

    assert [config.type for config in configs] == ["llamacpp-router", "llamacpp"]


async def test_a_router_can_do_more_than_a_server_of_one_model(router: LlamaServer) -> None:
    async with speaking(router) as backend:
        assert {"running", "load", "unload", "pull", "delete"} <= set(capabilities(backend))
