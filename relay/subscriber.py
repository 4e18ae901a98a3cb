"""The shared reader: one pub/sub connection of a process hears for every follower in it.

Written by hand on hiredis because a message costs 6 us here, follower included, and 27 us through
redis-py's PubSub (bench/relay_path.py). A follower that does not keep up loses its live buffer,
never the connection: it is told that it is behind and reads the log instead. So is everybody after
the connection was lost. The listener has no read timeout; it pings, and silence means a new socket.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

import hiredis
from redis.exceptions import RedisError

from contract.errors import RelayUnavailable
from relay.connection import Connection, relay_errors

_log = logging.getLogger(__name__)

_READ_BYTES: Final = 256 * 1024
_BUFFERED: Final = 512
"""Messages that a follower may have waiting before it falls back to the log."""
_SILENCE: Final = 2.5
"""Timeouts of a command (`command_timeout_s`; a ping is sent in each) until silence means a lost
connection."""
_SUBSCRIBE_TIMEOUT_S: Final = 10.0
_RECONNECT_CAP_S: Final = 2.0


class Subscription:
    """One follower's live buffer."""

    __slots__ = ("_timer", "_until", "_waiter", "behind", "heard")

    def __init__(self) -> None:
        """Begin behind: nothing before the subscription was heard."""
        self.heard: deque[bytes] = deque()
        self.behind = True
        self._waiter: asyncio.Future[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0

    def hear(self, message: bytes) -> None:
        """Take a message, or fall behind."""
        if self.behind:
            return
        if len(self.heard) >= _BUFFERED:
            self.fall_behind()
        else:
            self.heard.append(message)
            self._wake()

    def fall_behind(self) -> None:
        """Forget what waits: the follower has to read the log."""
        self.behind = True
        self.heard.clear()
        self._wake()

    def catch_up(self) -> None:
        """Begin to buffer again; call before reading the log, so that nothing falls between."""
        self.behind = False

    async def wait(self, timeout_s: float) -> bool:
        """Wait until there is something to do; false if nothing came in that time."""
        if self.heard or self.behind:
            return True
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._until = loop.time() + timeout_s
        if self._timer is None:
            # One timer a follower, which goes to sleep again: one a message costs more than it.
            self._timer = loop.call_later(timeout_s, self._look)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _look(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._until:
            self._waiter.set_result(False)
        else:
            self._timer = loop.call_at(self._until, self._look)

    def close(self) -> None:
        """Stop looking at the clock."""
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)


class _Channel:
    """Who listens to a channel, and whether Redis has confirmed it."""

    __slots__ = ("confirmed", "ears")

    def __init__(self) -> None:
        self.ears: set[Subscription] = set()
        self.confirmed = asyncio.Event()

    def confirm(self) -> None:
        """Nothing is missed from now on; whoever has read the log before must look again."""
        for ear in self.ears:
            ear.fall_behind()
        self.confirmed.set()


class Subscriber:
    """Hears every channel that somebody in this process follows; run `listen` beside it."""

    def __init__(self, connection: Connection) -> None:
        """Nothing is connected before `listen` runs."""
        self._connection = connection
        self._timeout_s = connection.settings.command_timeout_s
        self._channels: dict[bytes, _Channel] = {}
        self._unconfirmed: dict[bytes, int] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._last_heard = 0.0

    @asynccontextmanager
    async def hear(self, channel: str) -> AsyncGenerator[Subscription]:
        """Subscribe; once this is entered nothing said on the channel is missed unnoticed.

        Raises RelayUnavailable if Redis does not confirm in time.
        """
        name, ear = channel.encode(), Subscription()
        known = self._channels.get(name)
        if known is None:
            known = self._channels[name] = _Channel()
            self._subscribe(name)
        known.ears.add(ear)
        try:
            async with asyncio.timeout(_SUBSCRIBE_TIMEOUT_S):
                await known.confirmed.wait()
            yield ear
        except TimeoutError as error:
            if known.confirmed.is_set():
                raise
            raise RelayUnavailable("Redis does not confirm a subscription") from error
        finally:
            ear.close()
            known.ears.discard(ear)
            if not known.ears and self._channels.get(name) is known:
                del self._channels[name]
                self._send(b"UNSUBSCRIBE", name)

    async def listen(self) -> None:
        """Hear until cancelled; reconnects by itself, with backoff and jitter."""
        failures = 0
        while True:
            try:
                await self._listen_once()
            except (RelayUnavailable, OSError, RedisError, hiredis.HiredisError) as error:
                # One line an outage: the attempts to reconnect fail, too.
                level = logging.DEBUG if failures else logging.WARNING
                _log.log(level, "the subscriber lost Redis: %s", error)
            failures = 0 if self._writer else failures + 1
            self._lose()
            await asyncio.sleep(random.uniform(0.02, min(_RECONNECT_CAP_S, 0.05 * 2**failures)))  # noqa: S311 - jitter

    async def _listen_once(self) -> None:
        line = self._connection.dedicated()
        with relay_errors():
            # Its own timeouts end with the connection: after it Redis is greeted, without any.
            async with asyncio.timeout(self._timeout_s):
                await line.connect()  # type: ignore[no-untyped-call]
        # Private parts of redis-py 8: its connection knows TLS, users and sockets; we only read
        # and write bytes. tests/relay/test_subscriber.py fails when they move.
        stream, self._writer = line._reader, line._writer  # noqa: SLF001
        assert stream is not None  # noqa: S101 - for the type checker: connect() set it
        try:
            for name in self._channels:
                self._subscribe(name)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ping())
                await self._read(stream)
        except* (OSError, RelayUnavailable) as lost:
            raise RelayUnavailable(str(lost.exceptions[0])) from lost
        finally:
            with suppress(RedisError, OSError):
                await line.disconnect(nowait=True)

    async def _read(self, stream: asyncio.StreamReader) -> None:
        parser = hiredis.Reader()
        loop = asyncio.get_running_loop()
        self._last_heard = loop.time()
        while data := await stream.read(_READ_BYTES):
            self._last_heard = loop.time()
            parser.feed(data)
            while (message := parser.gets()) is not False:
                self._dispatch(message)
        raise RelayUnavailable("Redis closed the listener's connection")

    def _dispatch(self, message: list[bytes] | Exception) -> None:
        if isinstance(message, Exception):
            raise RelayUnavailable(f"Redis refuses the listener: {message}")
        kind, name = message[0], message[1]
        channel = self._channels.get(name)
        if kind == b"message":
            for ear in channel.ears if channel else ():
                ear.hear(message[2])
        elif kind == b"subscribe":
            # Only the answer to the last SUBSCRIBE counts: before it a channel may be left again.
            self._unconfirmed[name] = left = self._unconfirmed.get(name, 1) - 1
            if left <= 0:
                del self._unconfirmed[name]
                if channel:
                    channel.confirm()

    async def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        while (silent_s := loop.time() - self._last_heard) < _SILENCE * self._timeout_s:
            if silent_s >= self._timeout_s:
                self._send(b"PING")
            await asyncio.sleep(self._timeout_s)
        raise RelayUnavailable("Redis is silent on the listener's connection")

    def _subscribe(self, name: bytes) -> None:
        if self._writer is not None:
            self._unconfirmed[name] = self._unconfirmed.get(name, 0) + 1
            self._send(b"SUBSCRIBE", name)

    def _send(self, *words: bytes) -> None:
        # uvloop refuses to write to a lost connection, which `listen` is about to notice.
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(hiredis.pack_command(words))  # type: ignore[arg-type]

    def _lose(self) -> None:
        self._writer = None
        self._unconfirmed.clear()
        for channel in self._channels.values():
            for ear in channel.ears:
                ear.fall_behind()
