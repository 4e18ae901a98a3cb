"""The adapter for Ollama's native API, /api; its /v1 layer drops errors and options.

Bodies and lines are translated in `wire.py`. Source: ollama/ollama `api/types.go`,
`server/routes.go`.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

from contract.chat import ChatRequest, CountRequest
from contract.embeddings import EmbedRequest
from contract.errors import (
    BackendError,
    BackendRejected,
    BadAnswer,
    NotSupported,
    TruncatedStream,
)
from contract.events import Delta, Details, Done, Phase, Progress, Vectors
from contract.features import Feature
from contract.models import (
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    LoadRequest,
    PullRequest,
    ShowRequest,
    UnloadRequest,
)
from contract.roster import ModelReport
from workers.backends.call_arguments import translated
from workers.backends.http.client import QUICK_S, BackendClient
from workers.backends.http.connections import HttpTransport
from workers.backends.http.decoders import Ndjson
from workers.backends.http.error_table import error_in, unwrap_array
from workers.backends.http.json_text import StreamJson, size_of_vectors
from workers.backends.http.missing_paths import needs_path
from workers.backends.ollama import shapes, wire
from workers.backends.ollama.wire import leaves_open
from workers.backends.protocols import Stream
from workers.backends.shapes import ANYTHING, invalid_json
from workers.backends.vector_rows import VectorRows, batches

EMBED_BATCH: Final = 64
MOST_MODELS: Final = 10_000
"""Of a server: each that is listed may need a request of its own."""
PULL_IDLE_S: Final = 1800.0
"""Idle timeout of a pull in seconds: verifying a digest of 40 GB takes minutes without a line."""
SHOWS_AT_ONCE: Final = 4
_GRANTS: Final[frozenset[Feature]] = frozenset(
    {"prompt", "suffix", "logprobs", "frequency_penalty", "presence_penalty", "repeat_penalty",
     "context_length", "messages[].thinking", "messages[].tool_name"}
)  # fmt: skip


class Ollama:
    """One Ollama server: chat, embeddings, and all model operations."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        key: str | None = None,
        idle_s: float = 120.0,
        transport: HttpTransport | None = None,
    ) -> None:
        """`url` is the server's root; `key` is for ollama.com; `idle_s` is the idle timeout."""
        self.name = name
        self._idle_s = idle_s
        self._client = BackendClient(url, key=key, transport=transport)
        self._shown: dict[str, dict[str, Any]] = {}

    @property
    def grants(self) -> frozenset[Feature]:
        """The supported features; token ids are not among them."""
        return _GRANTS

    async def check(self) -> str | None:
        """GET /api/version."""
        answer = await self._client.json("GET", "/api/version", limit_s=QUICK_S)
        return str(answer["version"]) if "version" in answer else None

    async def prefills(self, model: str) -> bool:
        """Whether the template leaves a trailing assistant message open (POST /api/show)."""
        shown = await self._shown_of(model)
        return leaves_open(shown)

    async def models(self) -> Sequence[ModelReport]:
        """GET /api/tags and /api/ps; /api/show once per digest if tags has no capabilities."""
        tags, running = await asyncio.gather(
            self._client.json("GET", "/api/tags", limit_s=QUICK_S, shape=shapes.TAGS),
            self._client.json("GET", "/api/ps", limit_s=QUICK_S, shape=shapes.TAGS),
        )
        models = (tags.get("models") or [])[:MOST_MODELS]
        warm = {model.get("name") for model in running.get("models") or []}
        limit = asyncio.Semaphore(SHOWS_AT_ONCE)
        shown = await asyncio.gather(*(self._show_once(model, limit) for model in models))
        self._shown = {
            digest: answer
            for model, answer in zip(models, shown, strict=True)
            if answer and (digest := model.get("digest"))
        }
        return [
            wire.to_report(model, answer, warm=model.get("name") in warm)
            for model, answer in zip(models, shown, strict=True)
        ]

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def chat(self, request: ChatRequest) -> Stream[Phase | Delta | Done]:
        """POST /api/chat, or /api/generate for a request with a `prompt`.

        A think level that the model refuses is sent again as true. Raises NotSupported for a
        forced tool call, TruncatedStream for a response without its last line.
        """
        is_raw = request.prompt is not None
        path = "/api/generate" if is_raw else "/api/chat"
        body = await translated(wire.to_generate if is_raw else wire.to_chat, request)
        ignored = wire.unsupported_fields(request)
        try:
            async with aclosing(self._stream_chat(path, body, ignored)) as events:
                async for event in events:
                    yield event
        except BackendRejected as error:
            plain = wire.without_level(body, error)
            if plain is None:
                raise
            # It was refused before its first line.
            async with aclosing(self._stream_chat(path, plain, ("think",))) as events:
                async for event in events:
                    yield event

    async def _stream_chat(
        self, path: str, body: dict[str, Any], ignored: tuple[str, ...]
    ) -> Stream[Delta | Done]:
        lines, done = wire.ChatLines(), None
        async with aclosing(self._lines(path, body, None)) as answer:
            async for raw in answer:
                line = wire.validated_line(raw)
                delta = lines.delta(line)
                if delta is not None:
                    yield delta
                if line.get("done"):
                    done = lines.done(line)
                    break
        if done is None:
            raise TruncatedStream("Ollama's answer ended without its last line")
        yield done.model_copy(update={"ignored": ignored})

    async def count(self, request: CountRequest) -> Stream[Details | Done]:
        """POST /api/chat for one token: no path counts, but `prompt_eval_count` is the prompt's.

        Ollama keeps the prompt, so that the chat that follows need not read it again. Raises
        BadAnswer without a count, BackendError.
        """
        body = await translated(wire.to_chat, request.chat.model_copy(update={"max_tokens": 1}))
        answer = await self._client.json(
            "POST", "/api/chat", body | {"stream": False}, shape=shapes.LINE
        )
        count = answer.get("prompt_eval_count")
        if count is None:
            raise BadAnswer("the backend's answer is not understood at prompt_eval_count: missing")
        yield Details(details={"input_tokens": count})
        yield Done()

    def max_texts(self, model: str) -> int:  # noqa: ARG002 - the same for every model
        """The most texts of one request."""
        return EMBED_BATCH

    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """POST /api/embed in batches of `max_texts`."""
        rows, load_ms = VectorRows(request.dimensions), None
        for texts in batches(request.input, EMBED_BATCH):
            body = {
                "model": request.model,
                "input": texts,
                "truncate": request.truncate,
                "dimensions": request.dimensions,
                "keep_alive": wire.seconds(request.keep_alive_s),
            }
            given = {name: value for name, value in body.items() if value is not None}
            with needs_path(self.name, self._client.url, "/api/embed"):
                answer = await self._client.json(
                    "POST", "/api/embed", given, shape=shapes.EMBEDDINGS, pooled=True,
                    size=size_of_vectors(len(texts)),
                )  # fmt: skip
            rows.spend(answer.get("prompt_eval_count"))
            load_ms = load_ms or wire.timings(answer).load_ms
            yield rows.add(answer.get("embeddings") or (), len(texts))
        yield Done(
            usage=rows.usage,
            timings=wire.timings({}).model_copy(update={"load_ms": load_ms}),
        )

    async def pull(self, request: PullRequest) -> Stream[Progress | Done]:
        """POST /api/pull; raises TruncatedStream without the line `success`."""
        body = {"model": request.model, "insecure": request.insecure, "stream": True}
        async with aclosing(self._build("/api/pull", body)) as events:
            async for event in events:
                yield event

    async def create(self, request: CreateRequest) -> Stream[Progress | Done]:
        """POST /api/create from another model; raises TruncatedStream without `success`."""
        body = {
            "model": request.model,
            "from": request.source,
            "system": request.system,
            "template": request.template,
            "parameters": request.parameters or None,
            "license": list(request.license) or None,
            "messages": list(request.messages) or None,
            "quantize": request.quantize,
            "stream": True,
        }
        given = {name: value for name, value in body.items() if value is not None}
        async with aclosing(self._build("/api/create", given)) as events:
            async for event in events:
                yield event

    async def show(self, request: ShowRequest) -> Stream[Details | Done]:
        """POST /api/show."""
        yield Details(
            details=await self._client.json(
                "POST", "/api/show", {"model": request.model}, limit_s=QUICK_S, reads=True
            )
        )
        yield Done()

    async def copy(self, request: CopyRequest) -> Stream[Done]:
        """POST /api/copy; success has an empty body."""
        body = {"source": request.model, "destination": request.destination}
        await self._client.json("POST", "/api/copy", body)
        yield Done()

    async def delete(self, request: DeleteRequest) -> Stream[Done]:
        """DELETE /api/delete; success has an empty body."""
        await self._client.json("DELETE", "/api/delete", {"model": request.model})
        yield Done()

    async def running(self) -> Stream[Details | Done]:
        """GET /api/ps."""
        yield Details(details=await self._client.json("GET", "/api/ps", limit_s=QUICK_S))
        yield Done()

    async def load(self, request: LoadRequest) -> Stream[Phase | Done]:
        """POST /api/chat without messages; for an embedding model POST /api/embed without texts."""
        yield Phase(phase="loading")
        keep: dict[str, Any] = {}
        if request.keep_alive_s is not None:
            keep["keep_alive"] = wire.seconds(request.keep_alive_s)
        body = {"model": request.model, **keep}
        try:
            answer = await self._client.json(
                "POST", "/api/chat", body | {"messages": [], "stream": False}, shape=shapes.LINE
            )
        except NotSupported:
            answer = await self._client.json(
                "POST", "/api/embed", body | {"input": []}, shape=shapes.LINE
            )
        yield Done(timings=wire.timings(answer))

    async def unload(self, request: UnloadRequest) -> Stream[Done]:
        """POST /api/chat with keep_alive 0; also for embedding models and unloaded ones."""
        body = {"model": request.model, "messages": [], "keep_alive": 0, "stream": False}
        await self._client.json("POST", "/api/chat", body)
        yield Done()

    async def _build(
        self, path: str, body: dict[str, Any]
    ) -> AsyncGenerator[Progress | Done, None]:
        lines = wire.PullLines()
        async with aclosing(self._lines(path, body, PULL_IDLE_S)) as answer:
            async for line in answer:
                yield lines.progress(shapes.PROGRESS.read(line))
        if not lines.succeeded:
            raise TruncatedStream(f"Ollama's answer to {path} ended without its line 'success'")
        yield Done()

    async def _lines(
        self, path: str, body: dict[str, Any], idle_s: float | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the objects of a response; raises the BackendError of an `error` line."""
        decoder, texts = Ndjson(), StreamJson()
        async with (
            self._client.open(
                "POST", path, body, accept="application/x-ndjson", pooled=idle_s is None
            ) as answer,
            aclosing(answer.packets()) as packets,
        ):
            async for packet in packets:
                for line in decoder.feed(packet):
                    for fields in self._parsed(texts, line):
                        yield fields
                    answer.start_idle_timeout(idle_s or self._idle_s)
            for line in decoder.flush():
                for fields in self._parsed(texts, line, is_cut=True):
                    yield fields

    def _parsed(
        self, texts: StreamJson, line: bytes, *, is_cut: bool = False
    ) -> list[dict[str, Any]]:
        try:
            values = texts.read(line)
        except ValueError as error:
            raise invalid_json(error, is_cut=is_cut) from None
        found = unwrap_array(values[-1])
        if isinstance(found, dict) and "error" in found:
            raise error_in(found, secrets=self._client.secrets)
        return [ANYTHING.read(fields) for fields in values]

    async def _shown_of(self, model: str | None) -> dict[str, Any]:
        body = {"model": model}
        return await self._client.json(
            "POST", "/api/show", body, limit_s=QUICK_S, shape=shapes.SHOW, reads=True
        )

    async def _show_once(self, model: dict[str, Any], limit: asyncio.Semaphore) -> dict[str, Any]:
        if model.get("capabilities"):
            return {}
        known = self._shown.get(model.get("digest") or "")
        if known is not None:
            return known
        try:
            async with limit:
                answer = await self._shown_of(model.get("name"))
        except BackendError:
            return {}  # deleted meanwhile, or broken: the list is still useful
        kept = ("capabilities", "model_info")
        return {name: answer[name] for name in kept if name in answer}
