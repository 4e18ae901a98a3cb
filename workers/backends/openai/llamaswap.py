"""llama-swap: an OpenAI-shaped proxy that starts the server of a model on its first request.

A cold swap may take minutes without a byte; only the deadline of the job bounds it. Source:
mostlygeek/llama-swap `internal/server/api.go`, `internal/router/{base,loading}.go`.
"""

from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Any, Final
from urllib.parse import quote

from typing_extensions import override

from contract.chat import ChatRequest
from contract.errors import BackendError
from contract.events import Delta, Details, Done, Image, Phase
from contract.images import ImageRequest
from contract.models import (
    EVERY_MODEL,
    LoadRequest,
    UnloadRequest,
)
from contract.roster import ModelReport, ModelTrait
from workers.backends.http.client import QUICK_S
from workers.backends.openai import shapes
from workers.backends.openai.chunks import OpenAIChunks
from workers.backends.openai.reranking import RerankingOpenAIImages
from workers.backends.openai.shapes import OpenAIChunk
from workers.backends.protocols import Stream

_RUNNING_FIELDS: Final = ("model", "name", "state", "ttl", "description")
"""Fields of GET /running that are passed on; `cmd` and `proxy` may hold a key."""


class LoadingChunks(OpenAIChunks):
    """Separates the chunks of `sendLoadingState` from the reasoning of a model.

    llama-swap writes them itself, without `id`, `object` and the choice's `index`, which all
    servers behind it write.
    """

    @override
    def delta(self, chunk: OpenAIChunk) -> Delta | None:
        """As `OpenAIChunks`; None for a loading chunk."""
        return None if is_loading(chunk) else super().delta(chunk)

    @override
    def phase(self, chunk: OpenAIChunk) -> Phase | None:
        """`loading` for a loading chunk; there may be one per second."""
        return Phase(phase="loading") if is_loading(chunk) else None


class LlamaSwap(RerankingOpenAIImages):
    """One llama-swap and the servers that it starts; images are passed through."""

    chunk_reader = LoadingChunks

    @override
    async def models(self) -> Sequence[ModelReport]:
        """GET /v1/models, with the facts of llama-swap's configuration."""
        return [model_report(item) for item in await self._items()]

    @override
    async def chat(self, request: ChatRequest) -> Stream[Phase | Delta | Done]:
        """POST /chat/completions; one `loading` phase if the list shows the model as unloaded."""
        has_reported = await self._is_cold(request.model)
        if has_reported:
            yield Phase(phase="loading")
        async with aclosing(super().chat(request)) as events:
            async for event in events:
                if not isinstance(event, Phase):
                    yield event
                elif not has_reported:
                    has_reported = True
                    yield event

    @override
    async def image(self, request: ImageRequest) -> Stream[Phase | Image | Done]:
        """POST /images/generations, or /images/edits; `loading` as in `chat`."""
        if await self._is_cold(request.model):
            yield Phase(phase="loading")
        async with aclosing(super().image(request)) as events:
            async for event in events:
                yield event

    async def running(self) -> Stream[Details | Done]:
        """GET /running."""
        items = await self._running()
        models = [{name: item[name] for name in _RUNNING_FIELDS if name in item} for item in items]
        for model in models:
            model["name"] = model.get("model")
        yield Details(details={"models": models})
        yield Done()

    async def load(self, request: LoadRequest) -> Stream[Phase | Done]:
        """GET /upstream/<model>/v1/models, which starts the server of the model."""
        if not await self._is_ready(request.model):
            yield Phase(phase="loading")
        path = f"/upstream/{quote(request.model)}/v1/models"
        try:
            async with self._root.open("GET", path) as answer:
                await answer.read()
        except BackendError:  # a server without that path runs too
            if not await self._is_ready(request.model):
                raise
        yield Done(ignored=("keep_alive_s",) if request.keep_alive_s is not None else ())

    async def unload(self, request: UnloadRequest) -> Stream[Done]:
        """POST /api/models/unload/<model>, GET /unload for all; running responses are cut off.

        The response is plain text.
        """
        method, path = "POST", f"/api/models/unload/{quote(request.model)}"
        if request.model == EVERY_MODEL:
            method, path = "GET", "/unload"  # exists in every version
        async with self._root.open(method, path) as answer:
            await answer.read()
        yield Done()

    async def _is_ready(self, model: str) -> bool:
        """Whether its server runs, by name or, if listed, by alias."""
        for item in await self._running():
            if item.get("model") == model:
                return item.get("state") == "ready"
        return await self._warmth(model) is True

    async def _running(self) -> list[dict[str, Any]]:
        answer = await self._root.json("GET", "/running", limit_s=QUICK_S, shape=shapes.RUNNING)
        return [item for item in answer.get("running") or () if isinstance(item, dict)]

    async def _items(self) -> list[dict[str, Any]]:
        listing = await self._client.json(
            "GET", "/models", limit_s=QUICK_S, shape=shapes.MODEL_LIST
        )
        items = listing.get("data") or ()
        return [item for item in items if isinstance(item, dict) and "id" in item]

    async def _is_cold(self, model: str) -> bool:
        """Whether a job will wait for a load; errors are left to the job."""
        with suppress(BackendError):
            return await self._warmth(model) is False
        return False

    async def _warmth(self, model: str) -> bool | None:
        """The listed load state of the model or alias; None if unknown."""
        for item in await self._items():
            if model == item["id"] or model in _aliases(item):
                return _is_warm(item)
        return None


def is_loading(chunk: OpenAIChunk) -> bool:
    """Whether llama-swap wrote this chunk itself while it started a server."""
    choices = chunk.get("choices")
    if "id" in chunk or "object" in chunk or not choices or len(choices) != 1:
        return False
    choice = choices[0]
    return list(choice) == ["delta"] and list(choice["delta"] or ()) == ["reasoning_content"]


def model_report(item: dict[str, Any]) -> ModelReport:
    """The report of a listed model; unconfigured facts are unknown."""
    configured, shape = item.get("capabilities") or {}, item.get("architecture") or {}
    takes, gives = shape.get("input_modalities") or (), shape.get("output_modalities") or ()
    traits: list[ModelTrait] = []
    if ("text" in gives or configured.get("function_calling")) and not configured.get("reranker"):
        traits.append("chat")
    traits += ["vision"] if configured.get("vision") and "chat" in traits else []
    traits += ["tools"] if configured.get("function_calling") else []
    is_painter = (
        configured.get("image_generation") or configured.get("image_to_image") or "image" in gives
    )
    traits += ["image"] if is_painter else []
    traits += ["rerank"] if configured.get("reranker") else []
    lacks: list[ModelTrait] = ["chat"] if gives and "text" not in gives else []
    lacks += ["vision"] if takes and "image" not in takes else []
    lacks += ["image"] if gives and "image" not in gives else []
    return ModelReport(
        name=str(item["id"]),
        traits=tuple(traits),
        lacks=tuple(lacks),
        warm=_is_warm(item),
        context_length=item.get("context_length") or None,
    )


def _is_warm(item: dict[str, Any]) -> bool | None:
    value = (item.get("status") or {}).get("value")
    return None if value is None else value == "loaded"


def _aliases(item: dict[str, Any]) -> Sequence[str]:
    return ((item.get("meta") or {}).get("llamaswap") or {}).get("aliases") or ()
