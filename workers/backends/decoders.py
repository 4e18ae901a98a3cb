"""Turns the bytes of a stream into its items, however they were cut into packets; does no I/O.

`Sse` yields `(name, data)`: the event's name and its data as one piece of bytes. `Ndjson` yields
lines. Both are fed as bytes arrive and flushed at the end, and give the same items wherever the
packets were split. Each byte is looked at once, so that a line of 10 MB costs what it weighs.
"""

from typing import Final

from contract.backend_errors import (
    BadEndpoint,
)

MESSAGE: Final = ""
"""Name of an event that the server gave no name."""
ERROR: Final = "error"
"""Name of an event that is an error: `event: error`, or a line `error: ...`."""
BARE: Final = "bare"
"""Name under which a line comes that is no SSE at all, such as an error a proxy appended."""

LINE_LIMIT_BYTES: Final = 512 * 2**20
"""No backend says so much in one line; one that does is not allowed to fill the memory."""


class _Lines:
    """Cuts bytes at line feeds and keeps what has no end yet."""

    __slots__ = ("_pieces", "_size_bytes")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def cut(self, data: bytes) -> list[bytes]:
        """Whole lines, without their line feeds."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._pieces:
            self._pieces.append(lines[0])
            lines[0] = b"".join(self._pieces)
            self._pieces, self._size_bytes = [], 0
        if rest:
            self._keep(rest)
        return lines

    @property
    def has_rest(self) -> bool:
        """Whether a line has begun."""
        return bool(self._pieces)

    def rest(self) -> bytes:
        """What never got its line feed."""
        rest = b"".join(self._pieces)
        self._pieces, self._size_bytes = [], 0
        return rest

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size_bytes += len(piece)
        if self._size_bytes > LINE_LIMIT_BYTES:
            raise BadEndpoint(f"the backend sent a line of more than {LINE_LIMIT_BYTES} bytes")


class Sse:
    """Server-sent events, as strict as the clause and as lenient as the servers need.

    A line that is no field of SSE comes at once, under the name `BARE`; a line whose field is
    `error` (llama-server before October 2025) comes under the name `ERROR`.
    """

    __slots__ = ("_after_return", "_data", "_lines", "_name")

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._lines = _Lines()
        self._data: list[bytes] = []
        self._name = MESSAGE
        self._after_return = False

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """Take the next bytes; return the events that they complete.

        Most packets are one event and nothing else; those skip the lines.
        """
        if (
            data[:6] == b"data: "
            and data.find(b"\n") == len(data) - 2
            and data[-1:] == b"\n"
            and self._is_between_events
            and b"\r" not in data
        ):
            return [(MESSAGE, data[6:-2])]
        if self._after_return or b"\r" in data:
            data = self._with_line_feeds(data)
        events: list[tuple[str, bytes]] = []
        for line in self._lines.cut(data):
            if line[:5] == b"data:":
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                if self._data:
                    events.append(self._event())
                self._name = MESSAGE
            else:
                self._add_other(line, events)
        return events

    def flush(self) -> list[tuple[str, bytes]]:
        """Return the event that the end of the stream cut short, if any.

        The clause says to drop it; servers that forget the last blank line are why we do not.
        """
        self._after_return = False
        rest = self._lines.rest()
        return self.feed(rest + b"\n\n" if rest else b"\n")

    @property
    def _is_between_events(self) -> bool:
        return not (self._data or self._name or self._after_return or self._lines.has_rest)

    def _event(self) -> tuple[str, bytes]:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data = []
        return self._name, data

    def _with_line_feeds(self, data: bytes) -> bytes:
        if self._after_return and data:
            if data[:1] == b"\n":
                data = data[1:]
            self._after_return = False
        if data[-1:] == b"\r":
            self._after_return = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _add_other(self, line: bytes, events: list[tuple[str, bytes]]) -> None:
        field, colon, value = line.partition(b":")
        if field == b"":
            return  # a comment: llama-server and proxies send them to keep the connection
        value = value.removeprefix(b" ")
        match field:
            case b"data":
                self._data.append(value)
            case b"event":
                self._name = value.decode("utf-8", "replace")
            case b"error" if colon:
                events.append((ERROR, value))
            case b"id" | b"retry":
                pass
            case _:
                events.append((BARE, line))


class Ndjson:
    """One JSON text a line; blank lines are skipped."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._lines = _Lines()

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the lines that they complete."""
        return [line for line in self._lines.cut(data) if line and not line.isspace()]

    def flush(self) -> list[bytes]:
        """Return the line that never got its end, if any."""
        rest = self._lines.rest()
        return [rest] if rest and not rest.isspace() else []
