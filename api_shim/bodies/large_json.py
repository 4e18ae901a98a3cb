"""Parses large JSON texts whose strings take several times their bytes while they are parsed.

For a string with an escape the parser makes a copy first, and for one with a character beyond
U+00FF or U+FFFF a narrow string before the wide one: with the text, five to seven times its bytes.
Here a large string is parsed a slice at a time; then the text is dropped, and the slices, each as
narrow as it can be, are joined.
"""

import re
from collections.abc import Iterator
from typing import Any, Final
from uuid import uuid4

from pydantic_core import from_json

from api_shim.bodies.joined_texts import joined_texts
from contract.json_texts.json_scan import BACKSLASH, CONTINUATION, QUOTE, NameTooLong, end_of_string

_LARGE_BYTES: Final = 2**18
"""Shorter strings are left to the parser."""
_LARGE_ASCII_BYTES: Final = 4 * 2**20
"""Shorter texts are, if all their strings are narrow."""
_LONGEST_NAME_BYTES: Final = 2**18
"""Names are not cut, and errors repeat them."""
_LONG_NAME: Final = re.compile(rb'"[^"]{%d,}+(?="\s*:)' % (_LONGEST_NAME_BYTES - 1))
"""In a text without escapes, or what looks like one: the text between two strings."""
_NAMED_BYTES: Final = 40
"""Of a name that is too long, in the error."""
_SLICE_BYTES: Final = 2**21
_MOST_CONTINUATIONS: Final = 3
"""Of one character."""
_AFTER_STRING: Final = re.compile(rb"\s*(:?)")
_ESCAPE_BEGUN: Final = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_PAIR_BEGUN: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")


def parse_large(held: list[bytes]) -> Any:
    """The value of the JSON text in `held`, which is emptied as soon as the text is read.

    Raises ValueError: without a position, if a large string is in the text; NameTooLong for a name
    of a field that is one.
    """
    if not _is_wider_parsed(held[0]):
        _demand_short_names(held[0])
        return from_json(held.pop(), allow_inf_nan=False)
    mark = uuid4().hex
    rest, texts = _apart(held.pop(), mark)
    try:
        value = from_json(rest, allow_inf_nan=False)
    except ValueError as error:
        raise (_without_position(error) if texts else error) from None
    if texts:
        _fill(value, mark, texts)
    return value


def _is_wider_parsed(data: bytes) -> bool:
    if not _LARGE_BYTES < len(data) <= _LARGE_ASCII_BYTES:
        return len(data) > _LARGE_BYTES
    return not data.isascii() or (BACKSLASH in data and b"\\u" in data)


def _demand_short_names(data: bytes) -> None:
    """Raise NameTooLong for a name of a field that is; takes four passes of memory's speed."""
    if len(data) <= _LONGEST_NAME_BYTES:
        return
    plain = data.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    for match in _LONG_NAME.finditer(plain):
        if plain.count(QUOTE, 0, match.start()) % 2 == 0:
            raise _too_long(data, match.start())


def _too_long(data: bytes, begin: int) -> NameTooLong:
    start = data[begin + 1 : begin + 1 + _NAMED_BYTES].decode(errors="replace")
    return NameTooLong(
        f"the name of the field {start!a}... has more than {_LONGEST_NAME_BYTES} bytes"
    )


def _without_position(error: ValueError) -> ValueError:
    return ValueError(str(error).partition(" at line")[0])


def _apart(data: bytes, mark: str) -> tuple[bytes, list[list[str]]]:
    """The text with `<mark><number>` for each large string, and these strings in slices."""
    rest: list[bytes] = []
    texts: list[list[str]] = []
    copied = here = 0
    while (begin := data.find(QUOTE, here)) >= 0:
        here = end_of_string(data, begin + 1)
        if here - begin < _LARGE_BYTES:
            continue
        if here >= len(data):  # it is all that there is, or has no end
            break
        if _is_name(data, here):
            if here - begin > _LONGEST_NAME_BYTES:
                raise _too_long(data, begin)
            continue
        rest.append(data[copied:begin] + f'"{mark}{len(texts)}"'.encode())
        texts.append([_parsed(part) for part in _slices(data, begin + 1, here - 1)])
        copied = here
    return b"".join([*rest, data[copied:]]), texts


def _is_name(data: bytes, after: int) -> bool:
    """Whether the string that ends here is a field's name."""
    match = _AFTER_STRING.match(data, after)
    return match is not None and bool(match[1])


def _parsed(part: bytes) -> str:
    try:
        text: str = from_json(b'"' + part + b'"')
    except ValueError as error:
        raise _without_position(error) from None
    return text


def _slices(data: bytes, here: int, end: int) -> Iterator[bytes]:
    """A string's inside in parts, none of which ends in a character or in an escape."""
    while here < end:
        cut = min(here + _SLICE_BYTES, end)
        if cut < end:
            cut = _between(data, here, cut)
        yield data[here:cut]
        here = cut


def _between(data: bytes, here: int, cut: int) -> int:
    """The last place before `cut` that is between two characters."""
    for _ in range(_MOST_CONTINUATIONS):
        cut -= data[cut] in CONTINUATION
    for begun in (_ESCAPE_BEGUN, _PAIR_BEGUN):
        match = begun.search(data, max(here, cut - 6), cut)
        if match is not None and _backslashes(data, here, match.start() + 1) % 2 == 1:
            cut = match.start()
    return cut


def _backslashes(data: bytes, here: int, end: int) -> int:
    """How many there are in a row before `end`."""
    return end - here - len(data[here:end].rstrip(b"\\"))


def _fill(value: dict[str, Any] | list[Any], mark: str, texts: list[list[str]]) -> None:
    """Put the large strings where their marks are."""
    for at, each in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(each, str):
            if each.startswith(mark):
                slices, texts[int(each[len(mark) :])] = texts[int(each[len(mark) :])], []
                value[at] = joined_texts(slices)  # type: ignore[index]
        elif isinstance(each, dict | list):
            _fill(each, mark, texts)
