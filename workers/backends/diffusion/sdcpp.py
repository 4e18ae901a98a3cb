"""The adapter for sd-server (stable-diffusion.cpp), native API: jobs are queued, then polled.

The server reports the queue position of a job, but no progress and no previews. A running job
cannot be cancelled: it continues, and the next one waits behind it. Source: stable-diffusion.cpp
`examples/server/api.md`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

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
from workers.backends.http.connections import HttpTransport
from workers.backends.protocols import Stream

_log = logging.getLogger(__name__)

MODEL: Final = "sd-cpp-local"
"""The only id that it lists, whatever model is loaded."""
FIRST_POLL_S: Final = 0.05
LONGEST_POLL_S: Final = 1.0
CANCEL_S: Final = 2.0
"""Timeout in seconds of the cancel request."""
_GONE: Final = frozenset({404, 410})
"""Statuses of an unknown job, and of one that ended more than 600 s ago."""


class Sdcpp:
    """One sd-server: images from text, or from text and an image."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        key: str | None = None,
        idle_s: float = 120.0,
        transport: HttpTransport | None = None,
    ) -> None:
        """`url` is the server's root; `key` is for a proxy, sd-server has no authentication.

        `idle_s` is the timeout in seconds of one poll.
        """
        self.name = name
        self._idle_s = idle_s
        self._client = BackendClient(url.removesuffix("/v1"), key=key, transport=transport)

    async def check(self) -> str | None:
        """GET /v1/models: there is no health path and no version."""
        await self._client.json("GET", "/v1/models", limit_s=QUICK_S)
        return None

    async def models(self) -> Sequence[ModelReport]:
        """The one model, always in memory; without a trait if it only generates videos."""
        await self._client.json("GET", "/v1/models", limit_s=QUICK_S)
        modes = (await self._capabilities()).get("supported_modes")
        makes_images = not isinstance(modes, list) or "img_gen" in modes
        return [ModelReport(name=MODEL, traits=("image",) if makes_images else (), warm=True)]

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def image(self, request: ImageRequest) -> Stream[Phase | Progress | Image | Done]:
        """POST a job, poll it, yield its images; closing the stream cancels a queued job.

        Raises ServerFault for a failed or lost job.
        """
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
                await self._cancel(job, view["status"])
        for image in _images(view):
            yield image
        yield Done(ignored=body.ignored)

    async def _views(self, job: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the job at each change of status or queue position, until it is completed."""
        pause_s, seen = FIRST_POLL_S, None
        while True:
            view = await self._view(job)
            status, place = view.get("status"), view.get("queue_position")
            if status in {"failed", "cancelled"}:
                raise ServerFault(f"the server reports the job as {status}, without a reason")
            if status not in {"queued", "generating", "completed"}:
                raise BadEndpoint(f"{self._client.url} reported an unknown job status")
            if (status, place) != seen:
                seen = (status, place)
                yield view
            if status == "completed":
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_POLL_S)

    async def _view(self, job: str) -> dict[str, Any]:
        """GET the job; the client raises the `error` of a failed one (status 200)."""
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

    async def _cancel(self, job: str, status: str) -> None:
        """Cancel a queued job; status 409 means that it already runs.

        A cancelled job is returned with an `error`, which is ignored.
        """
        if status == "generating":
            _log.info("%s: job %s is running and cannot be cancelled", self.name, job)
            return
        path = f"/sdcpp/v1/jobs/{job}/cancel"
        try:
            # With a body: the server waits for a content length, which requests without one lack.
            async with asyncio.timeout(CANCEL_S), self._client.open("POST", path, {}):
                pass
        except (BackendError, TimeoutError) as error:
            why = str(error) or "no answer"
            _log.info("%s: job %s was not cancelled: %s", self.name, job, why)

    async def _capabilities(self) -> dict[str, Any]:
        """GET capabilities; {} for older servers without that path."""
        try:
            return await self._client.json(
                "GET", "/sdcpp/v1/capabilities", limit_s=QUICK_S, shape=shapes.CAPABILITIES
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
    output_format = str(result.get("output_format"))
    return [
        Image(index=at, mime_type=mime_type_of(data, output_format), data=data)
        for at, data in enumerate(images)
    ]


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
