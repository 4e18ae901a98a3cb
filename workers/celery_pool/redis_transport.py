"""Kombu's transport for Redis, which also handles malformed messages, long idle polls and events.

Celery exits on a message that it cannot decode, and the message returns to its queue for the next
worker. Here each message is decoded once before it is delivered; a malformed one is delivered as a
call of UNREADABLE_TASK, which stores its bytes apart.

An idle worker polls Redis every IDLE_S. The queues of a BRPOP cannot be changed while it waits, so
one that lacks a queue, because no slot is free for it, ends after `polling_interval`.

A queue whose key is no list fails the whole BRPOP: it is left out for WRONG_KEY_S, so that the
others are served.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Any, Final

from celery.app.amqp import AMQP
from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher
from kombu.connection import Connection
from kombu.transport import TRANSPORT_ALIASES, _transport_cache
from kombu.transport import redis as kombu_redis
from kombu.utils.json import loads
from typing_extensions import override

from workers.celery_pool.message_check import UnreadableMessage, read_message, replacement

_log = logging.getLogger(__name__)

IDLE_S: Final = 10.0
"""Longest BRPOP, of a worker that consumes all of its queues."""
WRONG_KEY_S: Final = 1.0
"""Seconds for which a queue is left out whose key is no list."""
_CANNOT_WRITE: Final = frozenset(
    {"MISCONF", "READONLY", "UNBLOCKED", "OOM", "NOREPLICAS", "MASTERDOWN", "BUSY"}
)
"""Errors of a Redis that takes no writes now: its disk or memory is full, it is or has just become
a replica or has too few of them, or a script runs."""
_PAUSE_S: Final = 0.5
_LOG_EVERY_S: Final = 30.0
PAUSES: Final = {"interval_start": 0.25, "interval_step": 0.5, "interval_max": 4.75}
"""Seconds between two attempts to connect; kombu adds the first to the last."""
_PINGS_S: Final = 25.0
"""Seconds between two pings on the connection of Celery's remote control."""


def use_for_redis() -> None:
    """Let kombu use this transport for the URLs of Redis."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
        # Kombu remembers what it resolved, as for an application that has connected before.
        _transport_cache.pop(scheme, None)


def _code_of(error: Exception) -> str:
    """The first word of Redis's error, which redis-py takes off the text where it has a class."""
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


