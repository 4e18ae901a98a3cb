"""Arguments of tool calls: JSON texts that clients and models have written, as values.

What JSON cannot say (NaN, a number that only infinity is as large as) is no value: encoded again,
it would be `NaN` or `null`, which nobody has sent. What models send is bounded here; what clients
send is where a job gets its place in a queue (`relay/admission/call_bounds.py`).

Where an object ends that comes in fragments is known without parsing: to parse all that has come
for each fragment that may be the last one took hours for fragments that are `}`.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import from_json

from contract.json_texts.json_scan import JsonBounds, TooMuch, demand_bounds_together
from contract.wire import is_finite

ONE_ANSWER: Final = JsonBounds(strings=100_000, containers=50_000, values=250_000)
"""What the JSON of a model may hold: ten times the arguments of a large call."""
MOST_CHARS: Final = 8 * 2**20
"""Of the arguments of all calls of an answer, where they are parsed: two million tokens."""
MOST_MARKS: Final = 500_000
"""Quotes, brackets and braces of all texts of one answer: a tenth of a second. Objects with more
have no end that is known while they come."""
_MARK: Final = re.compile(r'["{}\[\]]')
_INSIDE: Final = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


def parsed(text: str) -> Any:
    """The value of arguments; raises ValueError if they are no JSON, or a number out of range."""
    return _finite(from_json(text or "{}", allow_inf_nan=False))


def parsed_as_far(text: str) -> Any:
    """The value of arguments that may have been cut off, as far as it goes; raises ValueError."""
    return _finite(from_json(text or "{}", allow_inf_nan=False, allow_partial=True))


def demand_small(texts: Sequence[str]) -> None:
    """Raise TooMuch if the arguments of an answer's calls hold too much to be parsed."""
    if sum(map(len, texts)) > MOST_CHARS:
        raise TooMuch(f"it holds more than {MOST_CHARS} characters")
    demand_bounds_together(texts, ONE_ANSWER)


def _finite(value: Any) -> Any:
    if not is_finite(value):
        raise ValueError("a number is out of range")
    return value


class ScanRoom:
    """How many marks may still be looked at; the texts of one answer share it."""

    __slots__ = ("marks",)

    def __init__(self, marks: int = MOST_MARKS) -> None:
        """Begin with so many."""
        self.marks = marks


class ObjectScan:
    """One text; whether what it holds is valid JSON is not looked at."""

    __slots__ = ("_depth", "_has_ended", "_is_escaped", "_is_inside", "_is_no_object", "_room")

    def __init__(self, room: ScanRoom) -> None:
        """Begin before the first fragment."""
        self._room = room
        self._depth = 0
        self._is_inside = self._is_escaped = False
        self._has_ended = self._is_no_object = False

    @property
    def is_closed(self) -> bool:
        """Whether the object that the text begins with has ended, and nothing has followed it."""
        return self._has_ended and not self._is_no_object

    def add(self, text: str) -> None:
        """Look at the next fragment."""
        here = 0
        while here < len(text) and not self._is_no_object:
            if self._has_ended:
                self._is_no_object = not text[here:].isspace()
                return
            here = self._after_string(text, here) if self._is_inside else self._next(text, here)

    def _next(self, text: str, here: int) -> int:
        """The index behind the next mark, outside of strings."""
        mark = _MARK.search(text, here)
        if mark is None:
            self._is_no_object = not (self._depth or text[here:].isspace())
            return len(text)
        self._room.marks -= 1
        kind = mark[0]
        if self._room.marks < 0 or not (self._depth or kind == "{"):
            self._is_no_object = True
        elif kind == '"':
            self._is_inside = True
        elif kind in "{[":
            self._depth += 1
        else:
            self._depth -= 1
            self._has_ended = self._depth == 0
        return mark.end()

    def _after_string(self, text: str, here: int) -> int:
        """The index behind the quote that ends the string, or behind the text."""
        here += self._is_escaped
        match = _INSIDE.match(text, here)
        end = here if match is None else match.end()
        self._is_escaped = text[end : end + 1] == "\\"
        self._is_inside = text[end : end + 1] != '"'
        return end + 1
