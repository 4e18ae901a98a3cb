"""One connection to Redis, shared by every caller of a process.

The commands of one tick of the event loop leave in one write, and replies arrive in the order of
the commands (https://redis.io/docs/latest/develop/use/pipelining/), so that a call costs no pool,
no pipeline object and no timer: bench/relay_path.py. A timer of the whole connection notices a
silent server instead. Redis runs one command at a time anyway, so a second connection would only
add to what it has to read.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import hiredis
from redis._parsers.base import BaseParser
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from typing_extensions import override

_LARGE_BYTES: Final = 2**20


class LargeWord:
    """A large word of a command: it is written as it is, where packing would copy it three times.

    hiredis does not know it and raises TypeError, so that no other command is looked at for it.
    """

    __slots__ = ("pieces", "size_bytes")

    def __init__(self, *pieces: bytes) -> None:
        """The word with these bytes, one after the other."""
        self.pieces = pieces
        self.size_bytes = sum(map(len, pieces))


def word(data: bytes | Sequence[bytes]) -> bytes | LargeWord:
    """A word of a command: these bytes, and in a class of their own if they are many."""
    if isinstance(data, bytes):
        return data if len(data) < _LARGE_BYTES else LargeWord(data)
    return LargeWord(*data)


Command = Sequence[str | bytes | int | float | LargeWord]
Reads = Mapping[str, Callable[[Any], Any]]
"""By the name of a command, what makes of its reply what redis-py returns."""

OnRoundTrip = Callable[[float], None]
"""Called with the seconds from a call to its last reply."""

_CALLS: Final = 20_000
"""Calls that may wait for a reply at once."""
_BYTES: Final = 256 * 2**20
"""Bytes of commands that may wait for a reply at once; one call alone may be larger."""
_OVERDUE: Final = 4
"""Timeouts after which a call fails even if Redis still answers others."""
_AT_ONCE: Final = 8
"""Calls in one write. Of a burst, Redis and workers begin with the first calls while this process
still makes the others."""
_SECOND_LOOK_S: Final = 0.05
_AT: Final = "failed_at"


def failed_at(error: BaseException | None) -> int:
    """Which of the commands of a call an error is of, from 0; 0 if it is of none."""
    return int(vars(error).get(_AT, 0)) if error else 0


class NotRedis(RedisConnectionError):
    """What answers at the address does not speak Redis's protocol; a Redis may come back there."""


class _Call:
    """Some commands that one caller sent together, and their replies."""

    __slots__ = ("left", "replies", "reply", "sent_at", "size_bytes")

    def __init__(
        self, count: int, size_bytes: int, sent_at: float, reply: asyncio.Future[list[Any]]
    ) -> None:
        self.left = count
        self.size_bytes = size_bytes
        self.sent_at = sent_at
        self.reply = reply
        self.replies: list[Any] = []


