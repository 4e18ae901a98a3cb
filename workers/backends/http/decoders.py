"""Turns the bytes of a stream into its items, however they were cut into packets; does no I/O.

`Sse` yields `(name, data)`: the event's name and its data as one piece of bytes. `Ndjson` yields
lines. Both are fed as bytes arrive and flushed at the end, and give the same items wherever the
packets were split. What SSE is stands in contract/sse.py, what servers write instead stands here.
"""

from typing import Final

from typing_extensions import override

from contract.sse import MESSAGE, EventStream, Lines, Start

__all__ = ["BARE", "ERROR", "MESSAGE", "Ndjson", "Sse"]

ERROR: Final = "error"
"""Name of an event that is an error: `event: error`, or a line `error: ...`."""
BARE: Final = "bare"
"""Name under which a line comes that is no SSE at all, such as an error a proxy appended."""


class Sse(EventStream[tuple[str, bytes]]):
    """Server-sent events, as strict as the clause and as lenient as the servers need.

    A line that is no field of SSE comes at once, under the name `BARE`; a line whose field is
    `error` (llama-server before October 2025) comes under the name `ERROR`.
    """

    __slots__ = ()

    @override
    def _made(self, name: str, id: bytes, data: bytes) -> tuple[str, bytes]:
        return name, data

    @override
    def _odd(self, field: bytes, value: bytes, line: bytes) -> tuple[str, bytes]:
        if field == b"error" and field != line:
            return ERROR, value
        return BARE, line


class Ndjson:
    """One JSON text a line; blank lines are skipped."""

    __slots__ = ("_lines", "_start")

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._start = Start()
        self._lines = Lines()

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the lines that they complete."""
        data = self._start.without_mark(data)
        return [line for line in self._lines.cut(data) if line and not line.isspace()]

    def flush(self) -> list[bytes]:
        """Return the line that never got its end, if any."""
        rest = self._start.rest() + self._lines.rest()
        return [rest] if rest and not rest.isspace() else []
