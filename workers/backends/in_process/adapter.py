"""The adapter for models in the memory of the worker: chat and embeddings without a server.

`InMemory` works with a `Runtime` (llama.cpp, OpenVINO). One model is loaded at a time
(resident.py), by the first job that needs it. Switching between chat and embeddings of one model
loads it again: libraries set it up for one of the two.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final, Protocol

import numpy as np

from contract.chat import ChatRequest
from contract.embeddings import EmbedRequest
from contract.errors import NotSupported, TruncatedStream
from contract.events import Delta, Details, Done, Phase, Timings, Usage, Vectors
from contract.features import Feature
from contract.models import (
    EVERY_MODEL,
    LoadRequest,
    UnloadRequest,
)
from contract.roster import ModelReport
from workers.backends.call_arguments import translated
from workers.backends.in_process.chat_template import TemplatedChat, templated
from workers.backends.in_process.gguf_files import model_file
from workers.backends.in_process.resident import Resident, Role
from workers.backends.in_process.thread_stream import ThreadStream
from workers.backends.in_process.tool_parser import (
    GeneratedItem,
    GenerationEnd,
    GenerationStart,
    ToolParser,
)
from workers.backends.protocols import ModelLease, Stream
from workers.backends.vector_rows import VectorRows, batches

BATCH: Final = 16
"""Texts of one batch; a cancel takes effect between batches."""


class LoadedModel(Protocol):
    """A loaded model; every method blocks and is called in the model's thread."""

    def chat(
        self, request: ChatRequest, chat: TemplatedChat, stream: ThreadStream[GeneratedItem]
    ) -> None:
        """Put GenerationStart, pieces of text, GenerationEnd; stop once the stream is closed."""
        ...

    def embed(
        self, texts: Sequence[str], first: int, *, truncate: bool
    ) -> tuple[Sequence[Sequence[float]], int]:
        """Unit vectors in order, and the tokens of all texts; `first` numbers them in errors."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


class Runtime(Protocol):
    """A library that runs models."""

    @property
    def version(self) -> str:
        """Its name and version."""
        ...

    @property
    def grants(self) -> frozenset[Feature]:
        """Supported features beyond those of every backend."""
        ...

    @property
    def continues(self) -> bool:
        """Whether decoding after a prefix gives the same text as decoding it together."""
        ...

    def find(self) -> Mapping[str, Path]:
        """Model files by name; raises ModelMissing if there are none."""
        ...

    def describe(self, name: str, path: Path) -> ModelReport:
        """The report of a model, from its file; may take some hundred milliseconds."""
        ...

    def load(self, path: Path, *, embeds: bool) -> LoadedModel:
        """Load it into memory; raises BackendError."""
        ...


class InMemory:
    """Serves the models of one path through one library."""

    def __init__(self, name: str, runtime: Runtime) -> None:
        """No model is loaded before the first job."""
        self.name = name
        self._runtime = runtime
        self._resident: Resident[LoadedModel] = Resident(name)
        self._reports: dict[tuple[str, float], ModelReport] = {}

    async def prefills(self, model: str) -> bool:  # noqa: ARG002 - the library decides
        """Whether the library continues a prefix exactly."""
        return self._runtime.continues

    @property
    def grants(self) -> frozenset[Feature]:
        """The features of the library."""
        return self._runtime.grants

    def use_model_lease(self, lease: ModelLease) -> None:
        """Load models only while this worker holds the lease."""
        self._resident.lease = lease

    async def check(self) -> str | None:
        """The library's version; raises ModelMissing if the models are gone."""
        await self._found()
        return self._runtime.version

    async def models(self) -> Sequence[ModelReport]:
        """Every model of the path; the loaded one is warm."""
        return [await self._report(name, path) for name, path in (await self._found()).items()]

    async def _found(self) -> dict[str, Path]:
        return dict(await asyncio.to_thread(self._runtime.find))

    async def _report(self, name: str, path: Path) -> ModelReport:
        key = (str(path), (await asyncio.to_thread(path.stat)).st_mtime)
        if key not in self._reports:
            self._reports[key] = await asyncio.to_thread(
                partial(self._runtime.describe, name, path)
            )
        role = self._resident.role
        return self._reports[key].model_copy(update={"warm": bool(role and role.model == name)})

    async def aclose(self) -> None:
        """Free the memory."""
        await self._resident.aclose()

    async def chat(self, request: ChatRequest) -> Stream[Phase | Delta | Done]:
        """Stream the response; one job at a time uses the model.

        Raises ModelMissing, NotSupported, ContextExceeded, or BackendBusy if too many jobs wait.
        """
        chat = await translated(templated, request)
        role, path = await self._role(request.model, "chat")
        async with self._resident.turn():
            timings, began_at = Timings(), monotonic()
            if self._resident.role != role:
                yield Phase(phase="loading")
                await self._hold(role, path)
                timings = Timings(load_ms=(monotonic() - began_at) * 1000)
            model = await self._hold(role, path)
            async with aclosing(self._answer(model, request, chat, timings)) as answer:
                async for event in answer:
                    yield event
            await self._unload_if_due(request.keep_alive_s)

    async def _answer(
        self, model: LoadedModel, request: ChatRequest, chat: TemplatedChat, timings: Timings
    ) -> Stream[Delta | Done]:
        stream: ThreadStream[GeneratedItem] = ThreadStream()
        ignored = chat.ignored
        parser = ToolParser(calls=bool(chat.tools), is_call=chat.is_call)
        async with aclosing(
            stream.items(partial(model.chat, request, chat), self._resident.thread)
        ) as items:
            async for item in items:
                match item:
                    case GenerationStart(thinks=thinks, ignored=unsupported):
                        ignored += unsupported
                        # A continued response is past its thinking, and a grammar excludes it.
                        parser.begin(thinks=thinks, skips_thinking=bool(chat.prefix or chat.schema))
                    case str(text):
                        for delta in parser.add(text):
                            yield delta
                    case GenerationEnd(finish_reason=reason, usage=usage, stop_sequence=stop):
                        for delta in parser.end():
                            yield delta
                        why = "tool_calls" if parser.calls else reason
                        yield Done(
                            finish_reason=why,
                            stop_sequence=stop,
                            usage=usage,
                            timings=timings,
                            ignored=ignored,
                        )
                        return
        raise TruncatedStream(f"{request.model} ended without a finish reason")

    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """Yield unit vectors in the order of the texts.

        Raises InputTooLarge for a text that is too long and may not be truncated, NotSupported
        for more dimensions than the model has.
        """
        role, path = await self._role(request.model, "embed")
        rows, first, used = VectorRows(None), 0, 0
        async with self._resident.turn():
            if self._resident.role != role:
                yield Phase(phase="loading")
            model = await self._hold(role, path)
            for batch in batches(request.input, BATCH):
                work = partial(model.embed, batch, first, truncate=request.truncate is not False)
                vectors, tokens = await self._resident.run(work)
                yield rows.add(_cut(vectors, request.dimensions), len(batch))
                first, used = first + len(batch), used + tokens
            await self._unload_if_due(request.keep_alive_s)
        ignored = ("keep_alive_s",) if (request.keep_alive_s or 0) > 0 else ()
        yield Done(usage=Usage(prompt_tokens=used), ignored=ignored)

    async def running(self) -> Stream[Details | Done]:
        """The loaded model, if any."""
        role = self._resident.role
        models: list[dict[str, Any]] = [role._asdict()] if role else []
        yield Details(details={"models": models})
        yield Done()

    async def load(self, request: LoadRequest) -> Stream[Phase | Done]:
        """Load a model, for chat if it can chat, else for embeddings."""
        _, path = await self._role(request.model, "chat")
        traits = (await self._report(request.model, path)).traits
        role = Role(request.model, "chat" if "chat" in traits or not traits else "embed")
        async with self._resident.turn():
            began_at = monotonic()
            yield Phase(phase="loading")
            if self._resident.role is None or self._resident.role.model != role.model:
                await self._hold(role, path)
        ignored = ("keep_alive_s",) if (request.keep_alive_s or 0) > 0 else ()
        yield Done(timings=Timings(load_ms=(monotonic() - began_at) * 1000), ignored=ignored)

    async def unload(self, request: UnloadRequest) -> Stream[Done]:
        """Unload a model, once the job that uses it has ended."""
        if request.model != EVERY_MODEL:
            await self._role(request.model, "chat")
        async with self._resident.turn():
            role = self._resident.role
            if role is not None and request.model in {EVERY_MODEL, role.model}:
                await self._resident.drop()
        yield Done()

    async def _role(self, model: str, purpose: str) -> tuple[Role, Path]:
        path = model_file(self.name, await self._found(), model)
        return Role(model, purpose), path

    async def _hold(self, role: Role, path: Path) -> LoadedModel:
        load = partial(self._runtime.load, path, embeds=role.purpose == "embed")
        return await self._resident.hold(role, load)

    async def _unload_if_due(self, keep_alive_s: float | None) -> None:
        if keep_alive_s == 0:
            await self._resident.drop()


def _cut(vectors: Sequence[Sequence[float]], dimensions: int | None) -> Sequence[Any]:
    """Vectors cut to `dimensions` and normalized again (Matryoshka embeddings)."""
    has = len(vectors[0])
    if dimensions is None or dimensions == has:
        return vectors
    if dimensions > has:
        raise NotSupported(f"dimensions: the model has {has} numbers, not {dimensions}")
    front = np.asarray(vectors, np.float32)[:, :dimensions]
    length = np.maximum(np.linalg.norm(front, axis=1, keepdims=True), 1e-12)
    cut: list[Any] = (front / length).tolist()
    return cut
