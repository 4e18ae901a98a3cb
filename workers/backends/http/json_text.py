r"""JSON of backends, which may hold lone surrogate escapes: halves of characters. Does no I/O.

What it holds is counted before it is parsed: 32 MB of `[]` would become a gigabyte, which all jobs
of the worker pay for.

Servers that stream tokens may cut a character outside the BMP in two: one string ends with
`\ud83d`, the next begins with `\ude00`. Such an escape is valid JSON (RFC 8259, 8.2), but strict
parsers refuse it. Halves that follow each other become one character, a lone half U+FFFD.
"""

import json
from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from contract.json_texts.arguments import ONE_ANSWER
from contract.json_texts.json_scan import ONE_REQUEST, JsonBounds, demand_bounds

_ESCAPE: Final = "hex escape"
"""In the parser's messages for a lone half."""
_LOST: Final = "\N{REPLACEMENT CHARACTER}"
_ENDS: Final = ("finish_reason", "finishReason", "done")
"""Fields that are set in the last chunk with text, at any level."""
_TEXTS: Final = frozenset({
    "content", "text", "response", "reasoning_content", "reasoning", "thinking", "refusal",
    "arguments",
})  # fmt: skip
"""Fields whose text a stream continues in its next chunk."""
_WHOLE: Final = frozenset({"logprobs", "arguments", "args", "thinking"})
"""Values inside these are whole in each chunk."""
_Path = tuple[Hashable, ...]
_DEEPEST: Final = 200
"""Levels of objects and lists, as the parser has it that knows no halves."""
_MOST_NUMBERS: Final = 2**24
"""Of the vectors of one answer: 2,048 texts of 8,192 numbers, half a gigabyte once parsed."""
_MOST_DIMENSIONS: Final = 16_384
_NUMBER_BYTES: Final = 32


class AnswerSize(NamedTuple):
    """How large a whole answer may be."""

    size_bytes: int
    bounds: JsonBounds = ONE_REQUEST


LISTING: Final = AnswerSize(32 * 2**20)
"""Of what a server tells about itself, as a list of its models."""
WHOLE: Final = AnswerSize(64 * 2**20)
"""Of an answer that may have images: no log takes more (FLEET_LOG_CAP_BYTES)."""


def size_of_vectors(texts: int) -> AnswerSize:
    """How large the answer to an embedding of so many texts may be."""
    numbers = min(texts * _MOST_DIMENSIONS, _MOST_NUMBERS)
    few = 10_000 + 16 * texts
    bounds = JsonBounds(strings=few, containers=few, values=few + numbers)
    return AnswerSize(2**20 + _NUMBER_BYTES * numbers, bounds)


def parse_json(data: bytes, bounds: JsonBounds = ONE_REQUEST) -> Any:
    """The value of a JSON text, with U+FFFD for lone halves.

    Raises ValueError; TooMuch, which is one, for a text that holds more than `bounds`.
    """
    value, has_halves = _parsed(data, bounds)
    return _Chunk({}, is_last=True).joined(value) if has_halves else value


class StreamJson:
    """Parses the JSON texts of one stream, and joins the halves of a character in two of them."""

    def __init__(self) -> None:
        """Before the first text."""
        self._halves: dict[_Path, str] = {}

    def read(self, data: bytes) -> Sequence[Any]:
        """The value of the next text, perhaps after one with U+FFFD for a half without its other.

        Raises ValueError.
        """
        value, has_halves = _parsed(data, ONE_ANSWER)
        if not (has_halves or self._halves):
            return (value,)
        is_last = _is_last(value)
        lone = [path for path in self._halves if is_last or _ends_text(value, path)]
        before = [self._lost(path) for path in lone if not isinstance(_at(value, path), str)]
        return (*before, _Chunk(self._halves, is_last=is_last).joined(value))

    @property
    def has_half(self) -> bool:
        """Whether a text has ended with half of a character."""
        return bool(self._halves)

    def rest(self) -> Sequence[Any]:
        """At the end of the stream: values with U+FFFD for the halves that are left."""
        return [self._lost(path) for path in list(self._halves)]

    def _lost(self, path: _Path) -> Any:
        """A value that has U+FFFD at this path and nothing else."""
        del self._halves[path]
        value: Any = _LOST
        for step in reversed(path):
            value = [{"index": step, **value}] if isinstance(step, int) else {step: value}
        return value


class _Chunk:
    """One value of a stream: joins its strings with `halves`, and adds those it ends with."""

    def __init__(self, halves: dict[_Path, str], *, is_last: bool) -> None:
        self._halves = halves
        self._is_last = is_last

    def joined(self, value: Any, path: _Path = ()) -> Any:
        """The value with valid text."""
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, list):
            return [self.joined(item, (*path, _step(at, item))) for at, item in enumerate(value)]
        if isinstance(value, dict):
            return {_valid(name): self.joined(item, (*path, name)) for name, item in value.items()}
        return value

    def _text(self, text: str, path: _Path) -> str:
        text = self._halves.pop(path, "") + text
        if "\ud800" <= text[-1:] <= "\udbff" and not self._is_last and _is_continued(path):
            self._halves[path] = text[-1]
            text = text[:-1]
        return _valid(text)


def _parsed(data: bytes, bounds: JsonBounds) -> tuple[Any, bool]:
    """The value, and whether it may hold lone halves."""
    demand_bounds(data, bounds)
    try:
        return from_json(data), False
    except ValueError as error:
        if _ESCAPE not in str(error):
            raise
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise error from None
        _demand_flat(value)
        return value, True


def _demand_flat(value: Any) -> None:
    """Raise ValueError for a value of more levels than the functions here may call themselves."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise ValueError("recursion limit exceeded")


def _valid(text: str) -> str:
    """The text with pairs of halves joined, and U+FFFD for each lone one."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _is_continued(path: _Path) -> bool:
    *outer, name = path or ("",)
    if "content" in outer and name != "text":
        return False  # of a part that is no text
    return name in _TEXTS and _WHOLE.isdisjoint(outer)


def _step(at: int, item: Any) -> int:
    """The index of an item: its own (choices, tool calls), else its place in the list."""
    index = item.get("index") if isinstance(item, dict) else None
    return index if isinstance(index, int) else at


def _at(value: Any, path: _Path) -> Any:
    """The value at a path; None without one."""
    for step in path:
        if isinstance(value, list):
            value = next((each for at, each in enumerate(value) if _step(at, each) == step), None)
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _ends_text(value: Any, path: _Path) -> bool:
    """Whether the object at the path's parent continues without that text."""
    return isinstance(_at(value, path[:-1]), dict) and not isinstance(_at(value, path), str)


def _is_last(value: Any) -> bool:
    if isinstance(value, list):
        return any(_is_last(item) for item in value)
    if not isinstance(value, dict):
        return False
    return any(value.get(name) for name in _ENDS) or any(map(_is_last, value.values()))
