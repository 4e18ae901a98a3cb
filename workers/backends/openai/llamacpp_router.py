"""llama-server in router mode: one server, many models, which it loads, unloads and downloads.

The router is a llama-server started without `-m`. A server of one model has none of these paths,
so this is a backend type of its own (`llamacpp-router`). The list of models and the events of
GET /models/sse are read by the functions above the adapter. Source: llama.cpp
`tools/server/README.md` and `server-models.cpp`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import quote

from typing_extensions import override

from contract.chat import ChatRequest
from contract.errors import (
    BackendError,
    BackendRejected,
    BadEndpoint,
    ModelMissing,
    NotSupported,
    ServerFault,
    TruncatedStream,
)
from contract.events import Delta, Details, Done, Phase, Progress
from contract.models import (
    EVERY_MODEL,
    DeleteRequest,
    LoadRequest,
    PullRequest,
    UnloadRequest,
)
from contract.roster import ModelReport, ModelTrait
from workers.backends.http.client import QUICK_S, BackendResponse
from workers.backends.http.decoders import Sse
from workers.backends.http.json_text import parse_json
from workers.backends.openai import shapes
from workers.backends.openai.dialects import Dialect
from workers.backends.openai.naming import aliases_in
from workers.backends.openai.reranking import RerankingOpenAI
from workers.backends.protocols import Stream
from workers.backends.shapes import DownloadSums, count, measure

READY: Final = frozenset({"loaded", "sleeping"})
"""A sleeping model wakes up at its next request."""
BUSY: Final = READY | {"loading"}
"""States that POST /models/unload accepts and POST /models/load refuses."""
_KINDS: Final[Mapping[str, ModelTrait]] = {
    "--embeddings": "embed", "--embedding": "embed",
    "--reranking": "rerank", "--rerank": "rerank",
}  # fmt: skip
"""What a model is for, by the flags of its server."""
_OF_A_SERVER: Final[tuple[ModelTrait, ...]] = ("chat", "embed", "rerank")


def model_state(item: dict[str, Any]) -> str:
    """The state of a listed model; "" if it has none.

    `unloaded`, `loading`, `loaded`, `sleeping`, `downloading` or `downloaded`.
    """
    return str((item.get("status") or {}).get("value") or "")


def parse_event(raw: bytes) -> dict[str, Any]:
    """The `model`, `event` and `data` of an event of GET /models/sse; {} if it is not JSON."""
    try:
        event = parse_json(raw)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def has_downloaded(model: str, items: list[dict[str, Any]]) -> bool:
    """Whether the list has the model, with any quantization that the router chose."""
    wanted = model.casefold()
    names = [
        str(name).casefold() for it in items for name in (it["id"], *(it.get("aliases") or ()))
    ]
    return any(name == wanted or name.startswith(f"{wanted}:") for name in names)


def model_report(item: dict[str, Any], props: dict[str, Any]) -> ModelReport:
    """The report of a model of GET /models; `props` are those of its own server, once it ran.

    What it is for is read from its command line, which may hold a key and is never repeated.
    """
    meta, is_ready = item.get("meta") or {}, model_state(item) in READY
    args = (item.get("status") or {}).get("args") or ()
    found = [_KINDS[arg] for arg in args if arg in _KINDS]
    kind: ModelTrait = "rerank" if "rerank" in found else (found or ["chat"])[0]
    sees = "image" in ((item.get("architecture") or {}).get("input_modalities") or ())
    traits: list[ModelTrait] = ["chat", "schema"] if kind == "chat" else [kind]
    traits += ["vision"] if sees else []
    if (props.get("chat_template_caps") or {}).get("supports_tools") and kind == "chat":
        traits.append("tools")
    settings = props.get("default_generation_settings") or {}
    return ModelReport(
        name=str(item["id"]),
        traits=tuple(traits),
        lacks=tuple(each for each in _OF_A_SERVER if each != kind),
        warm=is_ready,
        context_length=settings.get("n_ctx") or meta.get("n_ctx"),
        dimension=meta.get("n_embd") if kind == "embed" else None,
        size_bytes=meta.get("size"),
    )


def running_models(
    items: list[dict[str, Any]], public_name: Callable[[str], str] = lambda own: own
) -> dict[str, Any]:
    """The models that are loaded or loading, as `{"models": [...]}`; sizes in bytes."""
    return {
        "models": [
            {
                "name": public_name(str(item["id"])),
                "model": public_name(str(item["id"])),
                "state": model_state(item),
                "context_length": (item.get("meta") or {}).get("n_ctx"),
                "size": (item.get("meta") or {}).get("size"),
            }
            for item in items
            if model_state(item) in BUSY
        ]
    }


def load_progress(data: dict[str, Any]) -> float | None:
    """The loaded fraction, 0 to 1, over all `stages`; `value` is that of the current one."""
    progress = data.get("progress")
    if not isinstance(progress, dict) or (value := measure(progress.get("value"))) is None:
        return None
    stages = [str(stage) for stage in progress.get("stages") or ()]
    current = str(progress.get("current"))
    done = stages.index(current) if current in stages else 0
    return min(1.0, max(0.0, (done + value) / max(1, len(stages))))


class DownloadProgress:
    """Sums up the files of one download, which are fetched concurrently."""

    def __init__(self) -> None:
        """No file yet."""
        self._sums = DownloadSums()

    def progress(self, data: dict[str, Any]) -> Progress:
        """The totals in bytes after an event, whose `data` maps URLs to `done` and `total`.

        The server nests the map in `progress`; its documentation does not.
        """
        inner = data.get("progress")
        files = inner if isinstance(inner, dict) else data
        for url, counts in files.items():
            if isinstance(counts, dict):
                total, done = count(counts.get("total")) or 0, count(counts.get("done")) or 0
                self._sums.put(url, total, done)
        return Progress(
            status="downloading",
            overall_total_bytes=self._sums.total_bytes,
            overall_completed_bytes=self._sums.completed_bytes,
        )


POLL_S: Final = 0.1

Events = AsyncGenerator[tuple[str, dict[str, Any]], None]
"""Events of one model: names and data."""


class LlamaRouter(RerankingOpenAI):
    """One llama-server in router mode; lists, loads, unloads, downloads and deletes models."""

    def __init__(self, name: str, url: str, dialect: Dialect, **options: Any) -> None:
        """As `RerankingOpenAI`; `url` ends with /v1."""
        super().__init__(name, url, dialect, **options)
        self._props_of: dict[str, dict[str, Any]] = {}

    @override
    async def models(self) -> Sequence[ModelReport]:
        """GET /models, and /props of each model the first time that it is loaded."""
        items = await self._items()
        for item in items:
            if model_state(item) in READY and item["id"] not in self._props_of:
                self._props_of[item["id"]] = await self._props_for(item["id"])
        reports = [model_report(item, self._props_of.get(item["id"], {})) for item in items]
        return self._names.shown(reports, aliases_in({"data": items}))

    @override
    async def chat(self, request: ChatRequest) -> Stream[Phase | Delta | Done]:
        """POST /chat/completions; the router loads the model first if needed."""
        if await self._is_cold(request.model):
            yield Phase(phase="loading")
        async with aclosing(super().chat(request)) as events:
            async for event in events:
                yield event

    async def running(self) -> Stream[Details | Done]:
        """GET /models: the loaded and loading ones."""
        yield Details(details=running_models(await self._items(), self._names.name))
        yield Done()

    async def load(self, request: LoadRequest) -> Stream[Phase | Done]:
        """POST /models/load, which starts the load; progress comes from GET /models/sse."""
        item = await self._item(request.model)
        if model_state(item) not in READY:
            yield Phase(phase="loading")
            name = str(item["id"])  # events carry ids, not aliases
            async with self._load_events(name) as events:
                if not await self._begin("/models/load", name):
                    async for phase in _loading(name, events):
                        yield phase
        yield Done(ignored=("keep_alive_s",) if request.keep_alive_s is not None else ())

    async def unload(self, request: UnloadRequest) -> Stream[Done]:
        """POST /models/unload, and poll until the model is gone; running responses are cut off."""
        if request.model == EVERY_MODEL:
            items = await self._items()
        else:
            items = [await self._item(request.model)]
        names = [item["id"] for item in items if model_state(item) in BUSY]
        for name in names:
            with suppress(BackendRejected):  # already unloaded
                await self._root.json("POST", "/models/unload", {"model": name})
        while names:
            await asyncio.sleep(POLL_S)
            busy = {item["id"] for item in await self._items() if model_state(item) in BUSY}
            names = [name for name in names if name in busy]
        yield Done()

    async def pull(self, request: PullRequest) -> Stream[Progress | Done]:
        """POST /models with `user/repo:quant`; progress comes from GET /models/sse.

        Closing the stream stops the download; the next pull resumes it.
        """
        async with self._events(request.model) as events:
            has_ended = await self._begin("/models", request.model)
            try:
                if not has_ended:
                    async for progress in _downloading(events):
                        yield progress
                    has_ended = True
            finally:
                if not has_ended:
                    await self._stop_download(request.model)
        # Only GET /models adds the new model to the list. A router without HTTPS, or an unknown
        # name, also ends in `download_finished`.
        if not has_downloaded(request.model, await self._items()):
            raise ServerFault("the router downloaded nothing; see its log")
        yield Progress(status="success")
        yield Done()

    async def delete(self, request: DeleteRequest) -> Stream[Done]:
        """DELETE /models; raises NotSupported for a model that was not downloaded."""
        item = await self._item(request.model)
        if item.get("can_remove") is False:
            raise NotSupported(f"{item['id']!r} is a preset of the router, not a download")
        path = f"/models?model={quote(item['id'], safe='')}"
        await self._root.json("DELETE", path)
        yield Done()

    async def _begin(self, path: str, model: str) -> bool:
        """Start a load or download unless it runs; True if it is already complete.

        Status 400 means running or existing, in words that differ by version, so the list
        decides.
        """
        try:
            await self._root.json("POST", path, {"model": model})
        except BackendRejected:
            state = model_state(await self._find(model) or {})
            if state in READY or (path == "/models" and state not in {"", "downloading"}):
                return True
            if state not in {"loading", "downloading"}:
                raise
        return False

    async def _stop_download(self, model: str) -> None:
        with suppress(BackendError):
            await self._root.json("POST", "/models/unload", {"model": model}, limit_s=QUICK_S)

    @asynccontextmanager
    async def _events(self, model: str) -> AsyncIterator[Events]:
        """The events of a model from now on."""
        async with (
            self._root.open("GET", "/models/sse", accept="text/event-stream") as answer,
            aclosing(_events_of(answer, model)) as events,
        ):
            yield events

    @asynccontextmanager
    async def _load_events(self, model: str) -> AsyncIterator[Events]:
        """The same; the first versions of router mode had no events, so the list is polled."""
        async with AsyncExitStack() as stack:
            try:
                events = await stack.enter_async_context(self._events(model))
            except BadEndpoint:
                events = await stack.enter_async_context(aclosing(self._polled(model)))
            yield events

    async def _polled(self, model: str) -> Events:
        while True:
            await asyncio.sleep(POLL_S)
            status = (await self._item(model)).get("status") or {}
            yield "status_change", {**status, "status": status.get("value")}

    async def _items(self) -> list[dict[str, Any]]:
        listing = await self._root.json("GET", "/models", limit_s=QUICK_S, shape=shapes.MODEL_LIST)
        return [item for item in listing.get("data") or () if isinstance(item, dict)]

    async def _find(self, model: str) -> dict[str, Any] | None:
        own = self._names.own(model)
        for item in await self._items():
            if own == item.get("id") or model in (item.get("aliases") or ()):
                return item
        return None

    async def _item(self, model: str) -> dict[str, Any]:
        item = await self._find(model)
        if item is None:
            raise ModelMissing(f"the router has no model {model!r}")
        return item

    async def _is_cold(self, model: str) -> bool:
        """Whether a chat will wait for the model to load; informational, so errors are ignored."""
        with suppress(BackendError):
            return model_state(await self._find(model) or {}) in {"unloaded", "loading"}
        return False

    async def _props_for(self, model: str) -> dict[str, Any]:
        path = f"/props?model={quote(model, safe='')}&autoload=false"
        with suppress(BackendError):
            return await self._root.json("GET", path, limit_s=QUICK_S, shape=shapes.PROPS)
        return {}


async def _events_of(answer: BackendResponse, model: str) -> Events:
    decoder = Sse()
    async with aclosing(answer.packets()) as packets:
        async for packet in packets:
            for _, raw in decoder.feed(packet):
                event = parse_event(raw)
                if event.get("model") == model:
                    data = event.get("data")
                    yield str(event.get("event")), data if isinstance(data, dict) else {}


async def _loading(model: str, events: Events) -> AsyncGenerator[Phase, None]:
    """Yield progress until the model is loaded; raises ServerFault if its server exited."""
    async for _, data in events:
        status = data.get("status")
        if status in READY:
            return
        if status == "unloaded":
            code = data.get("exit_code")
            raise ServerFault(
                f"model {model!r} did not load: its server ended with code {code}", scope="model"
            )
        progress = load_progress(data)
        if progress is not None:
            yield Phase(phase="loading", progress=progress)
    raise TruncatedStream("the router ended its events before the load was complete")


async def _downloading(events: Events) -> AsyncGenerator[Progress, None]:
    """Yield progress until the download ends; only the router's log has the reason of a failure."""
    downloads = DownloadProgress()
    async for event, data in events:
        match event:
            case "download_progress":
                yield downloads.progress(data)
            case "download_finished":
                return
            case "download_failed":
                raise ServerFault("the download failed; see the router's log")
            case _:
                pass  # the list changed, or an event of a later version
    raise TruncatedStream("the router ended its events before the download was complete")
