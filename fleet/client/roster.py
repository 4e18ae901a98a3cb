"""What a fleet is made of, as its live workers tell: backends, models, queues, and the workers."""

from typing import TypeVar
from urllib.parse import quote

from pydantic_core import from_json

from contract.json_lines import json_line
from contract.roster import QueueView, WorkerReport
from contract.wire import WireModel, decode
from fleet.client.reports import BackendGone, BackendInfo, ModelInfo, listed
from fleet.client.transport import Shims

AnyNoun = TypeVar("AnyNoun", bound=WireModel)


class RosterClient:
    """The part of a client that looks at the fleet, and changes what it is made of."""

    def __init__(self, shims: Shims) -> None:
        """Ask these."""
        self._shims = shims

    async def add_backend(self, name: str, dsn: str) -> BackendInfo | None:
        """Start a worker for a backend; None: it has not reported yet.

        Takes an admin's key; while the fleet has no keys, the shim must be local.
        """
        body = json_line({"name": name, "dsn": dsn})
        answer = await self._shims.ask("POST", "/api/v1/backends", body=body)
        return None if "status" in from_json(answer) else decode(BackendInfo, answer)

    async def remove_backend(self, name: str) -> BackendGone:
        """End a backend's workers; what waits for it waits on. Takes an admin's key, as above."""
        path = f"/api/v1/backends/{quote(name, safe='')}"
        return decode(BackendGone, await self._shims.ask("DELETE", path))

    async def backends(self) -> tuple[BackendInfo, ...]:
        """Every backend, as its live workers see it."""
        return await self._listed("backends", BackendInfo)

    async def models(self) -> tuple[ModelInfo, ...]:
        """Every model on every live backend."""
        return await self._listed("models", ModelInfo)

    async def queues(self) -> tuple[QueueView, ...]:
        """Every queue that a live worker serves."""
        return await self._listed("queues", QueueView)

    async def workers(self) -> tuple[WorkerReport, ...]:
        """Every live worker."""
        return await self._listed("workers", WorkerReport)

    async def _listed(self, what: str, noun: type[AnyNoun]) -> tuple[AnyNoun, ...]:
        return listed(noun, what, await self._shims.ask("GET", f"/api/v1/{what}"))
