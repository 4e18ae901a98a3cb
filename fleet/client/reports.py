"""The lists that a shim gives of the roster, as a caller reads them. Pure.

Unlike the contract's nouns these ignore fields that a newer shim adds.
"""

from collections.abc import Iterable
from typing import TypeVar

from pydantic import ConfigDict
from pydantic_core import from_json

from contract.roster import Capability, ModelReport
from contract.wire import WireModel

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


class BackendGone(WireModel):
    """A backend whose workers were ended."""

    model_config = ConfigDict(extra="ignore")

    name: str
    workers: int
    """How many were ended."""
    waiting: int
    """Jobs in its queues: they wait until a backend of that name is there again."""


class ModelInfo(ModelReport):
    """A model, and the backend that has it."""

    model_config = ConfigDict(extra="ignore")

    backend: str
    workers: int = 1


def listed(noun: type[AnyNoun], what: str, answer: bytes) -> tuple[AnyNoun, ...]:
    """The list under its name, as in `{"backends": [...]}`."""
    return tuple(noun.model_validate(item) for item in from_json(answer)[what])


def model_for(capability: str, models: Iterable[ModelInfo]) -> ModelInfo | None:
    """A model that can do this, as far as the servers tell: real before scripted, warm first."""
    known = list(models)
    able = [model for model in known if capability in model.traits]
    unknown = [model for model in known if not model.traits]
    return min(able or unknown, key=_preference, default=None)


def _preference(model: ModelInfo) -> tuple[bool, bool, bool]:
    scripted = model.name.startswith("scripted-")
    return scripted, scripted and model.name != "scripted-story", not model.warm
