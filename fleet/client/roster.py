"""Backends, models, queues and workers: what a client reads of the roster, and its requests for it.

Unlike the contract's models these ignore fields that a newer shim adds.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

from pydantic import ConfigDict

from contract.aliases.alias_table import AliasList, AliasView
from contract.json_lines import json_line
from contract.roster import Capability, ModelReport, QueueTimes, QueueView, WorkerReport
from contract.wire import WireModel
from fleet.client.answers import answer_of, fields_of, listed
from fleet.client.transport import Shims

_ALIASES: Final = "/api/v1/aliases"
AnyNoun = TypeVar("AnyNoun", bound=WireModel)


class BackendInfo(WireModel):
    """A backend over all workers that serve it."""

    model_config = ConfigDict(extra="ignore")

    name: str
    type: str
    healthy: bool
    error: str | None = None
    endpoints: tuple[str, ...] = ()
    endpoints_down: tuple[str, ...] = ()
    circuit_open_until: float | None = None
    version: str | None = None
    capabilities: tuple[Capability, ...] = ()
    models: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    known_queues: tuple[str, ...] = ()
    last_seen_at: float | None = None


class BackendGone(WireModel):
    """A backend whose workers were ended."""

    model_config = ConfigDict(extra="ignore")

    name: str
    workers: int
    """How many were ended."""
    forgotten: bool = False
    """Whether it was known from earlier workers: new jobs do not wait for it any more."""
    waiting: int
    """Jobs in its queues: they wait until a backend of that name is there again."""


class ModelInfo(ModelReport):
    """A model, and the backend that has it."""

    model_config = ConfigDict(extra="ignore")

    backend: str
    workers: int = 1


class RosterClient:
    """Reads the roster, and adds and removes backends.

    Every method raises FleetUnreachable, NotAuthorised, or the error that the shim responds with.
    """

    def __init__(self, shims: Shims) -> None:
        """Send requests to these shims."""
        self._shims = shims

    async def add_backend(self, name: str, dsn: str) -> BackendInfo | None:
        """Start workers for a backend and return it; None if it has not reported yet.

        `dsn` is as in `ollama://host:11434`. Needs an admin's API key; while the fleet has no keys,
        a shim on this machine.
        """
        body = json_line({"name": name, "dsn": dsn})
        answer = await self._shims.request("POST", "/api/v1/backends", body=body)
        return None if "status" in fields_of(answer) else answer_of(BackendInfo, answer)

    async def remove_backend(self, name: str) -> BackendGone:
        """Stop a backend's workers and forget it; its jobs stay queued. Needs an admin's API key.

        Without live workers it is only forgotten. `add_backend` says when no key is needed.
        """
        path = f"/api/v1/backends/{quote(name, safe='')}"
        return answer_of(BackendGone, await self._shims.request("DELETE", path))

    async def pause_queue(
        self, queue: str, *, until: float | str | None = None, reason: str = ""
    ) -> QueueTimes:
        """Start no more jobs of a queue, until a time or until it is resumed.

        `until` is RFC 3339 or in unix seconds. Needs an admin's API key. Raises UnknownQueue,
        InvalidRequest.
        """
        given = {"until": until, "reason": reason or None}
        body = {name: value for name, value in given.items() if value is not None}
        return await self._changed(queue, "POST", "pause", body)

    async def resume_queue(self, queue: str) -> QueueTimes:
        """Start the jobs of a paused queue again; raises UnknownQueue. For admins."""
        return await self._changed(queue, "POST", "resume", None)

    async def set_run_windows(self, queue: str, windows: Sequence[str]) -> QueueTimes:
        """Let a queue run only in these windows, as in `22:00-06:00 Europe/Berlin`; none: always.

        Needs an admin's API key. Raises UnknownQueue, InvalidRequest.
        """
        return await self._changed(queue, "PUT", "windows", {"windows": list(windows)})

    async def _changed(self, queue: str, method: str, what: str, body: object) -> QueueTimes:
        path = f"/api/v1/queues/{quote(queue, safe='')}/{what}"
        data = None if body is None else json_line(body)
        return answer_of(QueueTimes, await self._shims.request(method, path, body=data))

    async def aliases(self) -> tuple[AliasView, ...]:
        """Every alias: what it stands for, and whether the fleet can use it now."""
        return answer_of(AliasList, await self._shims.request("GET", _ALIASES)).aliases

    async def alias(self, name: str) -> AliasView:
        """One alias by its name, as it is written; raises UnknownAlias."""
        return answer_of(AliasView, await self._shims.request("GET", _alias(name)))

    async def set_alias(self, /, name: str, model: str, **fields: Any) -> AliasView:
        """Set an alias for all shims; `fields` are those of `Alias`, as `fallbacks=["qwen3:4b"]`.

        Needs an admin's API key. Raises InvalidRequest, which names the field.
        """
        body = json_line({**fields, "model": model})
        return answer_of(AliasView, await self._shims.request("PUT", _alias(name), body=body))

    async def remove_alias(self, name: str) -> None:
        """Delete an alias that was set; raises UnknownAlias, InvalidRequest. For admins."""
        await self._shims.request("DELETE", _alias(name))

    async def backends(self) -> tuple[BackendInfo, ...]:
        """Every backend, as its live workers report it."""
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
        return listed(noun, what, await self._shims.request("GET", f"/api/v1/{what}"))


def _alias(name: str) -> str:
    return f"{_ALIASES}/{quote(name, safe='')}"


def model_for(capability: str, models: Iterable[ModelInfo]) -> ModelInfo | None:
    """A model with this capability (`chat`, `embed`, `image`, `rerank`); None if there is none.

    Prefers real models to scripted ones and models in memory to others. Where no model reports its
    capabilities, any model counts.
    """
    known = list(models)
    able = [model for model in known if capability in model.traits]
    unknown = [model for model in known if not model.traits]
    return min(able or unknown, key=_preference, default=None)


def _preference(model: ModelInfo) -> tuple[bool, bool, bool]:
    scripted = model.name.startswith("scripted-")
    return scripted, scripted and model.name != "scripted-story", not model.warm
