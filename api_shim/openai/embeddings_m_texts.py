"""What embeddings and completions take: a text, several, or the ids of their tokens. Pure."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import PydanticCustomError

Ids = Annotated[list[int], Field(min_length=1)]
Given = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]


def in_one_shape(given: Any, most: int) -> Any:
    """What was given, if it is in one of the shapes, with at most so many texts.

    Said here once; the members of a union would say it one by one. Raises PydanticCustomError.
    """
    if isinstance(given, str):
        return given
    kinds = [_kind(each) for each in given] if isinstance(given, list) else [None]
    wrong = next((at for at, it in enumerate(kinds) if it is None or it != kinds[0]), None)
    if wrong is not None:
        raise PydanticCustomError(
            "input_type",
            "it is one text, a list of texts, ids of tokens, or a list of those{item}",
            {"item": f"; its item {wrong} is none that fits" if isinstance(given, list) else ""},
        )
    if kinds[:1] != ["id"] and len(kinds) > most:
        raise PydanticCustomError(
            "too_long",
            "it has {held} texts, and a request may have {max_length}: send several requests",
            {"held": len(kinds), "max_length": most},
        )
    return given


def _kind(item: Any) -> str | None:
    if isinstance(item, str):
        return "text"
    if isinstance(item, list):
        return "ids" if item and all(_kind(each) == "id" for each in item) else None
    return "id" if isinstance(item, int) and not isinstance(item, bool) else None


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
