"""Chats and embeds with models in the worker's own memory: no server, no network.

One model is there at a time (resident.py), brought by the first job that asks for it. Switching
between chat and vectors of one model loads it anew: libraries set it up for one of them.
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
from contract.errors import (
    NotSupported,
    TruncatedStream,
)
from contract.events import Delta, Details, Done, Phase, Timings, Usage, Vectors
from contract.features import Feature
from contract.models import (
    EVERY_MODEL,
    LoadRequest,
    UnloadRequest,
)
from contract.roster import ModelReport
from workers.backends.in_process.chat_template import TemplatedChat, templated
from workers.backends.in_process.gguf_files import chosen
from workers.backends.in_process.resident import Resident, Role
from workers.backends.in_process.thread_stream import ThreadStream
from workers.backends.in_process.tool_parser import (
    GeneratedItem,
    GenerationEnd,
    GenerationStart,
    ToolParser,
)
from workers.backends.protocols import ModelLease, Stream
from workers.backends.vectors import VectorRows, batches

BATCH: Final = 16
"""Texts that are embedded without a chance to stop."""


class LoadedModel(Protocol):
    """A model in memory; every method blocks and is called in the model's own thread."""

    def chat(
        self, request: ChatRequest, asked: TemplatedChat, stream: ThreadStream[GeneratedItem]
    ) -> None:
        """Put GenerationStart, pieces of text, GenerationEnd; stop once the stream is closed."""
        ...

    def embed(
        self, texts: Sequence[str], first: int, *, truncate: bool
    ) -> tuple[Sequence[Sequence[float]], int]:
        """Vectors in order, of length 1, and the tokens they cost; texts count from `first`."""
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
        """What requests may wish for beyond what every backend can do."""
        ...

    @property
    def continues(self) -> bool:
        """Whether the text behind a prompt is the same as if the prompt had been said, too."""
        ...

    def find(self) -> Mapping[str, Path]:
        """The models there are, by name; raises ModelMissing if the place is gone."""
        ...

    def describe(self, name: str, path: Path) -> ModelReport:
        """What a model says of itself; may take some hundred milliseconds."""
        ...

    def load(self, path: Path, *, embeds: bool) -> LoadedModel:
        """Bring it into memory; raises BackendError."""
        ...


class InMemory:
    """Serves the models of one place on disk through one library."""

    def __init__(self, name: str, runtime: Runtime) -> None:
        """Nothing is loaded before a job asks for it."""
        self.name = name
        self._runtime = runtime
        self._resident: Resident[LoadedModel] = Resident(name)
        self._reports: dict[tuple[str, float], ModelReport] = {}

    async def prefills(self, model: str) -> bool:  # noqa: ARG002 - the library decides
        """The prompt ends where the answer broke off; what comes next may be decoded without it."""
        return self._runtime.continues

    @property
    def grants(self) -> frozenset[Feature]:
        """What the library can."""
        return self._runtime.grants

    def use_model_lease(self, lease: ModelLease) -> None:
        """Hold a model only while this worker may."""
        self._resident.lease = lease

    async def check(self) -> str | None:
        """The library's version; raises ModelMissing if the models are gone."""
        await self._found()
        return self._runtime.version

    async def models(self) -> Sequence[ModelReport]:
        """Every model of the place, and which one is in memory."""
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
        """Stream the answer; one job at a time has the model, the others wait for it."""
        asked = templated(request)
        role, path = await self._role(request.model, "chat")
        async with self._resident.turn():
            timings, began_at = Timings(), monotonic()
            if self._resident.role != role:
                yield Phase(phase="loading")
                await self._hold(role, path)
                timings = Timings(load_ms=(monotonic() - began_at) * 1000)
            model = await self._hold(role, path)
            async with aclosing(self._answer(model, request, asked, timings)) as answer:
                async for event in answer:
                    yield event
            await self._forget(request.keep_alive_s)

    async def _answer(
        self, model: LoadedModel, request: ChatRequest, asked: TemplatedChat, timings: Timings
    ) -> Stream[Delta | Done]:
        stream: ThreadStream[GeneratedItem] = ThreadStream()
        ignored = asked.ignored
        parser = ToolParser(calls=bool(asked.tools), is_call=asked.is_call)
        async with aclosing(
            stream.items(partial(model.chat, request, asked), self._resident.thread)
        ) as said:
            async for item in said:
                match item:
                    case GenerationStart(thinks=thinks, ignored=unsupported):
                        ignored += unsupported
                        # What begins in the middle of an answer is past its thoughts, and a
                        # grammar leaves no room for them.
                        parser.begin(thinks=thinks, answers=bool(asked.said or asked.schema))
                    case str(text):
                        for delta in parser.add(text):
                            yield delta
                    case GenerationEnd(finish_reason=reason, usage=usage):
                        for delta in parser.end():
                            yield delta
                        why = "tool_calls" if parser.calls else reason
                        yield Done(finish_reason=why, usage=usage, timings=timings, ignored=ignored)
                        return
        raise TruncatedStream(f"{request.model} fell silent")

    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """Vectors in the order of the texts, of length 1.

        Raises InputTooLarge for a text that is too long, where it may not be cut.
        """
        role, path = await self._role(request.model, "embed")
        rows, first, used = VectorRows(None), 0, 0
        async with self._resident.turn():
            if self._resident.role != role:
                yield Phase(phase="loading")
            model = await self._hold(role, path)
            for batch in batches(request.input, BATCH):
                work = partial(model.embed, batch, first, truncate=request.truncate)
                vectors, tokens = await self._resident.run(work)
                yield rows.add(_cut(vectors, request.dimensions), len(batch))
                first, used = first + len(batch), used + tokens
            await self._forget(request.keep_alive_s)
        ignored = ("keep_alive_s",) if (request.keep_alive_s or 0) > 0 else ()
        yield Done(usage=Usage(prompt_tokens=used), ignored=ignored)

    async def running(self) -> Stream[Details | Done]:
        """The model in memory, if there is one."""
        role = self._resident.role
        models: list[dict[str, Any]] = [role._asdict()] if role else []
        yield Details(details={"models": models})
        yield Done()

    async def load(self, request: LoadRequest) -> Stream[Phase | Done]:
        """Bring a model into memory, for what it is made for."""
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
        """Take a model out of memory, when the job that uses it has ended."""
        if request.model != EVERY_MODEL:
            await self._role(request.model, "chat")
        async with self._resident.turn():
            role = self._resident.role
            if role is not None and request.model in {EVERY_MODEL, role.model}:
                await self._resident.drop()
        yield Done()

    async def _role(self, model: str, purpose: str) -> tuple[Role, Path]:
        path = chosen(self.name, await self._found(), model)
        return Role(model, purpose), path

    async def _hold(self, role: Role, path: Path) -> LoadedModel:
        load = partial(self._runtime.load, path, embeds=role.purpose == "embed")
        return await self._resident.hold(role, load)

    async def _forget(self, keep_alive_s: float | None) -> None:
        if keep_alive_s == 0:
            await self._resident.drop()


def _cut(vectors: Sequence[Sequence[float]], dimensions: int | None) -> Sequence[Any]:
    """The front of a Matryoshka vector is a vector; it only has to get its length back."""
    has = len(vectors[0])
    if dimensions is None or dimensions == has:
        return vectors
    if dimensions > has:
        raise NotSupported(f"dimensions: the model has {has} numbers, not {dimensions}")
    front = np.asarray(vectors, np.float32)[:, :dimensions]
    length = np.maximum(np.linalg.norm(front, axis=1, keepdims=True), 1e-12)
    cut: list[Any] = (front / length).tolist()
    return cut
