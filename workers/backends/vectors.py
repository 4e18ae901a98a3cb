"""From texts to rows: how inputs are cut into batches and what an answer's rows must be.

Invariant: the rows of all batches together are as many as the texts, in their order, of one width.
"""

import base64
import binascii
from collections.abc import Iterator, Sequence, Sized
from itertools import pairwise
from math import hypot
from typing import Any, Final, TypeVar

from contract.embeddings import is_finite, pack, unpack
from contract.errors import (
    BadAnswer,
    NotFinite,
    NotSupported,
)
from contract.events import Usage, Vectors

Text = TypeVar("Text", bound=Sized)

_FLOAT32_MOST: Final = 3.4028235e38

BATCH_CHARACTERS: Final = 200_000
"""A request holds no more: OpenAI takes 300,000 tokens at once, others less than they say."""


def batches(
    texts: Sequence[Text], limit: int, most_characters: int = BATCH_CHARACTERS
) -> Iterator[tuple[Text, ...]]:
    """Neighbouring texts, at most `limit` and `most_characters` together, at least one.

    A text may be ids of tokens; they count as characters. One huge request fails as a whole, and
    shows nothing until it is done (openrag #465).
    """
    starts, characters = [0], 0
    for at, text in enumerate(texts):
        characters += len(text)
        if at > starts[-1] and (at - starts[-1] >= limit or characters > most_characters):
            starts.append(at)
            characters = len(text)
    for start, end in pairwise([*starts, len(texts)]):
        yield tuple(texts[start:end])


class VectorRows:
    """Turns the rows of each batch into a `Vectors`, and demands that they fit together."""

    def __init__(self, dimensions: int | None) -> None:
        """`dimensions` is what the caller asked for, if it did."""
        self._asked = dimensions
        self._dimension: int | None = None
        self._count = 0
        self._tokens: int | None = None

    def spend(self, tokens: int | None) -> None:
        """Add what the backend says that a batch has cost, if it does."""
        if tokens is not None:
            self._tokens = (self._tokens or 0) + tokens

    @property
    def usage(self) -> Usage | None:
        """What all batches have cost; None if that was never told."""
        return None if self._tokens is None else Usage(prompt_tokens=self._tokens)

    def add(self, rows: Sequence[Any], expected: int) -> Vectors:
        """The next rows.

        Raises BadAnswer if they are not `expected` rows of one width, NotFinite if one of them has
        a number that is none, NotSupported if they are not of the width that was asked for.
        """
        if len(rows) != expected:
            raise BadAnswer(f"the backend answered {len(rows)} vectors for {expected} texts")
        numbers = [_numbers(row) for row in rows]
        widths = {len(row) for row in numbers} | ({self._dimension} if self._dimension else set())
        if len(widths) != 1 or 0 in widths:
            raise BadAnswer(f"the backend answered vectors of widths {sorted(widths)}")
        self._dimension = len(numbers[0])
        if self._asked is not None and self._dimension != self._asked:
            raise NotSupported(
                f"dimensions: the model makes vectors of {self._dimension} numbers, and the"
                f" backend cannot cut them to {self._asked}"
            )
        first, self._count = self._count, self._count + len(numbers)
        return Vectors(
            index=first,
            count=len(numbers),
            dimension=self._dimension,
            data=_packed(numbers, first),
        )


def _packed(rows: Sequence[Sequence[float]], first: int) -> str:
    """The rows as the contract has them; the first one is that of text number `first`.

    llama-server writes null for a number that is none. Numbers that float32 cannot hold are none.
    """
    try:
        if all(is_finite(row) for row in rows):
            return pack(rows)
    except (TypeError, OverflowError):
        pass
    for at, row in enumerate(rows, first):
        for place, number in enumerate(row):
            _demand_finite(number, f"input[{at}]", place)
    raise BadAnswer("the backend answered numbers of a vector that float32 has no room for")


def _demand_finite(number: Any, text: str, place: int) -> None:
    if number is None or (isinstance(number, int | float) and not abs(number) <= _FLOAT32_MOST):
        raise NotFinite(f"{text}: number {place} of its vector is none (NaN or infinite)")
    if not isinstance(number, int | float):
        raise BadAnswer(f"{text}: number {place} of its vector is something else than a number")


def width(row: Any) -> int | None:
    """How many numbers a row has; None if it is no row."""
    return len(_numbers(row)) or None


def unit(row: Any) -> Any:
    """The row scaled to length 1; what is no row of numbers is left for `VectorRows` to refuse."""
    if not isinstance(row, list) or not all(isinstance(value, int | float) for value in row):
        return row
    try:
        length = hypot(*row)
    except OverflowError:
        return row
    return [value / length for value in row] if length else row


def ordered(items: Sequence[Any]) -> list[Any]:
    """The embeddings of OpenAI's `data`, by `index`; servers may answer out of order."""
    if not all(isinstance(item, dict) for item in items):
        raise BadAnswer("the backend answered embeddings that are no objects")
    told = [item.get("index") for item in items]
    indexes = [at if index is None else index for at, index in enumerate(told)]
    if sorted(indexes) != list(range(len(items))):
        raise BadAnswer(f"the backend numbered its vectors {indexes[:8]}, not from 0 on")
    return [
        item.get("embedding") for _, item in sorted(zip(indexes, items, strict=True), key=_first)
    ]


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _numbers(row: Any) -> Sequence[float]:
    """A row as numbers; base64 is of little-endian float32."""
    if isinstance(row, str):
        try:
            raw = base64.b64decode(row, validate=True)
            return unpack(row, len(raw) // 4)[0] if raw else []
        except (binascii.Error, ValueError):
            raise BadAnswer("the backend answered a vector in broken base64") from None
    if not isinstance(row, list):
        raise BadAnswer("the backend answered a vector that is no list of numbers")
    return row
