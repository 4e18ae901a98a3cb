"""Requests about models themselves: fetch, show, list, copy, make, delete, load, unload."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field

from contract.requests import Request
from contract.roster import Capability, ModelReport

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


ModelKind = Literal["chat", "embed", "image"]
"""Kinds of jobs that a model itself does; the others are done with models."""
MODEL_KINDS: Final[tuple[ModelKind, ...]] = get_args(ModelKind)
_NAMED: Final = 5
"""Names that a sentence lists."""


def kinds(reports: Iterable[ModelReport], capabilities: Iterable[Capability]) -> list[ModelKind]:
    """What a model is for: what its server tells, else what its backend does and it does not lack.

    Empty where neither is known.
    """
    every, able = list(reports), set(capabilities)
    told = [kind for kind in MODEL_KINDS if any(kind in report.traits for report in every)]
    return told or [kind for kind in MODEL_KINDS if kind in able and not lacks(every, kind)]


def lacks(reports: Iterable[ModelReport], kind: str) -> bool:
    """Whether a model is known not to do a kind of job, wherever it is reported."""
    every = list(reports)
    return bool(every) and all(kind in report.lacks for report in every)


def rank(found: Sequence[ModelKind]) -> int:
    """Where models of these kinds stand in lists: first those that chat, last those that do not."""
    if "chat" in found:
        return 0
    return 2 if found else 1


def not_for(model: str, kind: str, does: Sequence[str], others: Sequence[str]) -> str:
    """Say that a model is there and not for this kind of job, what it is for, and which are."""
    is_for = f"is for {' and '.join(does)} jobs, not for {kind}" if does else f"does no {kind} jobs"
    models = f"models for {kind}: {listed(others)}" if others else f"no live model does {kind}"
    return f"The model {model[:80]} {is_for}; {models}."


def cannot(backend: str, kind: str, capabilities: Sequence[str]) -> str:
    """Say that a backend has no way to do a kind of job, and what it can do."""
    return f"Backend {backend} cannot do {kind}; it can do {', '.join(capabilities) or 'nothing'}."


def listed(names: Sequence[str], most: int = _NAMED) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
