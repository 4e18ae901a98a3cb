"""Requests that manage models: pull, show, list, running, copy, create, delete, load, unload."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field, StrictBool

from contract.requests import Request

ModelName = Annotated[str, Field(min_length=1, max_length=256)]


class PullRequest(Request):
    """Download a model to the backend; the answer is `progress` events."""

    kind: Literal["pull"] = "pull"
    model: ModelName
    insecure: StrictBool = False


class ShowRequest(Request):
    """Show what the backend knows of a model; the answer is one `details` event."""

    kind: Literal["show"] = "show"
    model: ModelName


class ListRequest(Request):
    """List the backend's models; the answer is one `details` event."""

    kind: Literal["list"] = "list"


class RunningRequest(Request):
    """List the backend's loaded models; the answer is one `details` event."""

    kind: Literal["running"] = "running"


class DeleteRequest(Request):
    """Delete a model from the backend."""

    kind: Literal["delete"] = "delete"
    model: ModelName


class CopyRequest(Request):
    """Give a model a second name."""

    kind: Literal["copy"] = "copy"
    model: ModelName
    destination: ModelName


class CreateRequest(Request):
    """Create a model from another; the answer is `progress` events."""

    kind: Literal["create"] = "create"
    model: ModelName
    source: ModelName
    system: str | None = None
    template: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    license: tuple[str, ...] = ()
    messages: Annotated[tuple[dict[str, Any], ...], Field(max_length=1024)] = ()
    """Messages that precede every conversation, in the backend's form."""
    quantize: Annotated[str, Field(max_length=40)] | None = None
    """The quantization to convert the weights to, as in `q4_K_M`."""


class LoadRequest(Request):
    """Load a model into memory."""

    kind: Literal["load"] = "load"
    model: ModelName
    keep_alive_s: float | None = None


EVERY_MODEL: Final = "*"
"""The model name with which an unload unloads all models."""


class UnloadRequest(Request):
    """Unload a model from memory, or all of them by the name `*`."""

    kind: Literal["unload"] = "unload"
    model: ModelName
