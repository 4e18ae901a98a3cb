"""The lists that a shim gives of the roster, read from JSON. Pure."""

from typing import TypeVar

from pydantic_core import from_json

from contract.roster import ModelReport
from contract.wire import Noun

AnyNoun = TypeVar("AnyNoun", bound=Noun)


class ModelOnBackend(ModelReport):
    """A model, and the backend that has it."""

    backend: str


def listed(noun: type[AnyNoun], what: str, answer: bytes) -> tuple[AnyNoun, ...]:
    """The list under its name, as in `{"backends": [...]}`."""
    return tuple(noun.model_validate(item, strict=False) for item in from_json(answer)[what])
