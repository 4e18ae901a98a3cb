"""One pub/sub connection a process, shared by all its subscriptions.

Written by hand on hiredis because a message costs 6 us here, follower included, and 27 us through
redis-py's PubSub (bench/relay_path.py). A subscription whose buffer is full loses the buffer, not
the connection: it is marked as behind, and its follower reads the log instead. After a lost
connection all subscriptions are behind. The connection has no read timeout: it is pinged, and
replaced when no reply comes.

A process that follows the jobs that it enqueues itself gives them ids with a common end, its mark,
and subscribes to all of them at once, by a pattern (docs/adr/0047).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from secrets import token_hex
from typing import Final

import hiredis
from redis.exceptions import RedisError

from contract import redis_keys
from contract.errors import RelayUnavailable
from relay.chance import DICE
from relay.connection import Connection, relay_errors

_log = logging.getLogger(__name__)

_READ_BYTES: Final = 256 * 1024
_AT_ONCE: Final = 256
"""Messages in one turn of the event loop."""
FOR_FOLLOWERS: Final = 2
"""The same where each wakes a follower, which works for 25 to 40 us: a crowded worker publishes
hundreds together, and a new request would wait for all of them."""
_LATE_S: Final = 0.25
_MANY_BYTES: Final = 64 * 1024
"""That many are always there while this process is slower than those that publish. After `_LATE_S`
of that, what counts is how much it gets done."""
_TOLD_AT_ONCE: Final = 32
"""Followers of one job that a message wakes in one turn: a thousand of them work for a tenth of a
second."""
BUFFERED: Final = 512
"""Messages that a subscription buffers before its follower falls back to the log."""
_BUFFERED_BYTES: Final = 256 * 1024
"""Bytes of these messages; one message that is larger is buffered alone."""
_SILENCE: Final = 2.5
"""Timeouts of a command (`command_timeout_s`; a ping is sent in each) until silence means a lost
connection."""
_SUBSCRIBE_TIMEOUT_S: Final = 10.0
_RECONNECT_CAP_S: Final = 2.0
_MARK_BYTES: Final = 4
_RANDOM_BYTES: Final = 12
"""A job's id is 16 random bytes; the last ones are random once a process."""


