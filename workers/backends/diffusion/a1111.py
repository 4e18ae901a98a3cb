"""Servers with the API of AUTOMATIC1111's web UI (Forge, SD.Next and others), started with --api.

An image is one request that is answered at its end; how far it has come, and previews, are asked
for beside it. Progress and interrupt mean whatever the server does at that moment, so each names
our task where the server tells whose it is. Sources: stable-diffusion-webui `modules/api/api.py`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final
from uuid import uuid4

import httpx
from pydantic_core import from_json

from contract.errors import (
    BackendError,
    BadEndpoint,
    ModelMissing,
    ServerFault,
)
from contract.events import Done, Image, Phase, Progress
from contract.images import ImageRequest
from contract.roster import ModelReport
from workers.backends.diffusion import shapes
from workers.backends.diffusion.wire import bare, mime_type_of, to_a1111
from workers.backends.http.client import QUICK_S, BackendClient
from workers.backends.protocols import Stream

_log = logging.getLogger(__name__)

POLL_S: Final = 0.5
INTERRUPT_S: Final = 2.0
"""How long the end of a run may wait for the server to take note of it."""


class A1111:
    """One server with A1111's API."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        user: str | None = None,
        password: str = "",
        poll_s: float = POLL_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`url` is the server's root; user and password as in its --api-auth."""
        self.name = name
        self._poll_s = poll_s
        self._client = BackendClient(
            url,
            auth=None if user is None else httpx.BasicAuth(user, password),
            secrets=(password,) if password else (),
            transport=transport,
        )

    async def check(self) -> str | None:
        """The list of checkpoints; without --api there is none. It tells no version."""
        await self._client.json("GET", "/sdapi/v1/sd-models", limit_s=QUICK_S)
        return None

    async def models(self) -> Sequence[ModelReport]:
        """Its checkpoints; the one in its options is in memory."""
        titles = await self._titles()
        current = await self._current()
        return [
            ModelReport(
                name=name,
                traits=("image",),
                warm=None if current is None else current in {name, title},
            )
            for name, title in titles.items()
        ]

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def image(self, request: ImageRequest) -> Stream[Phase | Progress | Image | Done]:
        """Make images, and tell how far they are; closing early interrupts the server."""
        titles = await self._titles()
        if request.model not in {*titles, *titles.values()}:
            raise ModelMissing(f"the server has no checkpoint {request.model!r}")
        task = f"task(fleet-{uuid4().hex})"
        body = to_a1111(request, titles.get(request.model, request.model), task)
        path = "/sdapi/v1/img2img" if request.image else "/sdapi/v1/txt2img"
        making = asyncio.create_task(
            self._client.json("POST", path, body.fields, shape=shapes.MADE)
        )
        try:
            async with aclosing(self._progress(making, task, request.partial_images)) as news:
                async for event in news:
                    yield event
            answer = await making
        finally:
            await self._let_go(making, task)
        images = _images(answer, request.count)
        for image in images:
            yield image
        missing = ("count",) if len(images) < request.count else ()
        yield Done(ignored=(*body.ignored, *missing))

    async def _progress(
        self, making: asyncio.Task[Any], task: str, previews: int
    ) -> AsyncGenerator[Phase | Image, None]:
        """News of our task until it ends; none of a server that has no progress (sd-server)."""
        told, shown = 0.0, 0
        yield Phase(phase="generating")
        while not (await asyncio.wait({making}, timeout=self._poll_s))[0]:
            try:
                state = await self._state(with_preview=shown < previews)
            except BadEndpoint:
                await asyncio.wait({making})
                return
            except BackendError as error:
                # One answer less is no reason to give up what the server is working on.
                _log.info("%s: no progress to be had: %s", self.name, error)
                continue
            if not _is_ours(state, task):
                continue
            fraction = _fraction(state.get("progress"))
            if fraction > told:
                told = fraction
                yield Phase(phase="generating", progress=fraction)
            preview = state.get("current_image")
            # Spread over the way: the first ones show noise.
            if preview and told >= (shown + 1) / (previews + 1):
                shown += 1
                data = bare(str(preview)) or ""
                yield Image(index=0, mime_type=mime_type_of(data), data=data, partial=True)

    async def _state(self, *, with_preview: bool) -> dict[str, Any]:
        skip = "false" if with_preview else "true"
        path = f"/sdapi/v1/progress?skip_current_image={skip}"
        return await self._client.json("GET", path, limit_s=QUICK_S, shape=shapes.STATE)

    async def _let_go(self, making: asyncio.Task[Any], task: str) -> None:
        """Stop what is still being made: the server does not look whether anybody listens."""
        if making.done():
            return
        making.cancel()
        await asyncio.wait({making})
        try:
            async with asyncio.timeout(INTERRUPT_S):
                with suppress(BadEndpoint):
                    if not _is_ours(await self._state(with_preview=False), task):
                        return  # somebody else's turn
                await self._client.json("POST", "/sdapi/v1/interrupt", {})
        except TimeoutError as error:
            _log.info("%s: %s was not interrupted: %s", self.name, task, str(error) or "no answer")

    async def _titles(self) -> dict[str, str]:
        """Each checkpoint's name and its title, by which it is chosen."""
        listing = await self._client.json(
            "GET", "/sdapi/v1/sd-models", limit_s=QUICK_S, shape=shapes.CHECKPOINTS
        )
        items = [item for item in listing.get("data") or () if isinstance(item, dict)]
        names = ((item.get("model_name") or item.get("title"), item.get("title")) for item in items)
        return {str(name): str(title or name) for name, title in names if name}

    async def _current(self) -> str | None:
        try:
            options = await self._client.json("GET", "/sdapi/v1/options", limit_s=QUICK_S)
        except BackendError:
            return None
        current = options.get("sd_model_checkpoint")
        return current if isinstance(current, str) else None


def _is_ours(state: dict[str, Any], task: str) -> bool:
    """Whether a state is our task's, as far as the server tells: since 1.8 it names the task."""
    return bool(state.get("current_task", task) == task)


def _fraction(progress: Any) -> float:
    return min(1.0, max(0.0, float(progress))) if isinstance(progress, int | float) else 0.0


def _images(answer: dict[str, Any], count: int) -> list[Image]:
    """The images without the grid that some settings put before them."""
    try:
        info = from_json(answer.get("info") or "{}")
    except ValueError:
        info = {}
    told = info.get("index_of_first_image") if isinstance(info, dict) else None
    first = told if isinstance(told, int) and told > 0 else 0
    found = [bare(image) for image in answer.get("images") or () if isinstance(image, str)]
    images = [image for image in found[first:] if image][:count]
    if not images:
        raise ServerFault("the server answered without an image")
    return [
        Image(index=at, mime_type=mime_type_of(data), data=data) for at, data in enumerate(images)
    ]
