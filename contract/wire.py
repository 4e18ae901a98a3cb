"""How a noun becomes JSON and back: frozen, strict, and marked with the version it was written in.

Invariant: what one process writes with `encode` another reads with `decode`, or refuses by name.
"""

from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

VERSION: Final = 1
"""Version of the JSON that this code writes; it reads every version up to it."""


class Noun(BaseModel):
    """Something that crosses a process boundary: immutable, and strict about unknown fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, use_attribute_docstrings=True
    )


class Asked(Noun):
    """A noun that callers write: a null in it is as if the field had been left out."""

    @model_validator(mode="before")
    @classmethod
    def _nulls_are_left_out(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and None in fields.values():
            return {name: value for name, value in fields.items() if value is not None}
        return fields


AnyNoun = TypeVar("AnyNoun", bound=Noun)


def encode(noun: Noun) -> bytes:
    """Compact UTF-8 JSON of a noun; fields that are None are left out."""
    return noun.__pydantic_serializer__.to_json(noun, exclude_none=True, by_alias=True)


def decode(kind: type[AnyNoun], data: bytes | str) -> AnyNoun:
    """Read what `encode` wrote; raises pydantic.ValidationError on anything else."""
    return kind.model_validate_json(data)
