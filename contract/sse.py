"""Decoding and encoding of server-sent events (SSE), for backends' streams and for our clients.

The items do not depend on how the bytes were cut into packets. Does no I/O.

A line ends at a line feed, a carriage return, or both; a byte-order mark at the start is not part
of the first line (WHATWG HTML, 9.2.5 and 9.2.6). Each byte is read once, so that the cost of an
event is linear in its size, and an event has a size limit, so that an endless one does not fill the
memory. Subclasses of `EventStream` define what an event is decoded to.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Final, Generic, TypeVar

from contract.errors import BadEndpoint

Item = TypeVar("Item")

MEDIA_TYPE: Final = "text/event-stream"
KEEP_ALIVE: Final = b": keep-alive\n\n"
"""A comment, which readers skip."""
DATA: Final = b"data: "
"""Begins an event that has neither an id nor a name."""
END: Final = b"\n\n"
"""Ends an event."""
LIMIT_BYTES: Final = 512 * 2**20
"""Of one line or one event: the longest string that Redis holds."""
_LINE_BYTES: Final = 64
"""What Python needs for a line beside its text: an event of empty lines takes memory as well."""
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
MESSAGE: Final = ""
"""The name of an event without an `event` field."""


class Start:
    """Removes the byte-order mark from the start of a stream."""

    __slots__ = ("_head",)

    def __init__(self) -> None:
        """Begin before the first byte."""
        self._head: bytes | None = b""

    def without_mark(self, data: bytes) -> bytes:
        """The bytes without the mark; empty while they may be the beginning of one."""
        if self._head is None:
            return data
        self._head += data
        if self._head != BYTE_ORDER_MARK and BYTE_ORDER_MARK.startswith(self._head):
            return b""
        return self.rest().removeprefix(BYTE_ORDER_MARK)

    def rest(self) -> bytes:
        """The bytes that were held back."""
        head, self._head = self._head or b"", None
        return head

    @property
    def is_over(self) -> bool:
        """Whether the start of the stream has been read."""
        return self._head is None


class Lines:
    """Cuts bytes at line feeds and keeps an unfinished line.

    Raises BadEndpoint for a line over `limit_bytes`.
    """

    __slots__ = ("_limit_bytes", "_pieces", "_size_bytes")

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        """Begin at the start of a line."""
        self._limit_bytes = limit_bytes
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def cut(self, data: bytes) -> list[bytes]:
        """The lines that these bytes complete, without their line feeds."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._pieces:
            self._pieces.append(lines[0])
            lines[0] = b"".join(self._pieces)
            self._pieces, self._size_bytes = [], 0
        if rest:
            self._pieces.append(rest)
            self._size_bytes += len(rest)
            _demand_room(self._size_bytes, self._limit_bytes)
        return lines

    @property
    def has_rest(self) -> bool:
        """Whether a line has begun."""
        return bool(self._pieces)

    def rest(self) -> bytes:
        """The unfinished line."""
        rest = b"".join(self._pieces)
        self._pieces, self._size_bytes = [], 0
        return rest


def _demand_room(size_bytes: int, limit_bytes: int) -> None:
    """Raise BadEndpoint for a line or an event that is over the limit."""
    if size_bytes > limit_bytes:
        raise BadEndpoint(f"the server sent a line or event of more than {limit_bytes} bytes")


class EventStream(ABC, Generic[Item]):
    """Decodes bytes as they arrive into the items that they complete."""

    __slots__ = ("_after_return", "_data", "_id", "_lines", "_name", "_size_bytes", "_start")
    limit_bytes: ClassVar[int] = LIMIT_BYTES
    """Of a line, and of an event with 64 bytes for each of its lines."""

    def __init__(self) -> None:
        """Begin at the start of a stream."""
        self._start = Start()
        self._lines = Lines(self.limit_bytes)
        self._data: list[bytes] = []
        self._size_bytes = 0
        self._name = MESSAGE
        self._id = b""
        self._after_return = False

    @abstractmethod
    def _made(self, name: str, id: bytes, data: bytes) -> Item:
        """Make the item of an event."""

    def _odd(self, field: bytes, value: bytes, line: bytes) -> Item | None:  # noqa: ARG002
        """Make an item of a line that is no field of SSE; by the clause it is skipped (None)."""
        return None

    def feed(self, data: bytes) -> list[Item]:
        """Take the next bytes; return the items that they complete.

        Most packets are exactly one event; those skip the cutting of lines. Raises BadEndpoint for
        a line or an event over `limit_bytes`.
        """
        if (
            data[:6] == b"data: "
            and data.find(b"\n") == len(data) - 2
            and data[-1:] == b"\n"
            and self._is_between_events
            and b"\r" not in data
        ):
            return [self._made(MESSAGE, b"", data[6:-2])]
        data = self._start.without_mark(data)
        if self._after_return or b"\r" in data:
            data = self._with_line_feeds(data)
        items: list[Item] = []
        for line in self._lines.cut(data):
            if line[:5] == b"data:":
                self._add(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                self._end(items)
            else:
                self._add_other(line, items)
        return items

    def flush(self) -> list[Item]:
        """Return the event that the end of the stream cut short, if any.

        The standard drops it; it is returned because some servers omit the last blank line.
        """
        self._after_return = False
        rest = self._start.rest() + self._lines.rest()
        return self.feed(rest + b"\n\n" if rest else b"\n")

    @property
    def _is_between_events(self) -> bool:
        is_inside = self._data or self._name or self._id or self._lines.has_rest
        return self._start.is_over and not (is_inside or self._after_return)

    def _add(self, data: bytes) -> None:
        self._data.append(data)
        self._size_bytes += len(data) + _LINE_BYTES
        _demand_room(self._size_bytes, self.limit_bytes)

    def _end(self, items: list[Item]) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            self._data, self._size_bytes = [], 0
            items.append(self._made(self._name, self._id, data))
        self._name, self._id = MESSAGE, b""

    def _with_line_feeds(self, data: bytes) -> bytes:
        if self._after_return and data:
            if data[:1] == b"\n":
                data = data[1:]
            self._after_return = False
        if data[-1:] == b"\r":
            self._after_return = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _add_other(self, line: bytes, items: list[Item]) -> None:
        field, _, value = line.partition(b":")
        if field == b"":
            return  # a comment: llama-server and proxies send them to keep the connection
        value = value.removeprefix(b" ")
        match field:
            case b"data":
                self._add(value)
            case b"event":
                self._name = value.decode("utf-8", "replace")
            case b"id":
                self._id = value
            case b"retry":
                pass
            case _:
                item = self._odd(field, value, line)
                if item is not None:
                    items.append(item)


def encode(data: bytes, name: bytes = b"", id: bytes = b"") -> bytes:
    """One event; `data` is one line, as `contract.json_lines` writes it; an `id` needs a `name`.

    An event without an id leaves the reader's cursor (`Last-Event-ID`) where it is.
    """
    if not name and not id:
        return b"%s%s%s" % (DATA, data, END)
    if not id:
        return b"event: %s\n%s%s%s" % (name, DATA, data, END)
    return b"id: %s\nevent: %s\n%s%s%s" % (id, name, DATA, data, END)