class Channel(kombu_redis.Channel):
    """Delivers well-formed messages; `task_queues` are the worker's, if it is known.

    A process that only controls workers (`celery inspect`) uses it, too, and reads their replies.
    """

    from_transport_options = (  # type: ignore[assignment]
        *kombu_redis.Channel.from_transport_options,
        "task_queues",
    )
    task_queues: tuple[str, ...] = ()
    _client_id: int | None = None
    """Redis's id of the connection that BRPOP waits on; None if it is not known."""
    _identified: Any = None
    """The socket with this id."""

    @override
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """At first every queue is assumed to be a list."""
        self._wrong: dict[str, str] = {}
        """Redis type of each queue key that is not a list."""
        self._check_again_at = 0.0
        self._logged_at = float("-inf")
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

    @override
    def _brpop_start(self, timeout: float | None = None) -> None:
        if self._wrong and time.monotonic() >= self._check_again_at:
            self._leave_out_wrong_keys()
        self._identify()
        consumed = len(self.active_queues) - len(self._wrong)
        whole = self.task_queues and consumed >= len(self.task_queues)
        # The poller also uses it as the timeout of a missing response.
        self.brpop_timeout = IDLE_S if whole else self.connection.brpop_timeout
        super()._brpop_start(timeout)  # type: ignore[no-untyped-call]

    @override
    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Bind a queue; one of the remote control also in a Redis whose memory is full.

        What is sent to all workers is published, and needs no table of bindings. A worker that
        could not connect would end no job, and Redis would stay full.
        """
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[no-untyped-call]
        except self.ResponseError as full:
            if queue not in self._fanout_queues or _code_of(full) != "OOM":
                raise
            _log.warning("Redis refuses what %s is bound to: %s", queue, full)

    @override
    def _refresh_bindings(self, queues: list[str]) -> None:
        try:
            super()._refresh_bindings(queues)  # type: ignore[no-untyped-call]
        except self.ResponseError as full:
            if _code_of(full) != "OOM":
                raise
            _log.warning("Redis refuses what %s are bound to: %s", ", ".join(queues), full)

    def _identify(self) -> None:
        line = self.client.connection
        if line._sock is None or line._sock is not self._identified:  # noqa: SLF001
            line.send_command("CLIENT", "ID")
            try:
                self._client_id = line.read_response()
            except self.connection.channel_errors:  # as without permission for this command
                self._client_id = None
            self._identified = line._sock  # noqa: SLF001

    @override
    def close(self) -> None:
        """Close at once: Redis ends the BRPOP, and kombu reads its reply, so no message is lost."""
        if self._in_poll and self._client_id is not None:
            errors = (*self.connection_errors, *self.connection.channel_errors)
            with suppress(*errors), self.conn_or_acquire() as client:
                client.client_unblock(self._client_id)
        super().close()  # type: ignore[no-untyped-call]

    @override
    def _brpop_read(self, **options: Any) -> bool:
        try:
            found = self._answer(options)
            if not found:
                raise Empty
            queue, item = found[0].decode().rsplit(self.sep, 1)[0], found[1]
            self._queue_cycle.rotate(queue)
            self.deliver(queue, item)
            return True
        finally:
            self._in_poll = False
            self._flush_brpop_reauth()  # type: ignore[no-untyped-call]

    def _answer(self, options: dict[str, Any]) -> Any:
        line = self.client.connection
        try:
            return self.client.parse_response(line, "BRPOP", **options)
        except self.connection_errors:
            # Disconnected, so that the next turn connects again.
            line.disconnect()
            raise
        except self.ResponseError as error:
            if _code_of(error) == "WRONGTYPE":
                self._leave_out_wrong_keys()
            elif _code_of(error) in _CANNOT_WRITE:
                self._pause(error)
            else:
                raise
            return None

    def _pause(self, error: Exception) -> None:
        """Wait a moment, because Redis refuses to take a ticket from its list; log it at times."""
        if time.monotonic() >= self._logged_at + _LOG_EVERY_S:
            self._logged_at = time.monotonic()
            _log.warning("no tickets are received while Redis takes no writes: %s", error)
        time.sleep(_PAUSE_S)

    def _leave_out_wrong_keys(self) -> None:
        """Consume only queues whose keys are lists; log what changed."""
        with self.conn_or_acquire() as client:
            types = {queue: client.type(queue).decode() for queue in self.active_queues}
        wrong = {queue: type for queue, type in types.items() if type not in {"list", "none"}}
        for queue, type in wrong.items():
            if queue not in self._wrong:
                _log.error(
                    "key %s in Redis is a %s and should be a list: the queue is not served, others"
                    " are; delete or rename that key", queue, type,
                )  # fmt: skip
        for queue in self._wrong.keys() - wrong.keys():
            _log.warning("key %s in Redis is right again: its queue is served", queue)
        self._wrong, self._check_again_at = wrong, time.monotonic() + WRONG_KEY_S
        self._update_queue_cycle()

    @override
    def _update_queue_cycle(self) -> None:
        self._queue_cycle.update([each for each in self.active_queues if each not in self._wrong])

    def deliver(self, queue: str, item: bytes) -> None:
        """Handle an entry of a queue's list."""
        deliver: Callable[[dict[str, Any], str], None] = self.connection._deliver  # noqa: SLF001
        if self.task_queues and queue not in self.task_queues:
            # A reply to a command of Celery's remote control, which is no task.
            deliver(loads(item.decode()), queue)  # type: ignore[no-untyped-call]
            return
        try:
            deliver(read_message(item, queue, self), queue)
        except self.connection_errors:
            raise
        except UnreadableMessage as error:
            deliver(replacement(item, queue, error), queue)
        except Exception as error:  # noqa: BLE001 - Celery may raise anything over a message
            # Any exception is taken as a fault of the message, which is stored apart.
            _log.exception("Celery failed over a message in %s", queue)
            reason = f"Celery failed over it: {type(error).__name__}"
            deliver(replacement(item, queue, UnreadableMessage(reason)), queue)


class Poller(kombu_redis.MultiChannelPoller):
    """Pings the connection of the remote control every _PINGS_S."""

    _pinged_at = 0.0

    @override
    def maybe_check_subclient_health(self) -> None:
        if time.monotonic() - self._pinged_at >= _PINGS_S:
            self._pinged_at = time.monotonic()
            super().maybe_check_subclient_health()  # type: ignore[no-untyped-call]


class Transport(kombu_redis.Transport):
    """For `use_for_redis`."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Not connected yet."""
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.cycle = Poller()  # type: ignore[assignment, no-untyped-call]


class SteadyConnection(Connection):
    """Connects again after growing pauses of 5 s at most, the first of a quarter of a second.

    Kombu begins with 2 s and goes on to 30: a worker whose connection was cut while it connected
    took no tickets for 2 s, and after an outage of a minute for ten.
    """

    @override
    def ensure_connection(self, *positional: Any, **named: Any) -> Any:
        """Try until it succeeds, as kombu does."""
        return super().ensure_connection(*positional, **PAUSES | named)  # type: ignore[no-untyped-call]


class SteadyAmqp(AMQP):  # type: ignore[misc]
    """For `Celery(amqp=...)`."""

    Connection = BrokerConnection = SteadyConnection


class SentOnce(EventDispatcher):  # type: ignore[misc]
    """Sends each event once; an event that cannot be sent waits for the next connection.

    Celery's own dispatcher retries without an end on the thread that consumes: a worker that is
    stopped meanwhile would not exit.
    """

    @override
    def send(self, type: str, *positional: Any, **fields: Any) -> Any:
        """Send, or keep it for later."""
        return super().send(type, *positional, **fields | {"retry": False})


class EventsSentOnce(Events):  # type: ignore[misc]
    """For `Celery(events=...)`: heartbeats, and what Flower shows."""

    dispatcher_cls = SentOnce
