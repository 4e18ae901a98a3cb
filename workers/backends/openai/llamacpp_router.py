"""A llama-server in router mode: one address, many models, which it loads, unloads and downloads.

It was started without `-m`. A server of one model has none of these paths, so it is a type of its
own (`llamacpp-router`), and discovery tells the two apart by `status` in the list.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import quote

from typing_extensions import override

from contract.chat import ChatRequest
from contract.errors_m_backend_errors import (
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
from contract.roster import ModelReport
from workers.backends.http.client import QUICK_S, Answer
from workers.backends.http.decoders import Sse
from workers.backends.openai import llamacpp_router_m_router_wire as wire
from workers.backends.openai import shapes
from workers.backends.openai.adapter import OpenAI
from workers.backends.openai.dialects import Dialect
from workers.backends.openai.naming import aliases_in
from workers.backends.protocols import Stream

POLL_S: Final = 0.1

Events = AsyncGenerator[tuple[str, dict[str, Any]], None]
"""What happens to one model: names and data."""


class LlamaRouter(OpenAI):
    """One llama-server that has no model of its own."""

    def __init__(self, name: str, url: str, dialect: Dialect, **options: Any) -> None:
        """As every speaker of OpenAI's HTTP; `url` ends with /v1."""
        super().__init__(name, url, dialect, **options)
        self._props_of: dict[str, dict[str, Any]] = {}

    @override
    async def models(self) -> Sequence[ModelReport]:
        """GET /models, and /props of each model the first time that it is seen in memory."""
        items = await self._items()
        for item in items:
            if wire.state(item) in wire.READY and item["id"] not in self._props_of:
                self._props_of[item["id"]] = await self._props_for(item["id"])
        reports = [wire.report(item, self._props_of.get(item["id"], {})) for item in items]
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
        yield Details(details=wire.running(await self._items(), self._names.name))
        yield Done()

    async def load(self, request: LoadRequest) -> Stream[Phase | Done]:
        """POST /models/load, which only begins it; GET /models/sse tells how it goes on."""
        item = await self._item(request.model)
        if wire.state(item) not in wire.READY:
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
        names = [item["id"] for item in items if wire.state(item) in wire.BUSY]
        for name in names:
            with suppress(BackendRejected):  # it went by itself meanwhile
                await self._root.json("POST", "/models/unload", {"model": name})
        while names:
            await asyncio.sleep(POLL_S)
            busy = {item["id"] for item in await self._items() if wire.state(item) in wire.BUSY}
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
        if not wire.has_downloaded(request.model, await self._items()):
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
            state = wire.state(await self._find(model) or {})
            if state in wire.READY or (path == "/models" and state not in {"", "downloading"}):
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
            aclosing(_told(answer, model)) as events,
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
            return wire.state(await self._find(model) or {}) in {"unloaded", "loading"}
        return False

    async def _props_for(self, model: str) -> dict[str, Any]:
        path = f"/props?model={quote(model, safe='')}&autoload=false"
        with suppress(BackendError):
            return await self._root.json("GET", path, limit_s=QUICK_S, shape=shapes.PROPS)
        return {}


async def _told(answer: Answer, model: str) -> Events:
    decoder = Sse()
    async with aclosing(answer.packets()) as packets:
        async for packet in packets:
            for _, raw in decoder.feed(packet):
                event = wire.event(raw)
                if event.get("model") == model:
                    data = event.get("data")
                    yield str(event.get("event")), data if isinstance(data, dict) else {}


async def _loading(model: str, events: Events) -> AsyncGenerator[Phase, None]:
    """Until it is loaded; raises ServerFault if its server ended, which is all that is told."""
    async for _, data in events:
        status = data.get("status")
        if status in wire.READY:
            return
        if status == "unloaded":
            code = data.get("exit_code")
            raise ServerFault(
                f"model {model!r} did not load: its server ended with code {code}", scope="model"
            )
        progress = wire.load_progress(data)
        if progress is not None:
            yield Phase(phase="loading", progress=progress)
    raise TruncatedStream("the router stopped telling how the load goes")


async def _downloading(events: Events) -> AsyncGenerator[Progress, None]:
    """Until it is there; why a download failed stands only in the router's log."""
    downloads = wire.Downloads()
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
