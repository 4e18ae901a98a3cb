"""LM Studio: OpenAI-shaped, and loads, unloads and downloads models through /api/v1.

/api/v1 exists since 0.4.0. The response to an unknown path is status 200 with an `error`, which
`workers/backends/http/client.py` and `adapter.py` raise. Source: lmstudio-ai/docs
`2_rest/*.md`.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import quote

from contract.errors import (
    BackendError,
    BackendStalled,
    ModelMissing,
)
from contract.events import Details, Done, Phase, Progress, Timings
from contract.models import (
    EVERY_MODEL,
    LoadRequest,
    PullRequest,
    UnloadRequest,
)
from workers.backends.http.client import QUICK_S
from workers.backends.http.error_table import error_in
from workers.backends.openai import shapes
from workers.backends.openai.adapter import OpenAI
from workers.backends.protocols import Stream

MAX_FAILED_POLLS: Final = 20
"""Consecutive polls of a download that may fail."""
STUCK_S: Final = 1800.0
"""Seconds without another byte until a download is given up."""


class LmStudio(OpenAI):
    """One LM Studio server."""

    poll_s: float = 0.5
    """Seconds between two polls of a download; LM Studio has no events for it."""
    stuck_s: float = STUCK_S

    async def running(self) -> Stream[Details | Done]:
        """GET /api/v1/models: every instance of every model."""
        yield Details(details=_running(await self._items()))
        yield Done()

    async def load(self, request: LoadRequest) -> Stream[Phase | Done]:
        """POST /api/v1/models/load, which returns when the model is loaded.

        Skipped for a loaded model, which would get a second instance.
        """
        load_ms = None
        if not _instances(await self._item(request.model)):
            yield Phase(phase="loading")
            body = {"model": request.model}
            answer = await self._root.json(
                "POST", "/api/v1/models/load", body, shape=shapes.LM_STUDIO_JOB
            )
            seconds = answer.get("load_time_seconds")
            load_ms = float(seconds) * 1000 if isinstance(seconds, int | float) else None
        ignored = ("keep_alive_s",) if request.keep_alive_s is not None else ()
        yield Done(timings=Timings(load_ms=load_ms), ignored=ignored)

    async def unload(self, request: UnloadRequest) -> Stream[Done]:
        """POST /api/v1/models/unload for each instance of a model, or for the named instance."""
        if request.model == EVERY_MODEL:
            items = await self._items()
        else:
            items = [await self._item(request.model)]
        names = [name for item in items for name in _instances(item)]
        # The name may be that of one instance.
        for name in [request.model] if request.model in names else names:
            await self._root.json("POST", "/api/v1/models/unload", {"instance_id": name})
        yield Done()

    async def pull(self, request: PullRequest) -> Stream[Progress | Done]:
        """POST /api/v1/models/download, then poll its status until it ends.

        LM Studio cannot stop a download: after closing the stream it continues, and the next
        pull of that model follows the same one. Raises BackendStalled without progress.
        """
        body = {"model": request.model}
        answer = await self._root.json(
            "POST", "/api/v1/models/download", body, shape=shapes.LM_STUDIO_JOB
        )
        async with aclosing(self._downloading(answer)) as steps:
            async for step in steps:
                yield step
        yield Done()

    async def _downloading(self, answer: dict[str, Any]) -> AsyncGenerator[Progress, None]:
        """Yield the progress of each poll; raises the error of a failed download."""
        job, failed, watch = str(answer.get("job_id") or ""), 0, _StallWatch(self.stuck_s)
        while True:
            yield _progress(answer)
            status = answer.get("status")
            if status == "failed":
                reason = answer.get("error") or answer.get("error_message")
                raise error_in({"error": reason or "LM Studio's download failed"})
            if not job or status in {"completed", "already_downloaded"}:
                return
            watch.demand_progress(answer)
            await asyncio.sleep(self.poll_s)
            try:
                path = f"/api/v1/models/download/status/{quote(job, safe='')}"
                answer, failed = await self._state(path), 0
            except BackendError as error:
                failed += 1
                if not error.retryable or failed > MAX_FAILED_POLLS:
                    raise

    async def _state(self, path: str) -> dict[str, Any]:
        return await self._root.json("GET", path, limit_s=QUICK_S, shape=shapes.LM_STUDIO_JOB)

    async def _items(self) -> list[dict[str, Any]]:
        listing = await self._root.json(
            "GET", "/api/v1/models", limit_s=QUICK_S, shape=shapes.LM_STUDIO_MODEL_LIST
        )
        return listing.get("models") or []

    async def _item(self, model: str) -> dict[str, Any]:
        for item in await self._items():
            if model == item.get("key") or model in _instances(item):
                return item
        raise ModelMissing(f"LM Studio has no model {model!r}")


class _StallWatch:
    """Detects a download without progress."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._completed_bytes: Any = None
        self._changed_at = asyncio.get_running_loop().time()

    def demand_progress(self, answer: dict[str, Any]) -> None:
        """Raises BackendStalled if no byte arrived for `limit_s` seconds."""
        now, completed_bytes = asyncio.get_running_loop().time(), answer.get("downloaded_bytes")
        if completed_bytes != self._completed_bytes:
            self._completed_bytes, self._changed_at = completed_bytes, now
        elif now - self._changed_at > self._limit_s:
            raise BackendStalled(f"LM Studio downloaded nothing for {self._limit_s:g} s")


def _instances(item: dict[str, Any]) -> list[str]:
    return [str(it["id"]) for it in item.get("loaded_instances") or () if it.get("id")]


def _running(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "models": [
            {
                "name": item.get("key"),
                "model": item.get("key"),
                "instance": instance.get("id"),
                "state": "ready",
                "context_length": (instance.get("config") or {}).get("context_length"),
                "size": item.get("size_bytes"),
            }
            for item in items
            for instance in item.get("loaded_instances") or ()
        ]
    }


def _progress(answer: dict[str, Any]) -> Progress:
    total, completed = answer.get("total_size_bytes"), answer.get("downloaded_bytes")
    is_over = answer.get("status") == "completed"
    return Progress(
        status=str(answer.get("status") or "downloading"),
        overall_total_bytes=total,
        overall_completed_bytes=total if is_over and completed is None else completed,
    )