class _Line(asyncio.Protocol):
    """The bytes of one connection: what was written and has no reply yet."""

    def __init__(
        self, connection: AbstractConnection, timeout_s: float, on_round_trip: OnRoundTrip
    ) -> None:
        # redis-py has connected: it knows TLS, users and sockets. From here on its transport is
        # ours; its private parts are watched by tests/relay/test_multiplexer.py.
        writer = connection._writer  # noqa: SLF001
        assert writer is not None  # noqa: S101 - for the type checker: connect() set it
        self._connection = connection
        self._timeout_s = timeout_s
        self._on_round_trip = on_round_trip
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader(
            protocolError=InvalidResponse, replyError=BaseParser.parse_error
        )
        self._transport: asyncio.Transport = writer.transport  # type: ignore[assignment]
        self._transport.set_protocol(self)
        # uvloop would keep what is written until the end of its turn.
        self._transport.set_write_buffer_limits(high=0)
        self._waiting: deque[_Call] = deque()
        self._unsent: list[bytes] = []
        self._has_large = False
        self._will_flush = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_suspect = False
        self.waiting_bytes = 0
        self.received_at = time.monotonic()
        self.failure: RedisError | None = None

    @property
    def is_full(self) -> bool:
        """Whether as much waits for replies as may."""
        return len(self._waiting) >= _CALLS or self.waiting_bytes >= _BYTES

    def send(self, packed: list[bytes], count: int) -> asyncio.Future[list[Any]]:
        """Write `count` commands at the end of this tick; the future holds their replies."""
        reply: asyncio.Future[list[Any]] = self._loop.create_future()
        if self.failure is not None:
            reply.set_exception(_again(self.failure))
            return reply
        size_bytes = sum(map(len, packed))
        self._waiting.append(_Call(count, size_bytes, time.monotonic(), reply))
        self.waiting_bytes += size_bytes
        if not self._unsent and not self._will_flush:
            self._will_flush = True
            self._loop.call_soon(self._flush_last)
        self._unsent += packed
        self._has_large = self._has_large or len(packed) > 1
        if len(self._unsent) >= _AT_ONCE:
            self._flush()
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._check)
        return reply

    def _flush_last(self) -> None:
        self._will_flush = False
        if self._unsent:
            self._flush()

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self.failure is None:
            if self._has_large:
                self._transport.writelines(unsent)
            else:
                self._transport.write(b"".join(unsent))
        self._has_large = False

    @override
    def data_received(self, data: bytes) -> None:
        self.received_at = time.monotonic()
        try:
            self._parser.feed(data)
            while (reply := self._parser.gets()) is not False:
                self._receive(reply)
        except (RedisError, hiredis.HiredisError, IndexError) as error:
            self.fail(RedisConnectionError(f"Redis sent what is no reply: {error!r}"))

    def _receive(self, reply: Any) -> None:
        call = self._waiting[0]
        call.replies.append(reply)
        call.left -= 1
        if call.left == 0:
            self._waiting.popleft()
            self.waiting_bytes -= call.size_bytes
            self._on_round_trip(self.received_at - call.sent_at)
            if not call.reply.done():
                call.reply.set_result(call.replies)
        if isinstance(reply, ReadOnlyError):
            # After a failover the address may belong to another server.
            self.fail(RedisConnectionError("Redis has become a read-only replica"))

    def _check(self) -> None:
        """Fail if Redis is silent although a call waits; else look again when it could be."""
        self._timer = None
        if not self._waiting:
            return
        now, oldest_at = time.monotonic(), self._waiting[0].sent_at
        silent_s = now - max(self.received_at, oldest_at)
        is_silent = silent_s >= self._timeout_s or now - oldest_at >= _OVERDUE * self._timeout_s
        if is_silent and self._is_suspect:
            self.fail(RedisTimeoutError("Redis is silent"))
            return
        # After a pause of the process, timers run before the received data is read.
        self._is_suspect = is_silent
        again_s = _SECOND_LOOK_S if is_silent else self._timeout_s - silent_s
        self._timer = self._loop.call_later(again_s, self._check)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(RedisConnectionError(f"Redis closed the connection: {exc or 'end of stream'}"))

    def fail(self, failure: RedisError) -> None:
        """Close, and fail every call that has no reply; later ones fail at once."""
        if self.failure is not None:
            return
        self.failure = failure
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        while self._waiting:
            reply = self._waiting.popleft().reply
            if not reply.done():
                reply.set_exception(_again(failure))
                reply.exception()  # a caller that was cancelled does not fetch it
        self.waiting_bytes = 0

    async def close(self) -> None:
        """Close the socket."""
        self.fail(RedisConnectionError("the connection was closed"))
        with suppress(RedisError, OSError):
            await self._connection.disconnect(nowait=True)