class Subscription:
    """The buffered messages of one subscriber to a channel."""

    __slots__ = ("_most", "_timer", "_until", "_waiter", "behind", "messages", "size_bytes")

    def __init__(self, buffered: int = BUFFERED) -> None:
        """Start behind: messages before the subscription were not received.

        `buffered` messages are kept at most; their bytes are bounded only for the default.
        """
        self._most = buffered
        self.messages: list[bytes] = []
        self.behind = True
        self.size_bytes = 0
        """Of the buffered messages."""
        self._waiter: asyncio.Future[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0

    def receive(self, message: bytes) -> None:
        """Buffer a message, or fall behind if the buffer is full."""
        if self.behind:
            return
        self.size_bytes += len(message)
        if self.messages and (
            len(self.messages) >= self._most
            or (self._most == BUFFERED and self.size_bytes > _BUFFERED_BYTES)
        ):
            self.fall_behind()
        else:
            self.messages.append(message)
            self._wake()

    def take(self) -> list[bytes]:
        """Remove the buffered messages, and return them."""
        taken, self.messages, self.size_bytes = self.messages, [], 0
        return taken

    def fall_behind(self) -> None:
        """Drop the buffer: the follower has to read the log."""
        self.behind = True
        self.take()
        self._wake()

    def catch_up(self) -> None:
        """Buffer again; call it before reading the log, so that no message is missed between."""
        self.behind = False

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a message or for falling behind. Returns False after `timeout_s` without any."""
        if self.messages or self.behind:
            return True
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._until = loop.time() + timeout_s
        if self._timer is None:
            # One timer a subscription, which is set again when it fires early: cheaper than one
            # a message.
            self._timer = loop.call_later(timeout_s, self._check_timeout)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _check_timeout(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._until:
            self._waiter.set_result(False)
        else:
            self._timer = loop.call_at(self._until, self._check_timeout)

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)


class _Channel:
    """The subscriptions to a channel, and whether Redis has confirmed SUBSCRIBE."""

    __slots__ = ("confirmed", "subscriptions")

    def __init__(self) -> None:
        self.subscriptions: set[Subscription] = set()
        self.confirmed = asyncio.Event()

    def confirm(self) -> None:
        """Mark all subscriptions as behind: what was published before may have been missed."""
        for subscription in self.subscriptions:
            subscription.fall_behind()
        self.confirmed.set()


class UpcomingJob:
    """The events of a job that is to be enqueued; close it, or drop every reference to it."""

    __slots__ = ("_subscriber", "job_id", "subscription")

    def __init__(self, job_id: str, subscription: Subscription, subscriber: "Subscriber") -> None:
        """`subscription` is one of `subscriber`'s."""
        self.job_id = job_id
        self.subscription = subscription
        self._subscriber: Subscriber | None = subscriber

    def close(self) -> None:
        """Receive no more; a second call does nothing."""
        if self._subscriber is not None:
            self._subscriber.unsubscribe(redis_keys.channel(self.job_id), self.subscription)
            self._subscriber = None

    def __del__(self) -> None:
        """Close it: a call may fail before anybody reads the events."""
        self.close()


class Subscriber:
    """Subscribes to the channels that this process follows; its `listen` must run as a task."""

    def __init__(
        self, connection: Connection, *, expects_jobs: bool = False, at_once: int = _AT_ONCE
    ) -> None:
        """Nothing is connected before `listen` runs. `expects_jobs`: `expect` will be called.

        `at_once` messages are passed on in a turn of the event loop, while that is enough for them.
        """
        self._connection = connection
        self._at_once = at_once
        self._mark = token_hex(_MARK_BYTES)
        pattern = redis_keys.channel(f"*{self._mark}").encode()
        self._pattern = pattern if expects_jobs else None
        self._pattern_end = pattern.rpartition(b"*")[2]
        self._receives_pattern = False
        self._timeout_s = connection.settings.command_timeout_s
        self._channels: dict[bytes, _Channel] = {}
        self._unconfirmed: dict[bytes, int] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._received_at = 0.0
        self._untold: list[Subscription] = []
        """Those of the channel of a message that have not received it yet."""
        self._data = b""
        self.losses = 0
        """How often the connection was lost."""

    @asynccontextmanager
    async def subscribe(
        self, channel: str, *, buffered: int = BUFFERED
    ) -> AsyncGenerator[Subscription]:
        """Subscribe to a channel; a message missed inside this context marks it as behind.

        `buffered` messages wait at most.

        Raises RelayUnavailable if Redis does not confirm within 10 s.
        """
        subscription = Subscription(buffered)
        known = self._join(channel.encode(), subscription)
        try:
            async with asyncio.timeout(_SUBSCRIBE_TIMEOUT_S):
                await known.confirmed.wait()
            yield subscription
        except TimeoutError as error:
            if known.confirmed.is_set():
                raise
            raise RelayUnavailable("Redis does not confirm a subscription") from error
        finally:
            self.unsubscribe(channel, subscription)

    def expect(self) -> UpcomingJob:
        """Receive all events of a job that is about to be enqueued with the id that this chooses.

        Sends nothing to Redis. Call it with `expects_jobs` only.
        """
        job_id = token_hex(_RANDOM_BYTES) + self._mark
        subscription = Subscription()
        self._join(redis_keys.channel(job_id).encode(), subscription)
        if self._receives_pattern:
            subscription.catch_up()
        return UpcomingJob(job_id, subscription, self)

    def _join(self, name: bytes, subscription: Subscription) -> _Channel:
        known = self._channels.get(name)
        if known is None:
            known = self._channels[name] = _Channel()
            if not self._is_in_pattern(name):
                self._subscribe(name)
            elif self._receives_pattern:
                known.confirmed.set()
        known.subscriptions.add(subscription)
        return known

    def unsubscribe(self, channel: str, subscription: Subscription) -> None:
        """End a subscription to a channel; one that has ended already is left alone."""
        subscription.close()
        name = channel.encode()
        known = self._channels.get(name)
        if known is None:
            return
        known.subscriptions.discard(subscription)
        if not known.subscriptions:
            del self._channels[name]
            if not self._is_in_pattern(name):
                self._send(b"UNSUBSCRIBE", name)

    @property
    def count(self) -> int:
        """Channels that are subscribed to."""
        return len(self._channels)

    def _is_in_pattern(self, name: bytes) -> bool:
        return self._pattern is not None and name.endswith(self._pattern_end)

    async def listen(self) -> None:
        """Receive until cancelled; reconnects with backoff and jitter."""
        failures = 0
        while True:
            try:
                await self._listen_once()
            except (RelayUnavailable, OSError, RedisError, hiredis.HiredisError) as error:
                # One line an outage: the attempts to reconnect fail, too.
                level = logging.DEBUG if failures else logging.WARNING
                _log.log(level, "the subscriber lost Redis: %s", error)
            failures = 0 if self._writer else failures + 1
            self._disconnected()
            await asyncio.sleep(DICE.uniform(0.02, min(_RECONNECT_CAP_S, 0.05 * 2**failures)))

    async def _listen_once(self) -> None:
        connection = self._connection.dedicated()
        with relay_errors():
            # The connect timeout does not cover the handshake (HELLO, AUTH) that follows.
            async with asyncio.timeout(self._timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]
        # Private parts of redis-py 8: its connection knows TLS, users and sockets; we only read
        # and write bytes. tests/relay/test_subscriber.py fails when they move.
        stream, self._writer = connection._reader, connection._writer  # noqa: SLF001
        assert stream is not None  # noqa: S101 - for the type checker: connect() set it
        try:
            self._subscribe_all()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ping())
                await self._read(stream)
        except* (OSError, RelayUnavailable) as lost:
            raise RelayUnavailable(str(lost.exceptions[0])) from lost
        finally:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)

    async def _read(self, stream: asyncio.StreamReader) -> None:
        parser = hiredis.Reader()
        loop = asyncio.get_running_loop()
        self._received_at = caught_up_at = loop.time()
        while data := await stream.read(_READ_BYTES):
            self._received_at = now = loop.time()
            if len(data) < _MANY_BYTES:
                caught_up_at = now
            parser.feed(data)
            at_once = self._at_once if now - caught_up_at < _LATE_S else _AT_ONCE
            count = 0
            while (message := parser.gets()) is not False:
                self._dispatch(message)
                while self._untold:
                    await asyncio.sleep(0)
                    self._received_at = loop.time()
                    self._tell_some()
                count += 1
                if count % at_once == 0:
                    await asyncio.sleep(0)
                    self._received_at = loop.time()  # what was received is still being passed on
        raise RelayUnavailable("Redis closed the listener's connection")

    def _dispatch(self, message: list[bytes] | Exception) -> None:
        if isinstance(message, Exception):
            raise RelayUnavailable(f"Redis refuses the listener: {message}")
        kind, name = message[0], message[1]
        if kind == b"pmessage":
            self._deliver(message[2], message[3])
        elif kind == b"message":
            self._deliver(name, message[2])
        elif kind == b"psubscribe":
            self._confirm_pattern()
        elif kind == b"subscribe":
            # Only the reply to the last SUBSCRIBE counts: an UNSUBSCRIBE may lie between.
            self._unconfirmed[name] = left = self._unconfirmed.get(name, 1) - 1
            if left <= 0:
                del self._unconfirmed[name]
                if (channel := self._channels.get(name)) is not None:
                    channel.confirm()

    def _deliver(self, name: bytes, data: bytes) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        if len(channel.subscriptions) <= _TOLD_AT_ONCE:
            for subscription in channel.subscriptions:
                subscription.receive(data)
        else:
            self._untold, self._data = [*channel.subscriptions], data
            self._tell_some()

    def _tell_some(self) -> None:
        """Pass the message of many subscriptions on to a few of them.

        One that comes meanwhile finds it in the log; one that has ended drops it.
        """
        for subscription in self._untold[-_TOLD_AT_ONCE:]:
            subscription.receive(self._data)
        del self._untold[-_TOLD_AT_ONCE:]
        if not self._untold:
            self._data = b""

    def _confirm_pattern(self) -> None:
        self._receives_pattern = True
        for name, channel in self._channels.items():
            if self._is_in_pattern(name):
                channel.confirm()

    async def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        while (silent_s := loop.time() - self._received_at) < _SILENCE * self._timeout_s:
            if silent_s >= self._timeout_s:
                self._send(b"PING")
            await asyncio.sleep(self._timeout_s)
        raise RelayUnavailable("Redis is silent on the listener's connection")

    def _subscribe_all(self) -> None:
        if self._pattern is not None:
            self._send(b"PSUBSCRIBE", self._pattern)
        for name in self._channels:
            if not self._is_in_pattern(name):
                self._subscribe(name)

    def _subscribe(self, name: bytes) -> None:
        if self._writer is not None:
            self._unconfirmed[name] = self._unconfirmed.get(name, 0) + 1
            self._send(b"SUBSCRIBE", name)

    def _send(self, *words: bytes) -> None:
        # uvloop refuses to write to a lost connection, which `listen` is about to notice.
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(hiredis.pack_command(words))  # type: ignore[arg-type]

    def _disconnected(self) -> None:
        self.losses += 1
        self._writer = None
        self._receives_pattern = False
        self._unconfirmed.clear()
        self._untold.clear()
        for channel in self._channels.values():
            for subscription in channel.subscriptions:
                subscription.fall_behind()
