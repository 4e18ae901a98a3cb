"""Incremental decoders of response bodies, SSE and NDJSON; they do no I/O.

`Sse` yields `(event name, data bytes)`, `Ndjson` yields lines. Both are fed bytes as they arrive
and flushed at the end; the items do not depend on where the packets were split. contract/sse.py
implements the standard, this module the deviations of servers.
"""

from typing import Final

from typing_extensions import override

from contract.sse import MESSAGE, EventStream, Lines, Start

__all__ = ["BARE", "ERROR", "MESSAGE", "Ndjson", "Sse"]

ERROR: Final = "error"
"""Event name of an error: `event: error`, or a line `error: ...`."""
BARE: Final = "bare"
"""Event name for a line that is not SSE, such as an error appended by a proxy."""


MOST_TEXT_BYTES: Final = 16 * 2**20
"""Of a line or event of a backend: four million tokens at once. What has no end must not take all
memory, and what is parsed keeps all other jobs of the worker waiting."""
MOST_IMAGE_BYTES: Final = 64 * 2**20
"""Of an event that may have an image."""


class Sse(EventStream[tuple[str, bytes]]):
    """Server-sent events (WHATWG HTML, 9.2), with two extensions.

    A line that is not an SSE field is yielded at once under the name `BARE`; a line with the
    field `error` (llama-server before October 2025) under the name `ERROR`.
    """

    __slots__ = ()
    limit_bytes = MOST_TEXT_BYTES

    @override
    def _made(self, name: str, id: bytes, data: bytes) -> tuple[str, bytes]:
        return name, data

    @override
    def _odd(self, field: bytes, value: bytes, line: bytes) -> tuple[str, bytes]:
        if field == b"error" and field != line:
            return ERROR, value
        return BARE, line


class ImageSse(Sse):
    """The same for events that may have an image."""

    __slots__ = ()
    limit_bytes = MOST_IMAGE_BYTES


class Ndjson:
    """One JSON text per line; blank lines are skipped."""

    __slots__ = ("_lines", "_start")

    def __init__(self) -> None:
        """A decoder at the start of a stream."""
        self._start = Start()
        self._lines = Lines(MOST_TEXT_BYTES)

    def feed(self, data: bytes) -> list[bytes]:
        """Feed bytes; return the lines that they complete."""
        data = self._start.without_mark(data)
        return [line for line in self._lines.cut(data) if line and not line.isspace()]

    def flush(self) -> list[bytes]:
        """Return the last line without a line feed, if any."""
        rest = self._start.rest() + self._lines.rest()
        return [rest] if rest and not rest.isspace() else []
