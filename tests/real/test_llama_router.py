"""The OpenAI adapter against the real llama-server in router mode: several models, one address."""

from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from contract.chat import ChatRequest, Message
from contract.errors import ModelMissing
from contract.events import Done
from fleet.real.running import LlamaServer, running_llama_server
from fleet.real.tiny_model import tiny_model
from workers.backends.dialects import LLAMACPP
from workers.backends.openai import OpenAI

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def router(llama_binary: Path) -> Iterator[LlamaServer]:
    models = {"tiny-a": tiny_model(), "tiny-b": tiny_model()}
    with running_llama_server(model=models, slots=2) as server:
        yield server


def speaking(server: LlamaServer) -> aclosing[OpenAI]:
    return aclosing(OpenAI("llamacpp", server.url, LLAMACPP))


def ask(model: str) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message(role="user", content="a"),), max_tokens=4)


async def test_a_model_that_the_router_does_not_have_is_missing(router: LlamaServer) -> None:
    async with speaking(router) as backend:
        with pytest.raises(ModelMissing, match="nope"):
            await anext(backend.chat(ask("nope")))


async def test_a_model_is_cold_until_it_is_asked(router: LlamaServer) -> None:
    async with speaking(router) as backend:
        before = {report.name: report.warm for report in await backend.models()}
        *_, last = [event async for event in backend.chat(ask("tiny-b"))]
        after = {report.name: report.warm for report in await backend.models()}

    assert before == {"tiny-a": False, "tiny-b": False}
    assert isinstance(last, Done)
    assert after == {"tiny-a": False, "tiny-b": True}
