"""One process's line to Redis: a client for commands and scripts, with every wait bounded.

Foreign errors become ours here and nowhere else. A refused or lost connection is tried again for
about two seconds with backoff and jitter, which a restart of Redis on the same machine fits into; a
silent one once more, on a new line. Every script of the relay can be run twice without harm. Every
timeout is set on purpose: docs/adr/0015 has them all.
"""

import asyncio
import hashlib
import time
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from functools import cache, partial
from typing import Any, Generic, NamedTuple, Self, TypeVar

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from contract.errors import RelayUnavailable
from relay.settings import RelaySettings

Argument = str | bytes | int | float
Call = tuple[str, Sequence[str], Sequence[Argument]]
"""A script, its keys, its arguments."""
Hash = Mapping[bytes, bytes]
"""A hash as Redis returns it: field to value."""
T = TypeVar("T")


class ScriptCall(NamedTuple, Generic[T]):
    """One call of a Lua script; relay/scripts makes them."""

    script: str
    """Its text."""
    keys: Sequence[str]
    args: Sequence[Argument]
    read: Callable[[Any], T]
    """Makes the typed answer of Redis's reply."""


def pairs(flat: Sequence[bytes]) -> Hash:
    """The mapping in a script's reply of HGETALL, where field and value take turns."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


_SOCKETS = 16
_RETRIES = 6
_BACKOFF_BASE_S = 0.05
_BACKOFF_CAP_S = 1.0
_CONNECT_TIMEOUT_S = 5.0
_HEALTH_CHECK_S = 15
_PASSING = ("LOADING", "MASTERDOWN", "OOM", "NOREPLICAS", "TRYAGAIN")


@contextmanager
def relay_errors() -> Generator[None]:
    """Turn Redis's errors into RelayUnavailable; a defect of ours (a wrong script) stays.

    A cancellation that came meanwhile is raised: redis-py sends with `asyncio.wait_for`, which
    before Python 3.12 may swallow one (python/cpython #86296), and did in half of the cases.
    """
    task = asyncio.current_task()
    cancellations = task.cancelling() if task else 0
    try:
        yield
    except (RedisError, OSError) as error:
        if task and task.cancelling() > cancellations:
            raise asyncio.CancelledError from error
        if (ours := _ours(error)) is None:
            raise
        raise ours from error
    if task and task.cancelling() > cancellations:
        raise asyncio.CancelledError


def _ours(error: RedisError | OSError) -> RelayUnavailable | None:
    match error:
        case RedisConnectionError() | RedisTimeoutError() | OSError():
            return RelayUnavailable(f"Redis does not answer: {type(error).__name__}")
        case OutOfMemoryError():
            return RelayUnavailable(
                "Redis is full (maxmemory reached): raise maxmemory or lower FLEET_LOG_TTL_S",
                retry_after_s=5.0,
            )
        case ReadOnlyError():
            return RelayUnavailable("Redis is a read-only replica right now")
        case _:
            is_passing = str(error).startswith(_PASSING)
            return RelayUnavailable(f"Redis is not ready: {error}") if is_passing else None


@cache
def _sha(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _packing_in_c(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """The kind of connection with hiredis packing its commands.

    redis-py 8 packs them in Python where it is asynchronous, which was half of what the writer
    cost a frame (bench/relay_path.py).
    """

    class CommandPacking(kind):  # type: ignore[misc, valid-type]
        def pack_command(self, *words: Argument) -> list[bytes]:
            # A name of two words, as in SCRIPT LOAD, is two words on the wire.
            name = words[0]
            head = tuple(name.split()) if isinstance(name, str) else (name,)
            return [hiredis.pack_command(head + words[1:])]  # type: ignore[arg-type]

        def pack_commands(self, commands: Iterable[Sequence[Argument]]) -> list[bytes]:
            return [b"".join(self.pack_command(*words)[0] for words in commands)]

        async def _send_packed_command(self, command: Iterable[bytes]) -> None:
            # A health check that failed meanwhile has taken the writer away, and uvloop raises a
            # RuntimeError on a closed one: nobody would take either for a lost connection.
            if self._writer is None or self._writer.is_closing():
                raise ConnectionResetError("Redis closed the connection")
            await super()._send_packed_command(command)

    return CommandPacking


class Connection:
    """What every noun of the relay is built on; open one a process."""

    def __init__(self, settings: RelaySettings) -> None:
        """Use `open` instead, which also closes."""
        self.settings = settings
        self._clock_offset_s = 0.0
        self._answered_at = 0.0
        # A thousand followers that come at once wait their turn for a socket.
        self._turns = asyncio.Semaphore(_SOCKETS)
        url = settings.redis_url.get_secret_value()
        keepalive = {} if url.startswith("unix://") else {"socket_keepalive": True}
        pool = BlockingConnectionPool.from_url(
            url,
            **keepalive,
            max_connections=_SOCKETS,
            timeout=settings.command_timeout_s,
            protocol=2,
            socket_timeout=settings.command_timeout_s,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            health_check_interval=_HEALTH_CHECK_S,
            # Not of timeouts, of which seven in a row would make a caller wait for a minute.
            retry=Retry(
                ExponentialWithJitterBackoff(_BACKOFF_CAP_S, _BACKOFF_BASE_S),
                _RETRIES,
                (RedisConnectionError,),
            ),
        )
        pool.connection_class = _packing_in_c(pool.connection_class)
        self._redis: Redis = Redis.from_pool(pool)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: RelaySettings) -> AsyncGenerator[Self]:
        """Connect when first used; let go of every socket at the end."""
        connection = cls(settings)
        try:
            yield connection
        finally:
            await connection._redis.aclose()

    @property
    def silent_s(self) -> float:
        """Seconds since Redis has answered this process."""
        return time.monotonic() - self._answered_at

    async def ping(self) -> None:
        """Return if Redis answers; raises RelayUnavailable."""
        await self.command("PING")

    async def command(self, *words: Argument) -> Any:
        """Run one command; raises RelayUnavailable."""
        return await self._answer(partial(self._redis.execute_command, *words))

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Run commands in one round trip, not atomically; raises RelayUnavailable."""
        return await self._answer(partial(self._in_one_trip, commands)) if commands else []

    async def call(self, call: ScriptCall[T]) -> T:
        """Run a script and return its answer; raises RelayUnavailable."""
        (answer,) = await self.calls([call])
        return answer

    async def calls(self, calls: Sequence[ScriptCall[T]]) -> list[T]:
        """Run scripts in order in one round trip, not atomically; raises RelayUnavailable."""
        replies = await self.run_in_turn([(each.script, each.keys, each.args) for each in calls])
        return [each.read(reply) for each, reply in zip(calls, replies, strict=True)]

    async def run(
        self, script: str, keys: Sequence[str] = (), args: Sequence[Argument] = ()
    ) -> Any:
        """Run a Lua script by its hash, or whole where it is unknown; raises RelayUnavailable."""
        (answer,) = await self.run_in_turn([(script, keys, args)])
        return answer

    async def run_in_turn(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts one after the other in one round trip; raises RelayUnavailable."""
        by_hash = [("EVALSHA", _sha(text), len(keys), *keys, *args) for text, keys, args in calls]
        try:
            return await self.pipeline(by_hash)
        except NoScriptError:
            # The text, because between loading it and calling it it might be forgotten again.
            return await self.pipeline(
                [("EVAL", text, len(keys), *keys, *args) for text, keys, args in calls]
            )

    async def _answer(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask, and after a silence once more; raises RelayUnavailable."""
        async with self._turn():
            with relay_errors():
                return await self._answer_in_turn(ask)

    async def _answer_in_turn(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        try:
            answer = await ask()
        except RedisTimeoutError:
            # Where one line is half-open the others are, too, as a rule.
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            answer = await ask()
        self._answered_at = time.monotonic()
        return answer

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        """Wait for a socket, first come first served; raises RelayUnavailable after the timeout.

        The pool alone is not fair: a task that asks again takes the socket from one that waits,
        which then waits for as long as the burst lasts.
        """
        try:
            async with asyncio.timeout(self.settings.command_timeout_s):
                await self._turns.acquire()
        except TimeoutError as error:
            raise RelayUnavailable("Too many commands wait for a connection to Redis") from error
        try:
            yield
        finally:
            self._turns.release()

    async def _in_one_trip(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for words in commands:
                pipe.execute_command(*words)
            return list(await pipe.execute())

    def dedicated(self) -> AbstractConnection:
        """Make a socket of its own, not yet connected and without a read timeout: for listening."""
        pool = self._redis.connection_pool
        kind, arguments = pool.connection_class, dict(pool.connection_kwargs)
        arguments.update(socket_timeout=None, health_check_interval=0, retry=Retry(NoBackoff(), 0))
        made: AbstractConnection = kind(**arguments)
        return made

    def now(self) -> float:
        """Unix seconds by Redis's clock, as of the last `set_clock`."""
        return time.time() + self._clock_offset_s

    def set_clock(self, redis_now: float) -> None:
        """Learn Redis's clock from an answer that carries it, so that skewed machines agree."""
        self._clock_offset_s = redis_now - time.time()
