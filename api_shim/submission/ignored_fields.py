"""Bodies of drop-in surfaces: what they do not know is accepted, and named to the caller. Pure.

Real clients send fields that no backend here has a word for. Refusing them would break the clients,
and dropping them in silence would mislead their users: `X-Fleet-Ignored` names each of them, as in
`messages[].name`. A null is as if the field had been left out, on every level.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, model_validator

HEADER: Final = "X-Fleet-Ignored"
_MOST_NAMES: Final = 24
"""Names that the header tells; it is a line that every proxy must take."""
_LONGEST_NAME: Final = 64
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.\[\]-]")


class LeftAlone:
    """Marks a field that is known and not acted upon: it is named when somebody sends it."""

    def __init__(self, *, unless: Sequence[Any] = ()) -> None:
        """Not named for these values: they ask for what happens anyway."""
        self.unless = unless


class Lenient(BaseModel):
    """A part of a request's body; what it does not know is kept only to be named."""

    model_config = ConfigDict(
        frozen=True, extra="allow", use_attribute_docstrings=True, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _nulls_are_left_out(cls, fields: Any) -> Any:
        return without_nulls(fields)

    @property
    def unused(self) -> tuple[str, ...]:
        """Fields that are known, but mean nothing beside the others that were sent."""
        return ()


def without_nulls(fields: Any) -> Any:
    """An object without the fields that are null; anything else as it is."""
    if isinstance(fields, dict) and None in fields.values():
        return {name: value for name, value in fields.items() if value is not None}
    return fields


def ignored(body: Lenient) -> tuple[str, ...]:
    """Paths of all that was sent and nothing is done with, each once: `tools[].function.note`."""
    return tuple(dict.fromkeys(_paths(body, "")))


def header_value(names: Iterable[str]) -> str:
    """The names in one header: each once, bounded, and nothing in them that a header may not hold.

    They are the caller's own words, so they are not to be trusted.
    """
    safe = [_UNSAFE.sub("?", name[:_LONGEST_NAME]) for name in dict.fromkeys(names)]
    more = [f"and {len(safe) - _MOST_NAMES} more"] if len(safe) > _MOST_NAMES else []
    return ", ".join([*safe[:_MOST_NAMES], *more])


def _paths(body: Lenient, prefix: str) -> Iterator[str]:
    for name, value in (body.__pydantic_extra__ or {}).items():
        if not _says_nothing(value):
            yield prefix + name
    unused = body.unused
    for name, (theirs, mark) in _known(type(body)).items():
        if name not in body.model_fields_set:
            continue
        value, path = getattr(body, name), prefix + theirs
        if name not in unused and mark is None:
            yield from _deeper(value, path)
        elif not _says_nothing(value) and (mark is None or value not in mark.unless):
            yield path


def _deeper(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Lenient):
        yield from _paths(value, f"{path}.")
    elif isinstance(value, list | tuple) and value and isinstance(value[0], Lenient):
        for each in value:
            yield from _paths(each, f"{path}[].")


def _says_nothing(value: Any) -> bool:
    """Empty text, lists and objects are what libraries write where nobody said anything."""
    return value is None or value in ("", [], {}, ())


@lru_cache(maxsize=256)
def _known(kind: type[Lenient]) -> dict[str, tuple[str, LeftAlone | None]]:
    """The fields of a body by our name: how a caller calls each, and its mark if it has one."""
    return {
        name: (
            field.alias or name,
            next((mark for mark in field.metadata if isinstance(mark, LeftAlone)), None),
        )
        for name, field in kind.model_fields.items()
    }
