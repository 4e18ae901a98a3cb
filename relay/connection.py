"""A process's client of Redis: commands and scripts, with a bound on every wait.

Errors of redis-py become RelayUnavailable here and nowhere else. After a refused or lost connection
commands are sent again for about two seconds, with backoff and jitter, which a restart of Redis on
the same machine fits into; after silence once, on a new connection. That is safe because every
script of the relay may run twice. All timeouts are in docs/adr/0015.
"""

import asyncio
import hashlib
import logging
import math
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from ssl import SSLError
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from contract import redis_keys
from contract.errors import NewerVersion, RelayFull, RelayUnavailable
from contract.wire import UNREADABLE
from relay.multiplexer import LargeWord, Multiplexer, Reads, failed_at, tls_options
from relay.settings import RelaySettings, address
from telemetry.relay_observer import RelayObserver
from telemetry.repeated_warnings import RepeatedWarnings

Argument = str | bytes | int | float | LargeWord
Call = tuple[str, Sequence[str], Sequence[Argument]]
"""A script, its keys, its arguments."""
Hash = Mapping[bytes, bytes]
"""A hash as Redis returns it: field to value."""
T = TypeVar("T")


class ScriptCall(NamedTuple, Generic[T]):
    """One call of a Lua script, as the typed functions of the relay return it."""

    script: str
    """Its text."""
    keys: Sequence[str]
    args: Sequence[Argument]
    read: Callable[[Any], T]
    """Converts Redis's reply to the typed result."""


def pairs(flat: Sequence[bytes]) -> Hash:
    """The mapping in a script's reply of HGETALL, where field and value take turns."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


_log = logging.getLogger(__name__)
SOON_S: Final = 2.0
"""Shorter than a probe usually waits, which learns nothing from a timeout of its own."""
_LOOK_AGAIN_S: Final = 0.1
"""Between two looks at the types of the same keys, one of which is damaged."""
_TYPE_AGAIN_S: Final = 60.0
"""The same for a key that MGET has not found: most of these are of workers that have ended."""
_LOOKED_AT: Final = 1_000
_RETRIES = 6
_BACKOFF = ExponentialWithJitterBackoff(cap=1.0, base=0.05)
_CONNECT_TIMEOUT_S = 5.0
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 5.0
_FULL_S: Final = 10.0
_JOB_BYTES: Final = 4096  # of Redis's memory, for a job that waits with a small request
_LEAST_QUEUE_BYTES: Final = 2**20  # which a queue may keep in the smallest Redis
_LONGEST_WHY: Final = 200
_MOST_KEYS_NAMED: Final = 32
"""Keys of one script that are named because one of them is damaged: its first ones."""
_DAMAGED: Final = "a key of the fleet in Redis holds what another program wrote: the log names it"
_OF_A_VALUE: Final = re.compile(r"hash value is not |user_script:\d+: Expected .* but found ")
"""In errors over a field that is no number, or JSON that is none."""
_OF_A_SCRIPT: Final = "user_script"
_PASSING = frozenset({"BUSY", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS", "READONLY", "TRYAGAIN"})


class DamagedKey(RelayUnavailable):
    """A key holds what the fleet does not write so; keys of others may be right."""


class BrokenScript(DamagedKey):
    """A script of ours broke: over what it does not check and is damaged, or by a defect of it.

    Nobody can tell (`attempt to compare nil with number`), so its keys are treated as damaged,
    which ends no process, and the log has an error with the script's line.
    """


@contextmanager
def relay_errors() -> Generator[None]:
    """Turn Redis's errors into RelayUnavailable; a defect of ours (a wrong script) stays.

    A cancellation in the meantime is raised: redis-py sends with `asyncio.wait_for`, which
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
            return RelayUnavailable(f"Redis does not answer: {_reason(error)}")
        case OutOfMemoryError():
            return RelayFull(
                "Redis is full (maxmemory reached) and takes no new jobs; others go on: raise "
                "maxmemory (FLEET_REDIS_MEMORY_BYTES of an embedded server), lower "
                "FLEET_LOG_TTL_S, or wait until records expire",
                retry_after_s=_FULL_S,
            )
        case RedisError() if code_of(error) == "MISCONF":
            why = str(error).partition(" ")[2][:_LONGEST_WHY]
            return RelayFull(
                f"Redis cannot write to its disk and can only be read ({why}): free space there; "
                "it goes on by itself",
                retry_after_s=_FULL_S,
            )
        case RedisError() if code_of(error) in _PASSING:
            return RelayUnavailable(f"Redis is not ready: {error}")
        case RedisError() if code_of(error) == "WRONGTYPE":
            return DamagedKey(_DAMAGED)
        case ResponseError() if _OF_A_VALUE.search(str(error)):
            return DamagedKey(_DAMAGED)
        case ResponseError() if _OF_A_SCRIPT in str(error):  # the others name theirs, too
            return BrokenScript("a script of the fleet broke in Redis: the log names its line")
        case _:
            return None


