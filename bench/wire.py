"""The cheapest HTTP client that can still tell when bytes came: the load generator's sockets.

It shares two cores with what it measures, so while a stream runs it only keeps packets and their
times. Everything else (headers, chunks, JSON) is read afterwards, by pure functions.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from time import perf_counter
from typing import Final, cast

from pydantic_core import to_json
from typing_extensions import override

_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
_HEAD_END: Final = b"\r\n\r\n"
_CHUNKED: Final = b"transfer-encoding: chunked"


class BadAnswer(Exception):
    """A server answered something else than was asked for."""


class Line(asyncio.Protocol):
    """One connection, with one exchange after the other."""

    def __init__(self) -> None:
        """Connect it with `connect`."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._packets: list[bytes] = []
        self._times: list[float] = []
        self._is_stream = False
        self._sign = b""
        self.has_word = False
        """Whether the first word of the current stream has come."""
        self._done: asyncio.Future[None] | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._times.append(perf_counter())  # the time of uvloop has no microseconds
        self._packets.append(data)
        if not self.has_word and self._is_stream:
            self.has_word = self._sign in data
        if self._done is not None and not self._done.done() and self._is_over(data):
            self._done.set_result(None)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            said = b"".join(self._packets)[:300].decode(errors="replace")
            self._done.set_exception(BadAnswer(f"the connection was closed after {said!r}"))

    def _is_over(self, data: bytes) -> bool:
        if len(data) < len(_LAST_CHUNK):
            data = b"".join(self._packets[-len(_LAST_CHUNK) :])
        if self._is_stream:
            if data.endswith(_LAST_CHUNK):
                return True
            # An error has a length and no chunks; only the first packet is worth the look.
            return len(self._packets) == 1 and b" 200 " not in data[:16]
        head, separator, body = b"".join(self._packets).partition(_HEAD_END)
        if separator and _CHUNKED in head.lower():
            return data.endswith(_LAST_CHUNK)
        return bool(separator) and len(body) >= _length(head)

    async def ask(self, request: bytes, sign: bytes = b"") -> "Answer":
        """Send a request and keep what comes, until it is over; `sign` is in a stream's words."""
        self._packets, self._times, self._is_stream = [], [], bool(sign)
        self._sign, self.has_word = sign, False
        self._done = self._loop.create_future()
        began = perf_counter()
        self._transport.write(request)
        await self._done
        return Answer(began, self._packets, self._times, sign)

    def close(self) -> None:
        """Close the connection."""
        self._done = None
        self._transport.close()


async def connect(port: int) -> Line:
    """A connection to a server on this machine."""
    loop = asyncio.get_running_loop()
    _, line = await loop.create_connection(Line, "127.0.0.1", port)
    return line


class Answer:
    """What came back, and when; read after the measurement."""

    def __init__(
        self, began: float, packets: Sequence[bytes], times: Sequence[float], sign: bytes
    ) -> None:
        """Keep it; raises BadAnswer unless it is a success."""
        self.began = began
        self.ended = times[-1]
        self._packets = packets
        self._times = times
        self._sign = sign
        raw = b"".join(packets)
        head, _, body = raw.partition(_HEAD_END)
        if int(head.split(b" ", 2)[1]) not in {200, 202}:
            raise BadAnswer(raw[:600].decode(errors="replace"))
        self.body = unchunked(body) if _CHUNKED in head.lower() else body

    @property
    def first_word_at(self) -> float:
        """When the first word came; raises BadAnswer if none did."""
        at = b"".join(self._packets).find(self._sign)
        if at < 0:
            raise BadAnswer("an answer without a word")
        ends = list(accumulate(map(len, self._packets)))
        return self._times[bisect_left(ends, at + len(self._sign))]

    def gaps_between(self, begin: float, end: float) -> list[float]:
        """Seconds between one packet and the next, of all gaps that reach into that time."""
        return [b - a for a, b in pairwise(self._times) if b > begin and a < end]

    def packets_between(self, begin: float, end: float) -> int:
        """How many packets came in that time."""
        return sum(1 for at in self._times if begin < at <= end)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise BadAnswer(f"an answer without a length: {head[:200]!r}")


def unchunked(body: bytes) -> bytes:
    """The payload of a chunked body."""
    parts: list[bytes] = []
    at = 0
    while True:
        line_end = body.index(b"\r\n", at)
        size = int(body[at:line_end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[line_end + 2 : line_end + 2 + size])
        at = line_end + 2 + size + 2


def post(path: str, value: object, headers: Mapping[str, str] | None = None) -> bytes:
    """A POST of JSON."""
    body = to_json(value)
    more = "".join(f"{name}: {text}\r\n" for name, text in (headers or {}).items())
    return (
        b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer bench\r\n%scontent-length: %d\r\n\r\n%s"
        % (path.encode(), more.encode(), len(body), body)
    )


def get(path: str, accept: str) -> bytes:
    """A GET."""
    return b"GET %s HTTP/1.1\r\nhost: localhost\r\naccept: %s\r\n\r\n" % (
        path.encode(),
        accept.encode(),
    )
