"""What a JSON text holds, counted before it is parsed: a parsed one is up to fifty times as large.

The counts are upper bounds made of passes over the bytes, each at the speed of memory. Text inside
of strings may look like structure; only where a bound is passed for that reason the strings are
skipped one by one. Each pass is over a slice at a time, so that other threads run in between.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

LARGE_BYTES: Final = 128 * 1024
"""Shorter texts are not scanned: nothing that they can hold is much."""
_SLICE_BYTES: Final = 2**18
_MATCH_BYTES: Final = 2**16
QUOTE: Final = b'"'
BACKSLASH: Final = b"\\"
_INSIDE: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_WIDE: Final = re.compile(rb"[\xf0-\xf4]|\\u[dD][89abAB]")
_ESCAPE_BYTES: Final = 3
"""Of an escape, before the digit that shows a surrogate."""
CONTINUATION: Final = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 that begin no character."""

MOST_WIDE: Final = 8 * 2**20
"""Two million tokens and more, and emoji among them: 32 MiB once it is parsed."""


class JsonBounds(NamedTuple):
    """What a text may hold at most."""

    strings: int
    """Texts, names of fields among them."""
    containers: int
    """Objects and arrays."""
    values: int
    """Members of objects and items of arrays."""
    wide: int = MOST_WIDE
    """Characters of the texts that Python keeps in four bytes a character, together."""


ONE_REQUEST: Final = JsonBounds(strings=250_000, containers=100_000, values=1_000_000)
"""An agent's conversation of a million tokens has a fifth of it."""


class TooMuch(ValueError):
    """A text holds more than its bounds allow; the message says of what."""

    remedy = "send fewer messages, parts, tools or inputs"


class NameTooLong(TooMuch):
    """The name of a field is so long that no error could repeat it."""

    remedy = "shorten the name"


def demand_bounds(data: bytes, bounds: JsonBounds = ONE_REQUEST) -> None:
    """Raise TooMuch if a text holds more than `bounds`; a text that is no JSON passes or not."""
    if len(data) <= LARGE_BYTES:
        return
    # The quote that begins a string never follows a backslash, so there are at most so many
    # strings, and half as many in a usual text.
    quotes = sum(part.count(QUOTE) for part in _slices(data))
    quotes -= sum(map(_escaped_quotes, _slices(data, overlap=1)))
    _demand(quotes // 2, bounds.strings, "texts and names of fields")
    containers = sum(part.count(b"{") + part.count(b"[") for part in _slices(data))
    values = containers + sum(part.count(b",") for part in _slices(data))
    if containers > bounds.containers or values > bounds.values:
        containers, values = _exactly(data, bounds)
        _demand(containers, bounds.containers, "objects and arrays")
        _demand(values, bounds.values, "values")
    if len(data) > bounds.wide and any(map(_may_be_wide, _slices(data, overlap=_ESCAPE_BYTES))):
        what = "characters in texts that have some beyond U+FFFF (emoji are)"
        _demand(_in_wide_strings(data, bounds.wide), bounds.wide, what)


def demand_bounds_together(texts: Sequence[str], bounds: JsonBounds = ONE_REQUEST) -> None:
    """Raise TooMuch if JSON texts hold more than `bounds` together; many small ones do as one.

    Each is counted apart, so that none that is no JSON hides what another one holds.
    """
    strings = containers = values = 0
    for text in texts:
        for data in _encoded(text):
            strings += data.count(QUOTE)
            opened = data.count(b"{") + data.count(b"[")
            containers += opened
            values += opened + data.count(b",")
        strings -= sum(map(_escaped_quotes, _encoded(text, overlap=1)))
    _demand(strings // 2, bounds.strings, "texts and names of fields")
    if containers <= bounds.containers and values <= bounds.values:
        return
    containers = values = 0
    for text in texts:
        more = _exactly(text.encode(errors="replace"), bounds)
        containers, values = containers + more[0], values + more[1]
        _demand(containers, bounds.containers, "objects and arrays")
        _demand(values, bounds.values, "values")


def _encoded(text: str, overlap: int = 0) -> Iterator[bytes]:
    for start in range(0, len(text), _SLICE_BYTES):
        yield text[max(0, start - overlap) : start + _SLICE_BYTES].encode(errors="replace")


def _in_wide_strings(data: bytes, most: int) -> int:
    """Characters of all strings with one beyond U+FFFF, counted up to a bound."""
    count = here = 0
    while count <= most and (begin := data.find(QUOTE, here)) >= 0:
        here = end_of_string(data, begin + 1)
        text = data[begin + 1 : here - 1]
        if any(map(_may_be_wide, _slices(text, overlap=_ESCAPE_BYTES))):
            count += sum(map(_characters, _slices(text)))
    return count


def _escaped_quotes(part: bytes) -> int:
    # One byte is found ten times as fast as two, and most texts have few backslashes.
    return part.count(b'\\"') if BACKSLASH in part else 0


def _may_be_wide(part: bytes) -> bool:
    """Whether a character beyond U+FFFF is there, or what looks like the escape of a surrogate."""
    if part.isascii() and (BACKSLASH not in part or (b"\\ud" not in part and b"\\uD" not in part)):
        return False
    return _WIDE.search(part) is not None


def _characters(part: bytes) -> int:
    """Of a part of a string; a pair of escaped surrogates is two."""
    part = part.replace(b"\\\\", b"_")
    escapes = part.count(b"\\") + 4 * part.count(b"\\u")
    return len(part.translate(None, CONTINUATION)) - escapes


def _slices(data: bytes, overlap: int = 0) -> Iterator[bytes]:
    for start in range(0, len(data), _SLICE_BYTES):
        yield data[max(0, start - overlap) : start + _SLICE_BYTES]


def _exactly(data: bytes, bounds: JsonBounds) -> tuple[int, int]:
    """Containers and values outside of strings, counted up to the bounds."""
    containers = values = here = 0
    while here < len(data):
        begin = data.find(QUOTE, here)
        begin = len(data) if begin < 0 else begin
        opened = data.count(b"{", here, begin) + data.count(b"[", here, begin)
        containers += opened
        values += opened + data.count(b",", here, begin)
        if containers > bounds.containers or values > bounds.values:
            break
        here = end_of_string(data, begin + 1)
    return containers, values


def end_of_string(data: bytes, here: int) -> int:
    """The index after the quote that ends the string which `here` is inside of."""
    while here < len(data):
        # A slice at a time: a match holds the interpreter, and takes ten times as long as a look.
        quote = data.find(QUOTE, here, here + _MATCH_BYTES)
        stop = here + _MATCH_BYTES if quote < 0 else quote
        if data.find(BACKSLASH, here, stop) < 0:
            if quote >= 0:
                return quote + 1
            here = stop
            continue
        match = _INSIDE.match(data, here, here + _MATCH_BYTES)
        end = here if match is None else match.end()
        if data[end : end + 1] == QUOTE:
            return end + 1
        here = max(end, here + 1)
    return len(data)


def _demand(count: int, most: int, what: str) -> None:
    if count > most:
        raise TooMuch(f"it holds more than {most} {what}")
