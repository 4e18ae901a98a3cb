"""Embedding requests, and the encoding of vectors in events."""

import base64
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from math import hypot, isfinite
from typing import Annotated, Final, Literal, get_args

from pydantic import Field, StrictBool, ValidationInfo, field_validator

from contract.chat import Tokens
from contract.requests import Request

Task = Literal["query", "document", "classification", "clustering", "similarity"]
"""What texts are embedded for; some models embed a query otherwise than a document."""

TASK_WORDS: Final[Mapping[str, Task]] = {
    **{task: task for task in get_args(Task)},
    "search_query": "query", "retrieval.query": "query", "retrieval_query": "query",
    "search_document": "document", "retrieval.passage": "document", "passage": "document",
    "retrieval_document": "document",
    "separation": "clustering", "text-matching": "similarity", "semantic_similarity": "similarity",
}  # fmt: skip
"""Tasks by the words of clients: Cohere's, Jina's, Nomic's, Google's."""


class EmbedRequest(Request):
    """Turn texts into vectors; the answer comes as `vectors` events in the order of `input`."""

    kind: Literal["embed"] = "embed"
    model: Annotated[str, Field(min_length=1, max_length=256)]
    tokens: Annotated[tuple[Tokens, ...], Field(max_length=8192)] = ()
    """Texts as ids of the model's tokens, instead of `input`; refused if the backend accepts only
    text."""
    input: Annotated[tuple[str, ...], Field(max_length=8192, validate_default=True)] = ()
    """The texts; at least one, unless there are `tokens`."""
    dimensions: Annotated[int, Field(ge=1, le=65536)] | None = None
    task: Task | None = None
    """What the texts are for: the model's prompt for it is put before each, where one is configured
    or the backend has its own; else it is in `done.ignored`."""
    normalize: StrictBool | None = None
    """Scale each vector to length 1 (true), or leave it as the model makes it (false, where the
    backend can); by default as the backend does."""
    truncate: StrictBool | None = None
    """Cut a text that is too long (true, the default) or fail the job (false)."""
    keep_alive_s: float | None = None

    @property
    def count(self) -> int:
        """Number of requested vectors."""
        return len(self.input) or len(self.tokens)

    @field_validator("input")
    @classmethod
    def _one_of_both(cls, input: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if (not input) == (not info.data.get("tokens", "wrong")):
            raise ValueError("either input, at least one text, or tokens, not both")
        return input


def pack(rows: Iterable[Sequence[float]]) -> str:
    """Base64 of little-endian float32, row after row."""
    values = array("f")
    for row in rows:
        values.extend(row)
    if sys.byteorder == "big":
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode("ascii")


def is_finite(row: bytes | Sequence[float]) -> bool:
    """Whether all numbers of a row are finite as float32.

    The row is bytes as in `pack`, or numbers. Raises TypeError for other types, and OverflowError
    for an integer that is too large for a float.
    """
    values = array("f", row)
    if isinstance(row, bytes) and sys.byteorder == "big":
        values.byteswap()
    return isfinite(
        sum(values)
    )  # one pass: NaN and infinity survive a sum, and a float holds the sum of float32


def unit_rows(data: str, dimension: int) -> str:
    """The rows that `pack` encoded, each of `dimension` numbers, scaled to length 1.

    A row of zeros stays as it is.
    """
    return pack(_unit(row) for row in unpack(data, dimension))


def _unit(row: Sequence[float]) -> Sequence[float]:
    length = hypot(*row)
    return [value / length for value in row] if length else row


def unpack(data: str, dimension: int) -> list[list[float]]:
    """The rows that `pack` encoded, each of `dimension` numbers."""
    values = array("f")
    values.frombytes(base64.b64decode(data))
    if sys.byteorder == "big":
        values.byteswap()
    return [values[at : at + dimension].tolist() for at in range(0, len(values), dimension)]
