"""From the bytes of a server-sent event stream to frames. Pure: feed it, take what is complete.

Lines end at a line feed and nowhere else: words may hold U+2028 and other characters that
Python's `splitlines`, and so `httpx.Response.iter_lines`, would cut at.
"""

from contract.events import (
    EventId,
)
from contract.frames import Frame


class Decoder:
    """Puts the events of one connection together from pieces cut anywhere."""

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._rest = b""
        self._forget()

    def _forget(self) -> None:
        self._id: EventId | None = None
        self._type = ""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that this piece completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        frames = (self._line(line.removesuffix(b"\r")) for line in lines)
        return [frame for frame in frames if frame is not None]

    def _line(self, line: bytes) -> Frame | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._type = value.decode()
        elif field == b"id" and value:
            self._id = EventId.parse(value.decode())
        return None

    def _dispatch(self) -> Frame | None:
        frame = Frame(self._id, self._type, b"\n".join(self._data)) if self._data else None
        self._forget()
        return frame
