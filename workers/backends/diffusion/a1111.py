"""The adapter for the API of AUTOMATIC1111's web UI (Forge, SD.Next and others), with --api.

One request generates the images and returns at the end; progress and previews are polled beside
it. Progress and interrupt concern whatever the server runs at that moment, so the task id is
compared where the server reports it. Source: stable-diffusion-webui `modules/api/api.py`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final
from uuid import uuid4

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
from workers.backends.diffusion.wire import base64_of, mime_type_of, to_a1111
from workers.backends.http.client import QUICK_S, BackendClient, basic_authorization
from workers.backends.http.connections import HttpTransport
from workers.backends.protocols import Stream

_log = logging.getLogger(__name__)

POLL_S: Final = 0.5
INTERRUPT_S: Final = 2.0
"""Timeout in seconds of the interrupt after a cancel."""


class A1111:
    """One server with A1111's API: images from text, or from text and an image."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        user: str | None = None,
        password: str = "",
        poll_s: float = POLL_S,
        transport: HttpTransport | None = None,
    ) -> None:
        """`url` is the server's root; `user` and `password` as in its --api-auth."""
        self.name = name
        self._poll_s = poll_s
        self._client = BackendClient(
            url,
            headers=None if user is None else basic_authorization(user, password),
            secrets=(password, f"{user}:{password}") if password else (),
            transport=transport,
        )

    async def check(self) -> str | None:
        """GET the checkpoints, which exist with --api only; no version is reported."""
        await self._client.json("GET", "/sdapi/v1/sd-models", limit_s=QUICK_S)
        return None

    async def models(self) -> Sequence[ModelReport]:
        """The checkpoints; the one in the server's options is in memory."""
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
        """POST txt2img or img2img; yields progress (0 to 1) and previews meanwhile.

        Closing the stream interrupts the server. Raises ModelMissing for an unknown checkpoint.
        """
        titles = await self._titles()
        if request.model not in {*titles, *titles.values()}:
            raise ModelMissing(f"the server has no checkpoint {request.model!r}")
        task = f"task(fleet-{uuid4().hex})"
        body = to_a1111(request, titles.get(request.model, request.model), task)
        path = "/sdapi/v1/img2img" if request.image else "/sdapi/v1/txt2img"
        generation = asyncio.create_task(
            self._client.json("POST", path, body.fields, shape=shapes.IMAGES)
        )
        try:
            async with aclosing(self._progress(generation, task, request.partial_images)) as news:
                async for event in news:
                    yield event
            answer = await generation
        finally:
            await self._interrupt(generation, task)
        images = _images(answer, request.count)
        for image in images:
            yield image
        missing = ("count",) if len(images) < request.count else ()
        yield Done(ignored=(*body.ignored, *missing))

    async def _progress(
        self, generation: asyncio.Task[Any], task: str, previews: int
    ) -> AsyncGenerator[Phase | Image, None]:
        """Yield progress of the task until it ends; none if the server has no such path."""
        reported, shown = 0.0, 0
        yield Phase(phase="generating")
        while not (await asyncio.wait({generation}, timeout=self._poll_s))[0]:
            try:
                state = await self._state(with_preview=shown < previews)
            except BadEndpoint:
                await asyncio.wait({generation})
                return
            except BackendError as error:
                # A failed poll does not fail the job.
                _log.info("%s: progress not available: %s", self.name, error)
                continue
            if not _is_ours(state, task):
                continue
            fraction = _fraction(state.get("progress"))
            if fraction > reported:
                reported = fraction
                yield Phase(phase="generating", progress=fraction)
            preview = state.get("current_image")
            # Previews are spread evenly: the first ones show noise.
            if preview and reported >= (shown + 1) / (previews + 1):
                shown += 1
                data = base64_of(str(preview)) or ""
                yield Image(index=0, mime_type=mime_type_of(data), data=data, partial=True)

    async def _state(self, *, with_preview: bool) -> dict[str, Any]:
        skip = "false" if with_preview else "true"
        path = f"/sdapi/v1/progress?skip_current_image={skip}"
        return await self._client.json("GET", path, limit_s=QUICK_S, shape=shapes.STATE)

    async def _interrupt(self, generation: asyncio.Task[Any], task: str) -> None:
        """Interrupt a running task: the server does not notice closed connections."""
        if generation.done():
            return
        generation.cancel()
        await asyncio.wait({generation})
        try:
            async with asyncio.timeout(INTERRUPT_S):
                with suppress(BadEndpoint):
                    if not _is_ours(await self._state(with_preview=False), task):
                        return  # another client's task
                await self._client.json("POST", "/sdapi/v1/interrupt", {})
        except TimeoutError as error:
            _log.info("%s: %s was not interrupted: %s", self.name, task, str(error) or "no answer")

    async def _titles(self) -> dict[str, str]:
        """Checkpoint titles by name; the title selects a checkpoint."""
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
    """Whether a state is of our task; servers before 1.8 do not report the task."""
    return bool(state.get("current_task", task) == task)


def _fraction(progress: Any) -> float:
    return min(1.0, max(0.0, float(progress))) if isinstance(progress, int | float) else 0.0


def _images(answer: dict[str, Any], count: int) -> list[Image]:
    """The images without the grid that some settings add; raises ServerFault without one."""
    try:
        info = from_json(answer.get("info") or "{}")
    except ValueError:
        info = {}
    index = info.get("index_of_first_image") if isinstance(info, dict) else None
    first = index if isinstance(index, int) and index > 0 else 0
    found = [base64_of(image) for image in answer.get("images") or () if isinstance(image, str)]
    images = [image for image in found[first:] if image][:count]
    if not images:
        raise ServerFault("the server answered without an image")
    return [
        Image(index=at, mime_type=mime_type_of(data), data=data) for at, data in enumerate(images)
    ]
