"""The text of chunks that differ from the one before in their text alone, as most chunks do.

A server writes the same bytes around each fragment of an answer: an id, a model, a role. Parsing
them again was a fifth of what a token costs a worker.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from pydantic_core import from_json

_NEEDS_PARSER: Final = re.compile(rb'["\\\x00-\x1f]')
"""What does not stand for itself in a JSON string (RFC 8259, section 7)."""
_FIELD: Final = re.compile(rb'"content": ?"')
_PROBE: Final = "\N{SNOWMAN} is it here?"
_TRIES: Final = 4
"""So often in a row what was learned may be of no use: a server that counts in each chunk."""
_AGAIN: Final = 64
"""Then it is learned anew only after so many chunks."""


class RepeatedChunks:
    """The bytes around the text of a stream's last plain chunk."""

    __slots__ = ("_after", "_before", "_text_of", "_unused")

    def __init__(self, text_of: Callable[[Any], str | None]) -> None:
        """`text_of` is the text of a parsed chunk that has a text and nothing else that counts."""
        self._text_of = text_of
        self._before = self._after = b""
        self._unused = 0

    def text(self, chunk: bytes) -> str | None:
        """The text of a chunk with the same bytes around it; None for another, or no text."""
        before, after = self._before, self._after
        if not (before and chunk.startswith(before) and chunk.endswith(after)):
            return None
        inner = chunk[len(before) : len(chunk) - len(after)]
        if len(chunk) <= len(before) + len(after) or _NEEDS_PARSER.search(inner):
            return None
        try:
            text = inner.decode()
        except UnicodeDecodeError:
            return None
        self._unused = 0
        return text

    def learn(self, chunk: bytes, parsed: Any) -> None:
        """Take the bytes around the text of a chunk, if it has one and nothing else that counts."""
        self._unused += 1
        if self._unused > _TRIES and self._unused % _AGAIN:
            return
        text = self._text_of(parsed)
        found = _FIELD.search(chunk) if text else None
        if text is None or found is None:
            return
        begin, inner = found.end(), text.encode("utf-8", "replace")
        before, after = chunk[:begin], chunk[begin + len(inner) :]
        # The first `content` may be another field: ask the parser what a text there would be.
        if chunk[begin : begin + len(inner)] == inner and after.startswith(b'"'):
            probe = self._text_of(from_json(before + _PROBE.encode() + after))
            if probe == _PROBE:
                self._before, self._after = before, after
