"""Joins the texts of a large body, which are let go meanwhile: a join has all of them twice."""

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

_AT_ONCE_CHARS: Final = 2**18
_TRIM_CHARS: Final = 2**21
"""Of texts that were let go, after which the C library is to return their memory."""


def joined_texts(texts: list[str], between: str = "") -> str:
    """The texts as one; the list is emptied.

    Python makes a string longer in place, if nobody else has it.
    """
    if len(texts) == 1:
        return texts.pop()
    whole = ""
    for some in _taken(texts, between):
        whole += some
    return whole


def _taken(texts: list[str], between: str) -> Iterator[str]:
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
