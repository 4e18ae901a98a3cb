"""JSON in one line, for SSE, NDJSON and files of lines: no other file encodes it.

JSON may hold raw U+0085, U+2028 and U+2029, at which some readers cut lines (Python's `splitlines`,
and so httpx's `iter_lines`): they are escaped. NaN and infinities become null, because JSON cannot
express them.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from pydantic_core import from_json, to_json  # noqa: TID251 - the place

_CUTS: Final = (
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
    (b"\xc2\x85", b"\\u0085"),
)


def one_line(raw: bytes) -> bytes:
    """The same JSON with the characters escaped at which some readers cut lines.

    The other characters at which `splitlines` cuts are never raw in JSON.
    """
    for cut, escaped in _CUTS:
        if cut in raw:
            raw = raw.replace(cut, escaped)
    return raw


def json_line(value: Any) -> bytes:
    """A value as compact JSON in one line, without a line end."""
    return one_line(to_json(value, inf_nan_mode="null", fallback=_items))


class EncodedList:
    """A list of objects of which only the JSON is kept, a tenth of their size."""

    def __init__(self) -> None:
        """An empty list."""
        self._runs: list[bytes] = []

    def __bool__(self) -> bool:
        """Whether it has an item."""
        return bool(self._runs)

    def extend(self, items: Iterable[Any]) -> None:
        """Add items at the end; their JSON is what `json_line` makes of them."""
        if run := json_line(list(items))[1:-1]:
            self._runs.append(run)

    @property
    def pieces(self) -> Iterator[bytes]:
        """The JSON of the list."""
        mark = b"["
        for run in self._runs:
            yield mark + run
            mark = b","
        yield b"]" if self._runs else b"[]"


def _items(value: Any) -> list[Any]:
    """What the serializer, which takes no JSON as it is, needs of a list."""
    if isinstance(value, EncodedList):
        items: list[Any] = from_json(b"".join(value.pieces))
        return items
    raise TypeError(f"no JSON of {type(value).__name__}")
