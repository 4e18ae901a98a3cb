"""sd-server (stable-diffusion.cpp) by its native API: a job is queued there, then asked after.

It tells a job's place in its queue, but neither progress nor previews. A job that generates cannot
be stopped: it goes on for nobody, and ours waits behind it. Source: `examples/server/api.md`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

import httpx

from contract.errors import (
    BackendError,
    BadEndpoint,
    ServerFault,
)
from contract.events import Done, Image, Phase, Progress
from contract.images import ImageRequest
from contract.roster import ModelReport
from workers.backends.diffusion import shapes
from workers.backends.diffusion.wire import mime_type_of, to_sdcpp
from workers.backends.http.client import QUICK_S, BackendClient
from workers.backends.protocols import Stream

_log = logging.getLogger(__name__)

MODEL: Final = "sd-cpp-local"
"""The one id that it lists, whatever it has loaded."""
FIRST_POLL_S: Final = 0.05
LONGEST_POLL_S: Final = 1.0
CANCEL_S: Final = 2.0
"""How long the end of a run may wait for the server to take note of it."""
_GONE: Final = frozenset({404, 410})
"""Statuses of a job that it never had, and of one whose 600 s after its end have passed."""


class Sdcpp:
    """One sd-server."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        key: str | None = None,
        idle_s: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`url` is the server's root; `key` is for a proxy before it, it knows none itself."""
        self.name = name
        self._idle_s = idle_s
        self._client = BackendClient(url.removesuffix("/v1"), key=key, transport=transport)

    async def check(self) -> str | None:
        """It has no health path and tells no version: the list of models does."""
        await self._client.json("GET", "/v1/models", limit_s=QUICK_S)
        return None

    async def models(self) -> Sequence[ModelReport]:
        """One, always in memory; one that only makes videos has no trait."""
        await self._client.json("GET", "/v1/models", limit_s=QUICK_S)
        modes = (await self._capabilities()).get("supported_modes")
        makes_images = not isinstance(modes, list) or "img_gen" in modes
        return [ModelReport(name=MODEL, traits=("image",) if makes_images else (), warm=True)]

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def image(self, request: ImageRequest) -> Stream[Phase | Progress | Image | Done]:
        """Queue a job, wait for it, tell its images; closing early takes it out of the queue."""
        formats = _table((await self._capabilities()).get("output_formats_by_mode"))
        body = to_sdcpp(request, formats.get("img_gen") or (), MODEL)
        accepted = await self._client.json(
            "POST", "/sdcpp/v1/img_gen", body.fields, shape=shapes.JOB
        )
        job = accepted.get("id")
        if not isinstance(job, str) or not job:
            raise BadEndpoint(f"{self._client.url} accepted a job without naming it")
        view: dict[str, Any] = {"status": "queued"}
        try:
            async with aclosing(self._views(job)) as views:
                async for view in views:
                    if view["status"] != "completed":
                        yield _stage(view)
        finally:
            if view["status"] != "completed":
                await self._let_go(job, view["status"])
        for image in _images(view):
            yield image
        yield Done(ignored=body.ignored)

    async def _views(self, job: str) -> AsyncGenerator[dict[str, Any], None]:
        """The job whenever its status or place has changed, to its good end."""
        pause_s, seen = FIRST_POLL_S, None
        while True:
            view = await self._view(job)
            status, place = view.get("status"), view.get("queue_position")
            if status in {"failed", "cancelled"}:
                raise ServerFault(f"the server says that the job {status}, and not why")
            if status not in {"queued", "generating", "completed"}:
                raise BadEndpoint(f"{self._client.url} told no status that we know of its job")
            if (status, place) != seen:
                seen = (status, place)
                yield view
            if status == "completed":
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_POLL_S)

    async def _view(self, job: str) -> dict[str, Any]:
        """The job now; the client raises the `error` of one that failed, with status 200."""
        try:
            path = f"/sdcpp/v1/jobs/{job}"
            return await self._client.json("GET", path, limit_s=self._idle_s, shape=shapes.JOB)
        except BackendError as error:
            if error.upstream_status in _GONE:
                raise ServerFault(
                    f"the server does not have our job any more (HTTP {error.upstream_status}):"
                    " was it restarted?"
                ) from error
            raise

    async def _let_go(self, job: str, status: str) -> None:
        """Take the job out of the queue, if it is still there: 409 says that it runs already.

        A job that is taken out is shown with its `error`, which is none of ours.
        """
        if status == "generating":
            _log.info("%s: job %s cannot be stopped any more and goes on", self.name, job)
            return
        path = f"/sdcpp/v1/jobs/{job}/cancel"
        try:
            # With a body: without one, some clients send no length, and the server waits for it.
            async with asyncio.timeout(CANCEL_S), self._client.open("POST", path, {}):
                pass
        except (BackendError, TimeoutError) as error:
            why = str(error) or "no answer"
            _log.info("%s: job %s was not cancelled: %s", self.name, job, why)

    async def _capabilities(self) -> dict[str, Any]:
        """What it can do; nothing is known of a server from before there was this path."""
        try:
            return await self._client.json(
                "GET", "/sdcpp/v1/capabilities", limit_s=QUICK_S, shape=shapes.ABILITIES
            )
        except BadEndpoint:
            return {}


def _stage(view: dict[str, Any]) -> Phase | Progress:
    if view.get("status") == "generating":
        return Phase(phase="generating")
    return Progress(status=f"number {view.get('queue_position')} in the queue of the server")


def _images(view: dict[str, Any]) -> list[Image]:
    result = _table(view.get("result"))
    found = (_table(item).get("b64_json") for item in result.get("images") or ())
    images = [data for data in found if isinstance(data, str) and data]
    if not images:
        raise ServerFault("the server ended the job without an image")
    told = str(result.get("output_format"))
    return [
        Image(index=at, mime_type=mime_type_of(data, told), data=data)
        for at, data in enumerate(images)
    ]


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
