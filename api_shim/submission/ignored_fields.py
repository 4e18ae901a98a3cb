"""Bodies of drop-in surfaces: unknown fields are accepted, and reported to the client. Pure.

Real clients send fields that no backend here supports. Refusing them would break clients, and
dropping them silently would mislead users: `X-Fleet-Ignored` names each of them, as in
`messages[].name`. A null means the same as an absent field, at every level.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from pydantic import ConfigDict

from contract.wire import BoundedModel

HEADER: Final = "X-Fleet-Ignored"
_MOST_NAMES: Final = 24
"""Names in the header at most; proxies limit the length of a line."""
_LONGEST_NAME: Final = 64
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.\[\]-]")


class IgnoredField:
    """Marks a known field that has no effect: it is reported when a client sends it."""

    def __init__(self, *, unless: Sequence[Any] = ()) -> None:
        """`unless` are values that need no report, because they are what happens anyway."""
        self.unless = unless


class LenientModel(BoundedModel):
    """A part of a request's body; unknown fields are kept only to be reported."""

    model_config = ConfigDict(
        frozen=True, extra="allow", use_attribute_docstrings=True, protected_namespaces=()
    )

    @property
    def unused_fields(self) -> tuple[str, ...]:
        """Known fields that have no effect beside the others that were sent."""
        return ()


def ignored(body: LenientModel) -> tuple[str, ...]:
    """Paths of all fields that were sent and have no effect, each once: `tools[].function.note`."""
    return tuple(dict.fromkeys(_paths(body, "")))


def header_value(names: Iterable[str]) -> str:
    """The names as the header's value: each once, bounded, and only with characters that are safe.

    The names come from the client, so they are untrusted.
    """
    safe = [_UNSAFE.sub("?", name[:_LONGEST_NAME]) for name in dict.fromkeys(names)]
    more = [f"and {len(safe) - _MOST_NAMES} more"] if len(safe) > _MOST_NAMES else []
    return ", ".join([*safe[:_MOST_NAMES], *more])


def _paths(body: LenientModel, prefix: str) -> Iterator[str]:
    for name, value in (body.__pydantic_extra__ or {}).items():
        if not _is_empty(value):
            yield prefix + name
    unused = body.unused_fields
    for name, (theirs, mark) in _known(type(body)).items():
        if name not in body.model_fields_set:
            continue
        value, path = getattr(body, name), prefix + theirs
        if name not in unused and mark is None:
            yield from _deeper(value, path)
        elif not _is_empty(value) and (mark is None or value not in mark.unless):
            yield path


def _deeper(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, LenientModel):
        yield from _paths(value, f"{path}.")
    elif isinstance(value, list | tuple) and value and isinstance(value[0], LenientModel):
        for each in value:
            yield from _paths(each, f"{path}[].")


def _is_empty(value: Any) -> bool:
    """Libraries send empty text, lists and objects for fields that their user has not set."""
    return value is None or value in ("", [], {}, ())


@lru_cache(maxsize=256)
def _known(kind: type[LenientModel]) -> dict[str, tuple[str, IgnoredField | None]]:
    """The fields of a body by attribute: its name on the wire, and its mark if it has one."""
    return {
        name: (
            field.alias or name,
            next((mark for mark in field.metadata if isinstance(mark, IgnoredField)), None),
        )
        for name, field in kind.model_fields.items()
    }
