"""A llama-server in router mode: one address, many models, which it loads, unloads and downloads.

It was started without `-m`. A server of one model has none of these paths, so it is a type of its
own (`llamacpp-router`), and discovery tells the two apart by `status` in the list.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import quote

from pydantic_core import from_json
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
from workers.backends.openai import shapes
from workers.backends.openai.adapter import OpenAI
from workers.backends.openai.dialects import Dialect
from workers.backends.openai.naming import aliases_in
from workers.backends.protocols import Stream

READY: Final = frozenset({"loaded", "sleeping"})
"""A sleeping model wakes up by itself at its next request."""
BUSY: Final = READY | {"loading"}
"""States that POST /models/unload ends, and POST /models/load refuses."""
_EMBEDS: Final = frozenset({"--embeddings", "--embedding"})


def model_state(item: dict[str, Any]) -> str:
    """`unloaded`, `loading`, `loaded`, `sleeping`, `downloading` or `downloaded`."""
    return str((item.get("status") or {}).get("value") or "")


def parse_event(raw: bytes) -> dict[str, Any]:
    """What an event of GET /models/sse says; empty if it is none."""
    try:
        said = from_json(raw)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def has_downloaded(model: str, items: list[dict[str, Any]]) -> bool:
    """Whether the list has what was asked for, with the quantization that the router chose."""
    wanted = model.casefold()
    names = [
        str(name).casefold() for it in items for name in (it["id"], *(it.get("aliases") or ()))
    ]
    return any(name == wanted or name.startswith(f"{wanted}:") for name in names)


def model_report(item: dict[str, Any], props: dict[str, Any]) -> ModelReport:
    """A model of GET /models; `props` are those of its own server, which it has once it ran.

    The command line tells whether it embeds, and is never repeated: it may hold a key.
    """
    meta, is_ready = item.get("meta") or {}, model_state(item) in READY
    embeds = not _EMBEDS.isdisjoint((item.get("status") or {}).get("args") or ())
    sees = "image" in ((item.get("architecture") or {}).get("input_modalities") or ())
    traits: list[ModelTrait] = ["embed"] if embeds else ["chat", "schema"]
    traits += ["vision"] if sees else []
    if (props.get("chat_template_caps") or {}).get("supports_tools") and not embeds:
        traits.append("tools")
    settings = props.get("default_generation_settings") or {}
    return ModelReport(
        name=str(item["id"]),
        traits=tuple(traits),
        lacks=("chat",) if embeds else ("embed",),
        warm=is_ready,
        context_length=settings.get("n_ctx") or meta.get("n_ctx"),
        dimension=meta.get("n_embd") if embeds else None,
        size_bytes=meta.get("size"),
    )


def running_models(
    items: list[dict[str, Any]], named: Callable[[str], str] = lambda own: own
) -> dict[str, Any]:
    """What is in memory, or on its way there; `named` says what callers call a model."""
    return {
        "models": [
            {
                "name": named(str(item["id"])),
                "model": named(str(item["id"])),
                "state": model_state(item),
                "context_length": (item.get("meta") or {}).get("n_ctx"),
                "size": (item.get("meta") or {}).get("size"),
            }
            for item in items
            if model_state(item) in BUSY
        ]
    }


def load_progress(data: dict[str, Any]) -> float | None:
    """How much of a model is loaded, 0 to 1: its stages follow each other, `value` is of one."""
    progress = data.get("progress")
    if not isinstance(progress, dict) or not isinstance(progress.get("value"), int | float):
        return None
    stages = [str(stage) for stage in progress.get("stages") or ()]
    current = str(progress.get("current"))
    done = stages.index(current) if current in stages else 0
    return min(1.0, (done + float(progress["value"])) / max(1, len(stages)))


class DownloadProgress:
    """Adds up the files of one download, which come at the same time."""

    def __init__(self) -> None:
        """No file named yet."""
        self._files: dict[str, tuple[int, int]] = {}

    def progress(self, data: dict[str, Any]) -> Progress:
        """An event's map of URL to bytes; the server puts it into `progress`, its page does not."""
        inner = data.get("progress")
        files = inner if isinstance(inner, dict) else data
        for url, told in files.items():
            if isinstance(told, dict):
                self._files[url] = (int(told.get("done") or 0), int(told.get("total") or 0))
        return Progress(
            status="downloading",
            overall_total_bytes=sum(total for _, total in self._files.values()),
            overall_completed_bytes=sum(done for done, _ in self._files.values()),
        )


POLL_S: Final = 0.1

Events = AsyncGenerator[tuple[str, dict[str, Any]], None]
"""What happens to one model: names and data."""


