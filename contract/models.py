"""Requests about models themselves: fetch, show, list, copy, make, delete, load, unload."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from contract.requests import Request

ModelName = Annotated[str, Field(min_length=1, max_length=256)]


class PullRequest(Request):
    """Download a model to the backend; the answer is `progress` events."""

    kind: Literal["pull"] = "pull"
    model: ModelName
    insecure: bool = False


class ShowRequest(Request):
    """Ask for everything the backend knows of a model; the answer is one `details` event."""

    kind: Literal["show"] = "show"
    model: ModelName


class ListRequest(Request):
    """Ask the backend for its models; the answer is one `details` event."""

    kind: Literal["list"] = "list"


class RunningRequest(Request):
    """Ask the backend for its loaded models; the answer is one `details` event."""

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
    """Make a model from another; the answer is `progress` events."""

    kind: Literal["create"] = "create"
    model: ModelName
    source: ModelName
    system: str | None = None
    template: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    license: tuple[str, ...] = ()
    messages: Annotated[tuple[dict[str, Any], ...], Field(max_length=1024)] = ()
    """Turns that stand before every conversation, as the backend writes them."""
    quantize: Annotated[str, Field(max_length=40)] | None = None
    """What to make the numbers into, as in `q4_K_M`."""


class LoadRequest(Request):
    """Bring a model into memory."""

    kind: Literal["load"] = "load"
    model: ModelName
    keep_alive_s: float | None = None


EVERY_MODEL: Final = "*"
"""What an unload names to take all models out of memory."""


class UnloadRequest(Request):
    """Take a model out of memory, or all of them by the name `*`."""

    kind: Literal["unload"] = "unload"
    model: ModelName
