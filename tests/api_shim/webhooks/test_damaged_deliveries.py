"""A damaged key of one receiver, or a damaged entry, keeps nobody else's events back.

Subjects: relay/webhooks/delivery_queue.py, api_shim/webhooks/deliverer.py.
"""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from support.keys import Keyed, keyed
from support.receiver import Receiver, receiver
from support.redis_server import RedisServer
from support.shim import CHAT, Stage, stage

PATH = "/api/v1/webhooks"


@pytest.fixture
def shim(own_redis: RedisServer) -> Iterator[Keyed]:
    quick = {"private_webhooks": True, "webhook_retry_s": 0.05, "renew_s": 0.2, "lease_s": 1}
    with keyed(own_redis.url, **quick) as made:
        yield made


@pytest.fixture
def receivers() -> Iterator[tuple[Receiver, Receiver]]:
    """Those of the tenants red and blue."""
    with receiver() as red, receiver() as blue:
        yield red, blue


async def ended(at: Stage, shim: Keyed, key: str, count: int = 1) -> list[str]:
    """Jobs of a caller that a worker ends."""
    at.http.headers["authorization"] = f"Bearer {key}"
    answers = [await at.http.post("/api/v1/jobs/chat", json=CHAT) for _ in range(count)]
    for _ in answers:
        await at.relay.run(await at.relay.claim())
    return [str(each.json()["id"]) for each in answers]


async def told(at: Receiver, ids: list[str]) -> None:
    """Wait until a receiver got these, each once."""
    async with asyncio.timeout(5):
        while not {*ids} <= {each.subject for each in list(at.received)}:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("fleet:webhook:red/{id}:queue", False),
        ("fleet:webhook:red/{id}:deliveries", True),
        ("fleet:webhook:red/webhooks:due", False),
    ],
)
async def test_a_damaged_key_of_a_receiver_keeps_no_others_waiting(
    shim: Keyed,
    own_redis: RedisServer,
    receivers: tuple[Receiver, Receiver],
    caplog: pytest.LogCaptureFixture,
    *,
    name: str,
    whole: bool,
) -> None:
    reds, blues = receivers
    caplog.set_level(logging.WARNING, "relay.connection")
    red, blue = (shim.issue(each)["key"] for each in ("red", "blue"))
    async with stage(shim.url, own_redis.url) as at:
        at.http.headers["authorization"] = f"Bearer {shim.key}"
        await at.announce()
        hooks: dict[str, Any] = {}
        for key, its in ((red, reds), (blue, blues)):
            headers = {"authorization": f"Bearer {key}"}
            hooks[key] = (await at.http.post(PATH, json={"url": its.url}, headers=headers)).json()
        with Redis.from_url(own_redis.url) as redis:
            damaged = name.format(id=hooks[red]["id"])
            redis.rpush(damaged, "x")
            of_red: list[str] = []
            for _ in range(5):
                of_red += await ended(at, shim, red)
                await told(blues, await ended(at, shim, blue))
            if whole:
                await told(reds, of_red)
            redis.delete(damaged)
            await told(reds, await ended(at, shim, red))
        listed = (await at.http.get(f"{PATH}/{hooks[red]['id']}/deliveries")).json()

    assert damaged in caplog.text
    assert len({each.id for each in reds.received}) == len(reds.received)
    if not whole:
        dropped = [each["error"] for each in listed["deliveries"] if each["state"] == "dropped"]
        assert len(dropped) == 5
        assert "damaged" in dropped[0]


async def test_an_entry_of_the_far_future_keeps_no_later_ones_waiting(
    shim: Keyed, own_redis: RedisServer, receivers: tuple[Receiver, Receiver]
) -> None:
    _, blues = receivers
    blue = shim.issue("blue")["key"]
    async with stage(shim.url, own_redis.url) as at:
        at.http.headers["authorization"] = f"Bearer {shim.key}"
        await at.announce()
        headers = {"authorization": f"Bearer {blue}"}
        await at.http.post(PATH, json={"url": blues.url}, headers=headers)
        notice = b'{"family":"job","id":"x","tenant":"blue","status":"done","created_at":1}'
        with Redis.from_url(own_redis.url) as redis:
            redis.xadd("fleet:outbox", {"e": notice}, id="999999999999999-0")
            redis.publish("fleet:outbox", "x")
            await told(blues, await ended(at, shim, blue))
            left = redis.xlen("fleet:outbox")

    assert left == 0