class Multiplexer:
    """Sends commands over one connection, and connects anew after it was lost."""

    def __init__(
        self,
        dial: Callable[[], AbstractConnection],
        read: Reads,
        timeout_s: float,
        on_round_trip: OnRoundTrip,
    ) -> None:
        """Connect when first used. `dial` makes a connection, not yet connected.

        `read` turns the reply of some commands, by name, into what redis-py returns for them.
        Redis may be silent for `timeout_s` while a call waits.
        """
        self._dial = dial
        self._read = read
        self._timeout_s = timeout_s
        self._on_round_trip = on_round_trip
        self._line: _Line | None = None
        self._connecting: asyncio.Task[_Line] | None = None
        self._received_at = 0.0
        self.known_scripts: set[str] = set()
        """Scripts that were sent whole over this connection: its user notes them here."""

    @property
    def received_at(self) -> float:
        """When Redis last sent anything (`time.monotonic`); 0 if it never has."""
        return max(self._received_at, self._line.received_at if self._line else 0.0)

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands in order, not atomically, and return their replies.

        Raises redis-py's errors: ConnectionError if the connection was lost (the commands may
        have run), TimeoutError if Redis is silent, and the first error among the replies.
        """
        try:
            packed = [b"".join(map(_packed, commands))]
        except TypeError:
            packed = [piece for words in commands for piece in _in_pieces(words)]
        line = self._line
        if line is None or line.failure is not None:
            line = await self._connected()
        if line.is_full:
            raise RedisConnectionError("too many commands wait for Redis")
        replies = await line.send(packed, len(commands))
        try:
            return [
                self._typed(words, reply) for words, reply in zip(commands, replies, strict=True)
            ]
        except RedisError as error:
            vars(error)[_AT] = next((at for at, each in enumerate(replies) if each is error), 0)
            raise

    def _typed(self, words: Command, reply: Any) -> Any:
        if isinstance(reply, Exception):
            raise reply
        read = self._read.get(words[0])  # type: ignore[arg-type]
        return reply if read is None else read(reply)

    async def _connected(self) -> _Line:
        """The connection; concurrent callers wait for the same attempt to connect."""
        if self._line is not None and self._line.failure is None:
            return self._line
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._forget_attempt)
        return await asyncio.shield(self._connecting)

    def _forget_attempt(self, attempt: asyncio.Task[_Line]) -> None:
        self._connecting = None
        if not attempt.cancelled():
            attempt.exception()  # its callers have it, unless all were cancelled

    async def _connect(self) -> _Line:
        connection = self._dial()
        try:
            # Its own timeouts end with the connection: after it Redis is greeted, without any.
            async with asyncio.timeout(self._timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            await connection.disconnect(nowait=True)
            raise RedisTimeoutError("Redis does not greet") from error
        except InvalidResponse as error:
            await connection.disconnect(nowait=True)
            raise NotRedis(f"another program answers at Redis's address: {error}") from error
        if self._line is not None:
            self._received_at = self._line.received_at
            await self._line.close()
        self._line = _Line(connection, self._timeout_s, self._on_round_trip)
        self.known_scripts = set()
        return self._line

    async def close(self) -> None:
        """Close the connection; calls that wait fail with ConnectionError."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._line is not None:
            await self._line.close()


def tls_options(url: str) -> dict[str, Any]:
    """What the URL of Redis says about TLS, as redis-py's arguments; empty without TLS."""
    if not url.startswith("rediss://"):
        return {}
    given = {name: text for name, text in parse_url(url).items() if name.startswith("ssl_")}
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": True, **given}


def _again(failure: RedisError) -> RedisError:
    """A copy of the error for another caller, with its own traceback."""
    return type(failure)(*failure.args)


def _in_pieces(words: Command) -> list[bytes]:
    """A command with its large words apart; raises TypeError for what is no word."""
    pieces = [f"*{len(words)}\r\n".encode()]
    for word in words:
        if isinstance(word, LargeWord):
            pieces += [f"${word.size_bytes}\r\n".encode(), *word.pieces, b"\r\n"]
        else:
            alone: bytes = hiredis.pack_command((word,))
            pieces.append(alone.removeprefix(b"*1\r\n"))
    return pieces


def _packed(words: Command) -> bytes:
    name = words[0]
    if isinstance(name, str) and " " in name:
        # A name of two words, as in SCRIPT LOAD, is two words on the wire.
        words = (*name.split(), *words[1:])
    packed: bytes = hiredis.pack_command(tuple(words))  # type: ignore[arg-type]
    return packed
