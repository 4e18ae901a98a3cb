"""What embeddings and completions take: a text, several, or the ids of their tokens. Pure."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

Ids = Annotated[list[int], Field(min_length=1)]
Given = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]


def texts(given: Given) -> tuple[str, ...]:
    """The texts; none if it is ids."""
    if isinstance(given, str):
        return (given,)
    return tuple(each for each in given if isinstance(each, str))


def ids(given: Given) -> tuple[tuple[int, ...], ...]:
    """The ids of each text; none if it is texts."""
    one = tuple(each for each in given if isinstance(each, int))
    if one:
        return (one,)
    return tuple(tuple(each) for each in given if not isinstance(each, int | str))
