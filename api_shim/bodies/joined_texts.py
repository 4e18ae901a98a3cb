"""Translates what a large body holds, which is let go meanwhile: else all of it is there twice."""

import ctypes
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from contract.errors import InvalidRequest, PayloadTooLarge
from contract.json_lines import one_line
from contract.json_texts.json_scan import MOST_WIDE
from contract.wire import MOST_ITEMS, is_finite, json_pieces

_AT_ONCE_CHARS: Final = 2**18
_FIELDS_OF_TEXT: Final = 2
_TRIM_CHARS: Final = 2**21
"""Of texts that were let go, after which the C library is to return their memory."""
_WIDE: Final = re.compile("[\U00010000-\U0010ffff]")


Item = TypeVar("Item")


def join_plain(parts: Any, between: str = "", types: frozenset[str] = frozenset({"text"})) -> Any:
    """Parts of a message as they came; of plain texts alone one is made, in place.

    Each would be an object of a kilobyte as soon as it is validated. Raises as `joined_texts`.
    """
    if (
        isinstance(parts, list)
        and 1 < len(parts) <= MOST_ITEMS
        and all(_is_plain(part, types) for part in parts)
    ):
        kind, texts = parts[0]["type"], [part["text"] for part in parts]
        parts.clear()
        parts.append({"type": kind, "text": joined_texts(texts, between)})
    return parts


def _is_plain(part: Any, types: frozenset[str]) -> bool:
    return (
        isinstance(part, dict)
        and len(part) == _FIELDS_OF_TEXT
        and isinstance(part.get("text"), str)
        and isinstance(part.get("type"), str)
        and part["type"] in types
    )


def joined_texts(texts: list[str], between: str = "") -> str:
    """The texts as one; the list is emptied.

    Python makes a string longer in place, if nobody else has it. Raises PayloadTooLarge if one of
    them would make all the others four times as wide, which is bounded for one text, too.
    """
    if len(texts) == 1:
        return texts.pop()
    if sum(map(len, texts)) > MOST_WIDE and any(map(_is_wide, texts)):
        raise PayloadTooLarge(
            f"The body is too large: more than {MOST_WIDE} characters in texts that become one, "
            "some beyond U+FFFF (emoji are): send fewer texts, or none of these characters."
        )
    whole = ""
    for some in _some(texts, between):
        whole += some
    return whole


def taken(items: list[Item]) -> Iterator[Item]:
    """The items of a list, each let go when the next one is asked for; the list is emptied."""
    items.reverse()
    while items:
        yield items.pop()


def json_text(holder: BaseModel, field: str) -> str:
    """The JSON of an object of a body in one line; the body's field is emptied.

    Raises InvalidRequest for a number that is out of range, which would become null.
    """
    value = getattr(holder, field)
    if not is_finite(value):
        raise InvalidRequest(f"{field}: a number is out of range: send a smaller one", field=field)
    pieces = [*json_pieces({} if value is None else value)]
    del value
    holder.__dict__[field] = None
    return joined_texts([one_line(piece).decode() for piece in taken(pieces)])


def _is_wide(text: str) -> bool:
    """Whether a character is beyond U+FFFF; other threads run meanwhile."""
    return not text.isascii() and any(
        _WIDE.search(text, start, start + _AT_ONCE_CHARS)
        for start in range(0, len(text), _AT_ONCE_CHARS)
    )


def _some(texts: list[str], between: str) -> Iterator[str]:
    """Some at once; of a large one a part, because only a loop that is warm adds in place."""
    texts.reverse()
    begun, freed = "", 0
    while texts:
        some = [texts.pop()]
        size = len(some[0])
        while texts and size + len(texts[-1]) < _AT_ONCE_CHARS:
            some.append(texts.pop())
            size += len(some[-1])
        more = begun + between.join(some)
        begun, freed = between, freed + size
        some.clear()
        if freed > _TRIM_CHARS:
            _return_freed()
            freed = 0
        for start in range(0, len(more), _AT_ONCE_CHARS):
            yield more[start : start + _AT_ONCE_CHARS]


def _return_freed() -> None:
    """Have glibc return freed memory to the system; it keeps that of texts of some kilobytes."""
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
