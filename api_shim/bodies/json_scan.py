"""What a JSON text holds, counted before it is parsed: a parsed one is up to fifty times as large.

The counts are upper bounds made of passes over the bytes, each at the speed of memory. Text inside
of strings may look like structure; only where a bound is passed for that reason the strings are
skipped one by one. Each pass is over a slice at a time, so that other threads run in between.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

LARGE_BYTES: Final = 128 * 1024
"""Shorter texts are not scanned: nothing that they can hold is much."""
_SLICE_BYTES: Final = 2**20
_QUOTE: Final = b'"'


class JsonBounds(NamedTuple):
    """What a text may hold at most."""

    strings: int
    """Texts, names of fields among them."""
    containers: int
    """Objects and arrays."""
    values: int
    """Members of objects and items of arrays."""


ONE_REQUEST: Final = JsonBounds(strings=250_000, containers=100_000, values=1_000_000)
"""An agent's conversation of a million tokens has a fifth of it."""


class TooMuch(ValueError):
    """A text holds more than its bounds allow; the message says of what."""


def demand_bounds(data: bytes, bounds: JsonBounds = ONE_REQUEST) -> None:
    """Raise TooMuch if a text holds more than `bounds`; a text that is no JSON passes or not."""
    if len(data) <= LARGE_BYTES:
        return
    # The quote that begins a string never follows a backslash, so there are at most so many
    # strings, and half as many in a usual text.
    quotes = sum(part.count(_QUOTE) for part in _slices(data))
    quotes -= sum(part.count(b'\\"') for part in _slices(data, overlap=1))
    _demand(quotes // 2, bounds.strings, "texts and names of fields")
    containers = sum(part.count(b"{") + part.count(b"[") for part in _slices(data))
    values = containers + sum(part.count(b",") for part in _slices(data))
    if containers > bounds.containers or values > bounds.values:
        containers, values = _exactly(data, bounds)
        _demand(containers, bounds.containers, "objects and arrays")
        _demand(values, bounds.values, "values")


def _slices(data: bytes, overlap: int = 0) -> Iterator[bytes]:
    for start in range(0, len(data), _SLICE_BYTES):
        yield data[max(0, start - overlap) : start + _SLICE_BYTES]


def _exactly(data: bytes, bounds: JsonBounds) -> tuple[int, int]:
    """Containers and values outside of strings, counted up to the bounds."""
    containers = values = here = 0
    while here < len(data):
        begin = data.find(_QUOTE, here)
        begin = len(data) if begin < 0 else begin
        opened = data.count(b"{", here, begin) + data.count(b"[", here, begin)
        containers += opened
        values += opened + data.count(b",", here, begin)
        if containers > bounds.containers or values > bounds.values:
            break
        here = _end_of_string(data, begin + 1)
    return containers, values


def _end_of_string(data: bytes, here: int) -> int:
    """The index after the quote that ends the string which `here` is inside of."""
    while (end := data.find(_QUOTE, here)) >= 0:
        text = data[here:end]
        if (len(text) - len(text.rstrip(b"\\"))) % 2 == 0:
            return end + 1
        here = end + 1
    return len(data)


def _demand(count: int, most: int, what: str) -> None:
    if count > most:
        raise TooMuch(f"it holds more than {most} {what}")