def code_of(error: Exception) -> str:
    """The first word of Redis's error, which redis-py takes off the text where it has a class."""
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


@asynccontextmanager
async def soon() -> AsyncGenerator[None]:
    """Raise RelayUnavailable if what it holds takes longer than probes and scrapers wait."""
    try:
        async with asyncio.timeout(SOON_S):
            yield
    except TimeoutError as error:
        raise RelayUnavailable(f"Redis has not answered for {SOON_S:g} s") from error


def _reason(error: BaseException) -> str:
    """What failed; of TLS, why: a certificate that has expired is no outage."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SSLError):
            return f"TLS: {getattr(cause, 'verify_message', None) or cause.reason or cause}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


@cache
def _sha(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


class Connection:
    """The client of Redis that all of the relay uses; open one a process."""

    def __init__(self, settings: RelaySettings, observer: RelayObserver) -> None:
        """Use `open` instead, which also closes."""
        self.settings = settings
        self.observer = observer
        self.crowding: frozenset[str] = frozenset()
        """Tenants that get no new job in, as the maintainer last said (relay/room)."""
        self.slowed: frozenset[str] = frozenset()
        """Those of them of which a waiting job runs now and then (relay/room/held_tenants.py)."""
        self.free_bytes = math.inf
        """What Redis had left of its `maxmemory` at the last look (relay/room)."""
        self.taken_bytes: Counter[str] = Counter()
        """What this process has put there for each tenant since then."""
        self._configured = settings
        self._clock_offset_s = 0.0
        self._damage = RepeatedWarnings(_log)
        self._looked_at: dict[str, float] = {}
        """When the types of keys were last asked for, by the keys."""
        url = settings.redis_url.get_secret_value()
        keepalive = {} if url.startswith("unix://") else {"socket_keepalive": True}
        self._pool = ConnectionPool.from_url(
            url,
            **keepalive,
            **tls_options(url),
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            health_check_interval=0,
            retry=Retry(NoBackoff(), 0),
        )
        self._multiplexer = Multiplexer(
            self.dedicated,
            cast("Reads", dict(Redis.from_pool(self._pool).response_callbacks)),
            settings.command_timeout_s,
            observer.on_round_trip,
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: RelaySettings, observer: RelayObserver | None = None
    ) -> AsyncGenerator[Self]:
        """Connect when first used, and close the connection at the end."""
        connection = cls(settings, observer or RelayObserver())
        try:
            yield connection
        finally:
            await connection._multiplexer.close()

    @property
    def silent_s(self) -> float:
        """Seconds since Redis has answered this process."""
        return time.monotonic() - self._multiplexer.received_at

    async def ping(self) -> None:
        """Return if Redis answers; raises RelayUnavailable."""
        await self.command("PING")

    async def memory(self) -> tuple[int, int]:
        """The bytes that count against Redis's `maxmemory`, and that (0: none)."""
        told = await self.command("INFO", "memory")
        unwritten = int(told.get("mem_not_counted_for_evict", 0))  # to its disk, to replicas
        return int(told["used_memory"]) - unwritten, int(told.get("maxmemory", 0))

    async def fit_queues(self) -> None:
        """Look how much memory Redis has, and has left; raises RelayUnavailable.

        A queue may keep a quarter of its `maxmemory`.
        What waits is not removed, so it must not fill Redis. A job counts as 4 KiB at least.
        """
        used, most = await self.memory()
        self.free_bytes = max(0, most - used) if most else math.inf
        self.taken_bytes.clear()
        bound, jobs = self._configured.queue_limit_bytes, self._configured.queue_limit
        if most:
            bound = min(bound, max(_LEAST_QUEUE_BYTES, most // 4))
            jobs = min(jobs, max(_LEAST_QUEUE_BYTES, most // 4) // _JOB_BYTES)
        fitting = {"queue_limit_bytes": bound, "queue_limit": jobs}
        self.settings = self._configured.model_copy(update=fitting)

    async def command(self, *words: Argument) -> Any:
        """Run one command; raises RelayUnavailable."""
        (reply,) = await self.pipeline([words])
        return reply

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Run commands in one round trip, not atomically; raises RelayUnavailable."""
        try:
            return await self._sent(commands)
        except BrokenScript as broken:
            refused = commands[failed_at(broken.__cause__)]
            keys = [*_keys_of(refused)][:9]
            self._damage.error("Redis refuses %s on %s: %s", refused[0], keys, broken.__cause__)
            raise
        except DamagedKey as damaged:
            why = damaged.__cause__
            await self.name_damaged(_keys_of(commands[failed_at(why)]), why)
            raise

    async def _sent(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        if not commands:
            return []
        try:
            return await self._multiplexer.send(commands)
        except (RedisError, OSError) as error:
            with relay_errors():
                return await self._send_again(commands, error)

    async def name_damaged(self, keys: Sequence[str], error: object) -> None:
        """Log keys with their types, one of which is damaged; at most once a minute for the same.

        A script may compute further keys, whose names are not known here.
        """
        keys, now = keys[:_MOST_KEYS_NAMED], time.monotonic()
        which = "\n".join(keys)
        if not keys:
            await self._suspect(["?"])
        if not keys or now - self._looked_at.get(which, -math.inf) < _LOOK_AGAIN_S:
            return
        if len(self._looked_at) >= _LOOKED_AT:
            self._looked_at.clear()
        self._looked_at[which] = now
        try:
            types = await self._multiplexer.send([("TYPE", key) for key in keys])
        except (RedisError, OSError):
            return
        await self._suspect(keys)
        kinds = [kind.decode() for kind in types]
        found = [f"{key} ({kind})" for key, kind in zip(keys, kinds, strict=True) if kind != "none"]
        self._damage.warn("one of these is damaged: %s: %s", ", ".join(found), error)

    async def _suspect(self, keys: Sequence[str]) -> None:
        """Have the maintainer look at keys, and at all shared ones (relay/repair)."""
        note = [("SADD", redis_keys.SUSPECTS, *keys), ("EXPIRE", redis_keys.SUSPECTS, 3600)]
        with suppress(RedisError, OSError):
            await self._multiplexer.send(note)

    async def name_other_types(self, keys: Sequence[str]) -> None:
        """Log those of these keys that MGET takes for none, although they exist as another type.

        Redis is asked about each key once a minute. Raises RelayUnavailable.
        """
        now = time.monotonic()
        due = [key for key in keys if now - self._looked_at.get(key, -math.inf) >= _TYPE_AGAIN_S]
        if not due:
            return
        if len(self._looked_at) >= _LOOKED_AT:
            self._looked_at.clear()
        self._looked_at.update(dict.fromkeys(due, now))
        types = await self.pipeline([("TYPE", key) for key in due])
        for key, kind in zip(due, (kind.decode() for kind in types), strict=True):
            if kind not in ("none", "string"):
                self.pass_over(key, TypeError(f"it is of another type: {kind}"))

    async def replies(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """The same for commands on one key each; None where that holds what is not the fleet's.

        Such a key is named in the log. Raises RelayUnavailable.
        """
        try:
            return await self._sent(commands)
        except DamagedKey:
            return [await self._reply_or_none(each) for each in commands]

    async def _reply_or_none(self, command: Sequence[Argument]) -> Any:
        try:
            (reply,) = await self._sent([command])
        except DamagedKey as error:
            self.pass_over(_keys_of(command)[-1], error.__cause__ or error)
            await self._suspect(_keys_of(command))
            return None
        return reply

    def pass_over(self, what: str, error: BaseException) -> None:
        """Log that a damaged key or record is passed over, at most once a minute for each."""
        self._damage.warn("%s is passed over: %s", what, error, about=what)

    @contextmanager
    def passing_over(self, what: str) -> Generator[None]:
        """End the block, and log why, if it finds what the fleet has not written so."""
        try:
            yield
        except (BrokenScript, ResponseError) as broken:
            self._damage.error("a script broke, and %s is passed over", what, exc_info=broken)
        except (DamagedKey, NewerVersion, *UNREADABLE) as error:
            self.pass_over(what, error)

    async def call(self, call: ScriptCall[T]) -> T:
        """Run a script and return its result; raises RelayUnavailable."""
        (answer,) = await self.calls([call])
        return answer

    async def call_or_none(self, call: ScriptCall[T], what: str) -> T | None:
        """The same, None for keys of a wrong type, with `what` for the log."""
        try:
            return await self.call(call)
        except DamagedKey as error:
            self.pass_over(what, error)
            return None

    async def calls_or_none(self, calls: Sequence[ScriptCall[T]]) -> list[T | None]:
        """The same for scripts on keys of their own, each named in the log by its keys."""
        try:
            return [*await self.calls(calls)]
        except DamagedKey:
            found: list[T | None] = []
            for each in calls:
                answer = await self.call_or_none(each, ", ".join(each.keys))
                found.append(answer)
            return found

    async def calls(self, calls: Sequence[ScriptCall[T]]) -> list[T]:
        """Run scripts in order in one round trip, not atomically; raises RelayUnavailable."""
        replies = await self.run_in_turn([(each.script, each.keys, each.args) for each in calls])
        return [await self._read(each, reply) for each, reply in zip(calls, replies, strict=True)]

    async def _read(self, call: ScriptCall[T], reply: Any) -> T:
        try:
            return call.read(reply)
        except UNREADABLE as error:
            await self.name_damaged(call.keys, error)
            raise DamagedKey(_DAMAGED) from error

    async def run(
        self, script: str, keys: Sequence[str] = (), args: Sequence[Argument] = ()
    ) -> Any:
        """Run a Lua script by its hash, or whole where it is unknown; raises RelayUnavailable."""
        (answer,) = await self.run_in_turn([(script, keys, args)])
        return answer

    async def run_in_turn(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts one after the other in one round trip; raises RelayUnavailable.

        Of several, a server that knows only a later one by its hash would run that first.
        """
        known = self._multiplexer.known_scripts
        for text, _, _ in calls if len(calls) > 1 else ():
            if text not in known:
                break
        else:
            sent = [("EVALSHA", _sha(text), len(keys), *keys, *args) for text, keys, args in calls]
            try:
                return await self.pipeline(sent)
            except NoScriptError:
                known.clear()
        # EVAL rather than SCRIPT LOAD, because the cache may be flushed again before the call.
        whole = [("EVAL", text, len(keys), *keys, *args) for text, keys, args in calls]
        replies = await self.pipeline(whole)
        self._multiplexer.known_scripts.update(text for text, _, _ in calls)
        return replies

    async def _send_again(
        self, commands: Sequence[Sequence[Argument]], error: RedisError | OSError
    ) -> list[Any]:
        """Send commands that failed again: after silence once, after a lost connection for 2 s."""
        silences = refusals = 0
        while True:
            if isinstance(error, RedisTimeoutError):
                silences += 1
            elif isinstance(error, RedisConnectionError | OSError):
                refusals += 1
            else:
                raise error
            if silences > 1 or refusals > _RETRIES:
                raise error
            await asyncio.sleep(_BACKOFF.compute(refusals) if refusals else 0)
            try:
                return await self._multiplexer.send(commands)
            except (RedisError, OSError) as again:
                error = again

    def dedicated(self) -> AbstractConnection:
        """A separate connection for pub/sub, not yet connected and without a read timeout."""
        made: AbstractConnection = self._pool.connection_class(**self._pool.connection_kwargs)
        return made

    def now(self) -> float:
        """Unix seconds by Redis's clock, as of the last `set_clock`."""
        return time.time() + self._clock_offset_s

    def set_clock(self, redis_now: float) -> None:
        """Set the clock to Redis's time (unix seconds), so that skewed machines agree."""
        self._clock_offset_s = redis_now - time.time()


def _keys_of(command: Sequence[Argument]) -> Sequence[str]:
    """The keys of a command that uses one, or of a script."""
    if command[0] in ("EVALSHA", "EVAL"):
        return [str(key) for key in command[3 : 3 + int(str(command[2]))]]
    return [str(command[2 if command[0] == "MEMORY" else 1])] if len(command) > 1 else []


async def until_redis_answers(settings: RelaySettings, report: Callable[[str], None]) -> None:
    """Return once Redis answers a PING; retries for as long as it does not, with growing pauses.

    `report` gets one sentence after the first failure, and one when Redis answers after all.
    Pauses between two attempts grow from 0.25 s to 5 s; an attempt itself is bounded by
    `FLEET_COMMAND_TIMEOUT_S`.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        async with Connection.open(settings) as connection:
            try:
                await connection.ping()
            except RelayUnavailable as error:
                if pause_s == _FIRST_PAUSE_S:
                    report(f"{error} at {address(settings)}: waiting for it (FLEET_REDIS_URL)")
            else:
                if pause_s > _FIRST_PAUSE_S:
                    report(f"Redis answers at {address(settings)}")
                return
        await asyncio.sleep(pause_s)
        pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
