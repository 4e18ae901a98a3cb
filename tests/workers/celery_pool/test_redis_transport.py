"""Closing the connection that waits for messages, with a real Redis."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from kombu import Connection, Consumer, Queue
from kombu import transport as kombu_transport
from redis import Redis

from workers.celery_pool.redis_transport import Channel, SteadyConnection, use_for_redis


@pytest.fixture
def connection(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    # kombu caches the transport of a scheme: other tests of this process must keep theirs.
    monkeypatch.setattr(kombu_transport, "_transport_cache", {})
    for scheme in ("redis", "rediss"):
        monkeypatch.setitem(kombu_transport.TRANSPORT_ALIASES, scheme, "set by use_for_redis")
    use_for_redis()
    options = {"ack_emulation": False, "socket_timeout": 5, "task_queues": ("texts",)}
    with Connection(redis_url, transport_options=options) as opened:
        yield opened


def waiting_channel(connection: Connection) -> Channel:
    """A channel that waits in BRPOP."""
    channel = connection.channel()
    queue = Queue("texts", no_declare=True)
    Consumer(channel, [queue], callbacks=[lambda _, message: message.ack()]).consume()
    connection.transport.cycle._register_BRPOP(channel)
    return channel


def closing_takes_s(channel: Channel) -> float:
    began_at = time.monotonic()
    channel.close()
    return time.monotonic() - began_at


def test_an_idle_channel_closes_at_once(connection: Connection) -> None:
    channel = waiting_channel(connection)

    assert closing_takes_s(channel) < 2.5


def test_a_reconnected_channel_closes_at_once(connection: Connection) -> None:
    channel = waiting_channel(connection)
    channel.client.connection.disconnect()
    channel._brpop_start()

    assert closing_takes_s(channel) < 2.5


def test_a_message_that_redis_sent_before_the_close_is_delivered(
    connection: Connection, redis_url: str
) -> None:
    delivered: list[object] = []
    channel = waiting_channel(connection)
    connection.transport._callbacks["texts"] = delivered.append
    connection.Producer().publish("late", routing_key="texts", exchange="", serializer="json")
    with Redis.from_url(redis_url) as redis:
        while redis.llen("texts"):
            time.sleep(0.01)
    channel.close()

    assert len(delivered) == 1


def test_a_user_without_the_permission_waits_as_kombu_does(
    connection: Connection, redis_url: str
) -> None:
    with Redis.from_url(redis_url) as redis:
        rules = ["on", "nopass", "allkeys", "allchannels", "+@all", "-client|id"]
        redis.execute_command("ACL", "SETUSER", "limited", *rules)
        try:
            limited = redis_url.replace("redis://", "redis://limited:any@")
            with Connection(limited, transport_options=connection.transport_options) as opened:
                channel = waiting_channel(opened)
                redis.lpush("texts", "{}")

                assert channel._client_id is None
                channel.close()
        finally:
            redis.acl_deluser("limited")


def test_pauses_between_attempts_to_connect_grow_to_five_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    def failed(_error: Exception, pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 20:
            raise StopIteration

    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _s: None)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with SteadyConnection(f"redis://127.0.0.1:{port}/0") as connection, suppress(StopIteration):
        connection.ensure_connection(failed, None, callback=lambda: None)

    assert pauses[:3] == [0.25, 0.75, 1.25]
    assert max(pauses) == pauses[-1] == 4.75
