"""Backends under test: one of every adapter against the scripted server, or against given bytes."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from contract.chat import ChatRequest, Message
from contract.result import Result, fold
from workers.backends.google.gemini import Gemini
from workers.backends.google.vertex import Vertex
from workers.backends.http.connections import Incoming, Outgoing
from workers.backends.ollama.adapter import Ollama
from workers.backends.openai.adapter import OpenAI, OpenAIImages
from workers.backends.openai.dialects import DIALECTS
from workers.backends.openai.llamacpp_router import LlamaRouter
from workers.backends.openai.llamaswap import LlamaSwap
from workers.backends.openai.lmstudio import LmStudio
from workers.backends.openai.pooling_servers import Infinity, Tei
from workers.backends.openai.reranking import LlamaServer, RerankingOpenAI, Vllm
from workers.backends.openai.vllm import SleepingVllm
from workers.scripted.backend import Scripted
from workers.scripted.server import ScriptedServer, serve

WIRE = Path(__file__).parents[1] / "wire"
SWAPPING = ("llamacpp-router", "llamaswap", "lmstudio", "vllm-dev")
"""Those that bring models into memory and take them out; the server can pretend to be each."""
OPENAI_SHAPED = ("llamacpp", "vllm", "openai", "generic", *SWAPPING)
SPEAKERS: dict[str, type[OpenAI]] = {
    "llamacpp-router": LlamaRouter,
    "llamaswap": LlamaSwap,
    "lmstudio": LmStudio,
    "openai": OpenAIImages,
    "llamacpp": LlamaServer,
    "vllm": Vllm,
    "vllm-dev": SleepingVllm,
    "localai": RerankingOpenAI,
}
ENCODERS = ("infinity", "tei")
"""Servers that embed and rerank, and never chat; the scripted server can pretend to be each."""
RERANKERS = ("llamacpp", "vllm", "vllm-dev", "llamacpp-router", "llamaswap", "localai", *ENCODERS)
GOOGLE = ("gemini", "vertex")
NETWORKED = ("ollama", *OPENAI_SHAPED, *GOOGLE)
ALL = (*NETWORKED, "scripted")


def make(type: str, url: str, *, idle_s: float = 30.0, **options: Any) -> Any:
    """A backend of a type for a server's root."""
    if type == "scripted":
        return Scripted(idle_s=idle_s)
    if type == "ollama":
        return Ollama(type, url, idle_s=idle_s, **options)
    if type == "gemini":
        return Gemini(type, url + "/v1beta", key="k3y", idle_s=idle_s, **options)
    if type == "vertex":
        return Vertex(type, url + "/v1beta1", project="p", idle_s=idle_s, **options)
    if type in ENCODERS:
        encoder = Tei if type == "tei" else Infinity
        return encoder(type, url + ("/v1" if type == "tei" else ""), idle_s=idle_s, **options)
    speaker, dialect = SPEAKERS.get(type, OpenAI), DIALECTS[type.removesuffix("-dev")]
    return speaker(type, url + "/v1", dialect, idle_s=idle_s, **options)


@asynccontextmanager
async def against_server(type: str, **options: Any) -> AsyncIterator[tuple[Any, ScriptedServer]]:
    """A backend and the scripted server that it talks to, its usual models in memory."""
    imitated = type.removesuffix("-dev") if type in (*SWAPPING, *ENCODERS) else None
    async with serve(imitate=imitated) as server, aclosing(make(type, server.url, **options)) as it:
        for name in server._catalog.names:
            server._catalog.set_warm(name, warm=True)
        yield it, server


@asynccontextmanager
async def against_imitation(
    type: str, *models: str, **options: Any
) -> AsyncIterator[tuple[Any, ScriptedServer]]:
    """A backend that can swap and its server, all models cold, these among them."""
    async with (
        serve(imitate=type.removesuffix("-dev"), models=models) as server,
        aclosing(make(type, server.url, **options)) as backend,
    ):
        yield backend, server


class FunctionTransport:
    """What a backend's client sends through in tests: a function, or a transport of httpx."""

    def __init__(
        self, handler: Callable[[httpx.Request], httpx.Response] | httpx.AsyncBaseTransport
    ) -> None:
        is_transport = isinstance(handler, httpx.AsyncBaseTransport)
        self._inner = handler if is_transport else httpx.MockTransport(handler)

    async def send(self, request: Outgoing, *, is_fresh: bool) -> Incoming:
        asked = httpx.Request(
            request.method, request.url, content=request.content, headers=dict(request.headers)
        )
        answer = await self._inner.handle_async_request(asked)
        packets = aiter(answer.stream)

        async def read_packet() -> bytes:
            async for packet in packets:
                if packet:
                    return packet
            return b""

        return Incoming(answer.status_code, answer.headers, read_packet, lambda: None)

    async def aclose(self) -> None:
        await self._inner.aclose()


class Packets(httpx.AsyncByteStream):
    """A body in the given packets; an exception among them is raised."""

    def __init__(self, packets: Sequence[bytes | Exception]) -> None:
        self._packets = packets

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for packet in self._packets:
            if isinstance(packet, Exception):
                raise packet
            yield packet


@asynccontextmanager
async def against_bytes(
    type: str,
    *packets: bytes | Exception,
    status: int = 200,
    content_type: str = "",
    handler: Callable[[httpx.Request], httpx.Response] | None = None,
    **headers: str,
) -> AsyncIterator[Any]:
    """A backend whose server answers every request with these bytes, or as `handler` says."""
    usual = "application/x-ndjson" if type == "ollama" else "text/event-stream"
    sent = {"content-type": content_type or usual} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }

    def answer(request: httpx.Request) -> httpx.Response:
        if handler is not None:
            return handler(request)
        return httpx.Response(status, headers=sent, stream=Packets(packets))

    backend = make(type, "http://backend.test", transport=FunctionTransport(answer))
    try:
        yield backend
    finally:
        await backend.aclose()


def chat_request(model: str, text: str = "tell me a story", **fields: Any) -> ChatRequest:
    """A chat with one user message."""
    return ChatRequest(model=model, messages=(Message(role="user", content=text),), **fields)


async def folded(stream: Any) -> Result:
    """The result of a stream of events."""
    return fold([event async for event in stream])
