"""Models are named by their alias or their file, never by a path."""

import json
from typing import Any

import httpx
import pytest
from support.backends import FunctionTransport

from contract.chat import ChatRequest, Message
from contract.embeddings import EmbedRequest
from contract.roster import ModelReport
from workers.backends.openai.adapter import OpenAI
from workers.backends.openai.dialects import GENERIC, LLAMACPP, LLAMACPP_ROUTER, VLLM, Dialect
from workers.backends.openai.llamacpp_router import LlamaRouter
from workers.backends.openai.naming import ModelNames
from workers.backends.openai.vllm import SleepingVllm

PATH = "/home/somebody/models/qwen3-0.6b.Q4_K_M.gguf"
NAME = "qwen3-0.6b.Q4_K_M.gguf"


class Server:
    """Lists one model under a path, and remembers what it was body for."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self.items = list(items) or [{"id": PATH, "meta": {"n_ctx": 512}}]
        self.models: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/v1/models" | "/models" if request.method == "GET":
                return httpx.Response(200, json={"object": "list", "data": self.items})
            case "/v1/chat/completions" | "/v1/completions":
                self.models.append(json.loads(request.content)["model"])
                words = 'data: {"choices":[{"index":0,"delta":{"content":"hi"},'
                words += '"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
                return httpx.Response(
                    200, text=words, headers={"content-type": "text/event-stream"}
                )
            case "/v1/embeddings":
                body = json.loads(request.content)
                self.models.append(body["model"])
                if isinstance(body["input"], str):  # llama-server's probe for embeddings
                    return httpx.Response(501, json={"error": {"message": "no embeddings"}})
                rows = [{"index": n, "embedding": [1.0, 0.0]} for n in range(len(body["input"]))]
                return httpx.Response(200, json={"data": rows})
            case "/is_sleeping":
                return httpx.Response(200, json={"is_sleeping": False})
            case _:
                return httpx.Response(404, json={"error": {"message": "no such path"}})

    @property
    def transport(self) -> FunctionTransport:
        return FunctionTransport(self.answer)


def speaker(server: Server, dialect: Dialect) -> OpenAI:
    kind = {"vllm": SleepingVllm, "llamacpp-router": LlamaRouter}.get(dialect.type, OpenAI)
    return kind("box", "http://box/v1", dialect, transport=server.transport)


def chat(model: str) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message(role="user", content="hello"),))


@pytest.mark.parametrize("dialect", [LLAMACPP, VLLM, GENERIC], ids=lambda it: it.type)
async def test_a_path_is_never_a_name_and_the_server_gets_its_own(dialect: Dialect) -> None:
    server = Server()
    backend = speaker(server, dialect)
    names = [model.name for model in await backend.models()]
    server.models.clear()
    for model in (NAME, PATH, "/another/way/to/" + NAME):
        _ = [event async for event in backend.chat(chat(model))]
        _ = [event async for event in backend.chat(ChatRequest(model=model, prompt="hello"))]
        _ = [event async for event in backend.embed(EmbedRequest(model=model, input=("x",)))]
    await backend.aclose()

    assert names == [NAME]
    assert server.models == [PATH] * 9


async def test_an_alias_that_the_server_lists_is_the_name() -> None:
    server = Server({"id": PATH, "aliases": [PATH, "qwen3"]})
    backend = speaker(server, LLAMACPP)
    names = [model.name for model in await backend.models()]
    _ = [event async for event in backend.chat(chat("qwen3"))]
    await backend.aclose()

    assert (names, server.models[-1]) == (["qwen3"], PATH)


async def test_names_that_are_none_of_a_machine_stay_as_they_are() -> None:
    listed = ["tiny", "user/repo:Q4_K_M", "meta-llama/Llama-3.1-8B"]
    backend = speaker(Server(*({"id": name} for name in listed)), VLLM)
    names = [model.name for model in await backend.models()]
    await backend.aclose()

    assert names == listed


async def test_a_router_reports_no_path() -> None:
    server = Server({"id": PATH, "status": {"value": "loaded"}})
    backend = speaker(server, LLAMACPP_ROUTER)
    assert isinstance(backend, LlamaRouter)
    names = [model.name for model in await backend.models()]
    running = [event async for event in backend.running()]
    _ = [event async for event in backend.chat(chat(NAME))]
    await backend.aclose()

    assert names == [NAME]
    assert "/home" not in repr(running)
    assert server.models == [PATH]


async def test_vllm_is_loaded_by_its_name_and_by_its_path() -> None:
    backend = speaker(Server({"id": "/models/llama-8b"}), VLLM)
    assert isinstance(backend, SleepingVllm)
    for name in ("llama-8b", "/models/llama-8b"):
        await backend._require_model(name)
    await backend.aclose()


def test_two_files_of_one_name_get_different_names() -> None:
    names = ModelNames()
    paths = ["/a/m.gguf", "/b/m.gguf", "m.gguf"]
    shown = [each.name for each in names.shown(ModelReport(name=path) for path in paths)]

    assert shown == ["m.gguf-2", "m.gguf-3", "m.gguf"]
    assert [names.own(name) for name in shown] == paths
    assert [names.own(path) for path in paths] == paths
