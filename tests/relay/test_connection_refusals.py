"""What a real Redis says while it takes no writes is a reason to wait, not a defect of a script.

Subjects: relay/connection.py, workers/celery_pool/redis_transport.py.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import pytest
from kombu import Connection, Consumer, Queue
from kombu import transport as kombu_transport
from redis.exceptions import ResponseError
from support.redis_server import RedisServer
from support.relay import Relay, relay_on

from contract.errors import RelayFull, RelayUnavailable
from relay.connection import DamagedKey, code_of
from workers.celery_pool.redis_transport import Channel, use_for_redis

pytestmark = pytest.mark.timeout(60)
WRITE: Final = "return redis.call('SET', KEYS[1], '1')"
SPIN: Final = "while redis.call('GET', KEYS[1]) == false do end return 1"
REPLICA: Final = ("REPLICAOF", "127.0.0.1", "1")
STATES: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "OOM": (("CONFIG", "SET", "maxmemory", "1"),),
    "NOREPLICAS": (("CONFIG", "SET", "min-replicas-to-write", "1"),),
    "READONLY": (REPLICA,),
    "MASTERDOWN": (REPLICA, ("CONFIG", "SET", "replica-serve-stale-data", "no")),
    "MISCONF": (("CONFIG", "SET", "appendonly", "no", "save", "3600 1"), ("BGSAVE",)),
    "BUSY": (("CONFIG", "SET", "busy-reply-threshold", "1"),),
}
"""How a server comes to refuse writes with this code."""
USUAL: Final = ("maxmemory", "0", "min-replicas-to-write", "0", "save", "")


@asynccontextmanager
async def refusing(server: RedisServer, code: str) -> AsyncIterator[None]:
    """The server refuses writes with this code in this context."""
    (server.folder / "dump.rdb").mkdir()  # nothing can be saved there
    for words in STATES[code]:
        assert server.say(*words).startswith(b"+")
    spinning = asyncio.create_task(asyncio.to_thread(spin, server, code))
    try:
        while not server.say("SET", "k", "v").startswith(f"-{code[:8]}".encode()):
            if code == "MASTERDOWN":
                break
            await asyncio.sleep(0.01)
        yield
    finally:
        server.say("SCRIPT", "KILL")
        await spinning
        server.say("REPLICAOF", "NO", "ONE")
        assert server.say("CONFIG", "SET", *USUAL) == b"+OK\r\n"


def spin(server: RedisServer, code: str) -> None:
    if code == "BUSY":
        server.say("EVAL", SPIN, "1", "none")


@pytest.mark.parametrize("code", STATES)
async def test_it_is_unavailable_for_commands_and_scripts_and_no_key_is_damaged(
    code: str, own_redis: RedisServer
) -> None:
    async with relay_on(own_redis.url) as relay:
        await relay.connection.command("SET", "before", "1")
        async with refusing(own_redis, code):
            ours = [await refused(relay, way) for way in ("command", "script")]
        await relay.connection.run(WRITE, ["k"])

    assert [type(error) for error in ours] == [
        RelayFull if code in {"OOM", "MISCONF"} else RelayUnavailable
    ] * 2
    causes = [error.__cause__ for error in ours]
    assert [code_of(cause) for cause in causes if isinstance(cause, Exception)] == (
        [code] * 2 if code != "MASTERDOWN" else ["READONLY", code]
    )


async def refused(relay: Relay, way: str) -> RelayUnavailable:
    connection = relay.connection
    write = (
        connection.command("SET", "k", "v") if way == "command" else connection.run(WRITE, ["k"])
    )
    with pytest.raises(RelayUnavailable) as told:
        await write
    assert not isinstance(told.value, DamagedKey)
    return told.value


@pytest.fixture
def channel_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Connection], Channel]:
    # kombu caches the transport of a scheme: other tests of this process must keep theirs.
    monkeypatch.setattr(kombu_transport, "_transport_cache", {})
    for scheme in ("redis", "rediss"):
        monkeypatch.setitem(kombu_transport.TRANSPORT_ALIASES, scheme, "set by use_for_redis")
    use_for_redis()

    def make(connection: Connection) -> Channel:
        channel: Channel = connection.channel()
        Consumer(channel, [Queue("texts", no_declare=True)], callbacks=[print]).consume()
        channel.client.connection = channel.client.connection_pool.get_connection()
        return channel

    return make


@pytest.mark.parametrize(
    ("code", "becomes"),
    [
        ("NOREPLICAS", "NOREPLICAS"),
        ("READONLY", "READONLY"),
        ("MISCONF", "MISCONF"),
        ("BUSY", "BUSY"),
        ("UNBLOCKED", "READONLY"),
    ],
)
async def test_a_worker_waits_for_its_tickets_meanwhile(
    code: str,
    becomes: str,
    own_redis: RedisServer,
    channel_of: Callable[[Connection], Channel],
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = {"ack_emulation": False, "socket_timeout": 5, "task_queues": ("texts",)}
    with Connection(own_redis.url, transport_options=options) as connection:
        channel = channel_of(connection)
        if code == "UNBLOCKED":
            channel._brpop_start()
            while b"blocked_clients:1" not in own_redis.say("INFO", "clients"):
                await asyncio.sleep(0.01)
        async with refusing(own_redis, becomes):
            if code != "UNBLOCKED":
                channel._brpop_start()
            found = channel._answer({})
        channel._in_poll = False

    assert found is None
    warned = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert ["no tickets are received" in message for message in warned] == [True]


def test_the_code_of_an_error_without_a_class_is_in_its_text() -> None:
    assert code_of(ResponseError("WRONGTYPE Operation against a key")) == "WRONGTYPE"
