"""Embeddings: inputs are split into batches, and the vectors of each response are checked.

Invariant: all batches together give one vector per text, in order, all of one width.
"""

import base64
import binascii
from collections.abc import AsyncGenerator, Iterator, Sequence, Sized
from contextlib import aclosing
from itertools import pairwise
from math import hypot
from typing import Any, Final, TypeVar

from contract.embeddings import is_finite, pack, unit_rows, unpack
from contract.errors import BackendError, BadAnswer, NotFinite, NotSupported
from contract.events import Event, Usage, Vectors

Text = TypeVar("Text", bound=Sized)

_FLOAT32_MOST: Final = 3.4028235e38

BATCH_CHARACTERS: Final = 200_000
"""Most characters of one request: OpenAI accepts 300,000 tokens, others less than documented."""


def batches(
    texts: Sequence[Text], limit: int, most_characters: int = BATCH_CHARACTERS
) -> Iterator[tuple[Text, ...]]:
    """Neighbouring texts in batches of at most `limit` texts and `most_characters`.

    A longer text is a batch of its own. A text may be token ids, each counts as one character.
    One huge request would fail as a whole and show no progress (openrag #465).
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
    """Makes a `Vectors` event of each batch and checks that the batches match."""

    def __init__(self, dimensions: int | None) -> None:
        """`dimensions` is the width that the request names, if any."""
        self._wanted = dimensions
        self._dimension: int | None = None
        self._count = 0
        self._tokens: int | None = None

    def spend(self, tokens: int | None) -> None:
        """Add the prompt tokens of a batch; None if the backend does not report them."""
        if tokens is not None:
            self._tokens = (self._tokens or 0) + tokens

    @property
    def usage(self) -> Usage | None:
        """The tokens of all batches; None if they were never reported."""
        return None if self._tokens is None else Usage(prompt_tokens=self._tokens)

    def add(self, rows: Sequence[Any], expected: int) -> Vectors:
        """The event of the next rows: lists of numbers, or base64 of little-endian float32.

        Raises BadAnswer if they are not `expected` rows of one width, NotFinite for NaN or an
        infinite number, NotSupported if their width is not the requested one.
        """
        if len(rows) != expected:
            raise BadAnswer(f"the backend answered {len(rows)} vectors for {expected} texts")
        numbers = [_numbers(row) for row in rows]
        widths = {len(row) for row in numbers} | ({self._dimension} if self._dimension else set())
        if len(widths) != 1 or 0 in widths:
            raise BadAnswer(f"the backend answered vectors of widths {sorted(widths)}")
        self._dimension = len(numbers[0])
        if self._wanted is not None and self._dimension != self._wanted:
            raise NotSupported(
                f"dimensions: the model makes vectors of {self._dimension} numbers, and the"
                f" backend cannot cut them to {self._wanted}"
            )
        first, self._count = self._count, self._count + len(numbers)
        return Vectors(
            index=first,
            count=len(numbers),
            dimension=self._dimension,
            data=_packed(numbers, first),
        )


def _packed(rows: Sequence[Sequence[float]], first: int) -> str:
    """The rows packed for a `Vectors` event; `first` is the index of the first text.

    llama-server writes null for NaN. A number that does not fit into float32 counts as infinite.
    """
    try:
        if all(is_finite(row) for row in rows):
            return pack(rows)
    except (TypeError, OverflowError) as error:
        raise _not_packed(rows, first) from error
    raise _not_packed(rows, first)


def _not_packed(rows: Sequence[Sequence[Any]], first: int) -> BackendError:
    """The error that names the first invalid number."""
    for at, row in enumerate(rows, first):
        for place, number in enumerate(row):
            where = f"input[{at}]: number {place} of its vector"
            is_number = isinstance(number, int | float)
            if number is None or (is_number and not abs(number) <= _FLOAT32_MOST):
                return NotFinite(f"{where} is not finite (NaN or infinite)")
            if not is_number:
                return BadAnswer(f"{where} is not a number")
    return BadAnswer("the backend answered a vector with numbers that do not fit into float32")


def width(row: Any) -> int | None:
    """The width of a vector, None if it is empty; raises BadAnswer."""
    return len(_numbers(row)) or None


async def unit_vectors(
    events: AsyncGenerator[Event, None],
) -> AsyncGenerator[Event, None]:
    """The events of an embedding with each vector scaled to length 1."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Vectors):
                data = unit_rows(event.data, event.dimension)
                yield event.model_copy(update={"data": data})
            else:
                yield event


def unit(row: Any) -> Any:
    """The row scaled to length 1; anything but numbers is returned for `VectorRows` to refuse."""
    if not isinstance(row, list) or not all(isinstance(value, int | float) for value in row):
        return row
    try:
        length = hypot(*row)
    except OverflowError:
        return row
    return [value / length for value in row] if length else row


def ordered(items: Sequence[Any]) -> list[Any]:
    """The embeddings of OpenAI's `data`, sorted by `index`; raises BadAnswer.

    Servers may return them out of order. Items without `index` count by position.
    """
    if not all(isinstance(item, dict) for item in items):
        raise BadAnswer("the backend answered embeddings that are not objects")
    given = [item.get("index") for item in items]
    indexes = [at if index is None else index for at, index in enumerate(given)]
    if sorted(indexes) != list(range(len(items))):
        raise BadAnswer(f"the backend numbered its vectors {indexes[:8]}, not from 0 up")
    return [
        item.get("embedding") for _, item in sorted(zip(indexes, items, strict=True), key=_first)
    ]


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _numbers(row: Any) -> Sequence[float]:
    """A row as numbers; base64 holds little-endian float32."""
    if isinstance(row, str):
        try:
            raw = base64.b64decode(row, validate=True)
            return unpack(row, len(raw) // 4)[0] if raw else []
        except (binascii.Error, ValueError):
            raise BadAnswer("the backend answered a vector in broken base64") from None
    if not isinstance(row, list):
        raise BadAnswer("the backend answered a vector that is not a list of numbers")
    return row