class LlamaRouter(OpenAI):
    """One llama-server that has no model of its own."""

    def __init__(self, name: str, url: str, dialect: Dialect, **options: Any) -> None:
        """As every adapter of OpenAI's HTTP; `url` ends with /v1."""
        super().__init__(name, url, dialect, **options)
        self._props_of: dict[str, dict[str, Any]] = {}

    @override
    async def models(self) -> Sequence[ModelReport]:
        """GET /models, and /props of each model the first time that it is seen in memory."""
        items = await self._items()
        for item in items:
            if model_state(item) in READY and item["id"] not in self._props_of:
                self._props_of[item["id"]] = await self._props_for(item["id"])
        reports = [model_report(item, self._props_of.get(item["id"], {})) for item in items]
        return self._names.shown(reports, aliases_in({"data": items}))

    @override
    async def chat(self, request: ChatRequest) -> Stream[Phase | Delta | Done]:
        """POST /chat/completions, which loads the model first where that is needed."""
        if await self._is_cold(request.model):
            yield Phase(phase="loading")
        async with aclosing(super().chat(request)) as events:
            async for event in events:
                yield event

    async def running(self) -> Stream[Details | Done]:
        """GET /models: those that are in memory or on their way there."""
        yield Details(details=running_models(await self._items(), self._names.name))
        yield Done()

    async def load(self, request: LoadRequest) -> Stream[Phase | Done]:
        """POST /models/load, which only begins it; GET /models/sse tells how it goes on."""
        item = await self._item(request.model)
        if model_state(item) not in READY:
            yield Phase(phase="loading")
            name = str(item["id"])  # events know no aliases
            async with self._load_events(name) as events:
                if not await self._begin("/models/load", name):
                    async for phase in _loading(name, events):
                        yield phase
        yield Done(ignored=("keep_alive_s",) if request.keep_alive_s is not None else ())

    async def unload(self, request: UnloadRequest) -> Stream[Done]:
        """POST /models/unload, and wait until the model is gone; what it was saying breaks off."""
        if request.model == EVERY_MODEL:
            items = await self._items()
        else:
            items = [await self._item(request.model)]
        names = [item["id"] for item in items if model_state(item) in BUSY]
        for name in names:
            with suppress(BackendRejected):  # it went by itself meanwhile
                await self._root.json("POST", "/models/unload", {"model": name})
        while names:
            await asyncio.sleep(POLL_S)
            busy = {item["id"] for item in await self._items() if model_state(item) in BUSY}
            names = [name for name in names if name in busy]
        yield Done()

    async def pull(self, request: PullRequest) -> Stream[Progress | Done]:
        """POST /models with `user/repo:quant`; GET /models/sse tells how it goes on.

        Whoever stops listening stops the download; the next pull goes on where it was.
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
        # Only a look at the list takes the new model into it. A router without HTTPS, or a name
        # that nobody has, ends in `download_finished`, too.
        if not has_downloaded(request.model, await self._items()):
            raise ServerFault("the router downloaded nothing; its log says why")
        yield Progress(status="success")
        yield Done()

    async def delete(self, request: DeleteRequest) -> Stream[Done]:
        """DELETE /models; only what was downloaded can be deleted."""
        item = await self._item(request.model)
        if item.get("can_remove") is False:
            raise NotSupported(f"{item['id']!r} is a preset of the router, not a download")
        path = f"/models?model={quote(item['id'], safe='')}"
        await self._root.json("DELETE", path)
        yield Done()

    async def _begin(self, path: str, model: str) -> bool:
        """Start something unless it was started; whether it is over already.

        400 says that it is running or that it exists, in words that are not the same everywhere,
        so that the list decides what is meant.
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
        """Names and data of what happens to a model from now on."""
        async with (
            self._root.open("GET", "/models/sse", accept="text/event-stream") as answer,
            aclosing(_events_of(answer, model)) as events,
        ):
            yield events

    @asynccontextmanager
    async def _load_events(self, model: str) -> AsyncIterator[Events]:
        """The same; the first versions of router mode had no events, so the list is asked there."""
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
        listing = await self._root.json("GET", "/models", limit_s=QUICK_S, shape=shapes.LISTING)
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
        """Whether a chat will have to wait for the model; only for show, so no error matters."""
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
    """Until it is loaded; raises ServerFault if its server ended, which is all that is told."""
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
    raise TruncatedStream("the router stopped telling how the load goes")


async def _downloading(events: Events) -> AsyncGenerator[Progress, None]:
    """Until it is there; why a download failed stands only in the router's log."""
    downloads = DownloadProgress()
    async for event, data in events:
        match event:
            case "download_progress":
                yield downloads.progress(data)
            case "download_finished":
                return
            case "download_failed":
                raise ServerFault("the download failed; the router's log says why")
            case _:
                pass  # the list changed, or another word of a later version
    raise TruncatedStream("the router stopped telling how the download goes")
