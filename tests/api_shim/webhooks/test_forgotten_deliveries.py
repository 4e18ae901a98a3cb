"""Of a job with a retention of its own, no list of deliveries keeps what its request said.

Subjects: relay/lua/shared/webhook.lua, relay/webhooks/notices.py, api_shim/webhooks/routes.py.
"""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from support.receiver import Receiver, receiver
from support.redis_server import RedisServer
from support.shim import CHAT, Stage, problem, serving, stage

from contract.events import Done, Event, Failed

PATH = "/api/v1/webhooks"
SECRET = "room-41"
QUICK = {"private_webhooks": True, "webhook_retry_s": 0.05, "webhook_tries": 2, "renew_s": 0.2}


@pytest.fixture
def shim(own_redis: RedisServer) -> Iterator[str]:
    with serving(own_redis.url, **QUICK) as url:
        yield url


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


async def ended(at: Stage, event: Event, **fields: object) -> None:
    """A job with these fields, which has ended with this event."""
    body = {**CHAT, "messages": [{"role": "user", "content": SECRET}], **fields}
    answer = await at.http.post("/api/v1/jobs/chat", json=body)
    assert answer.status_code == 202, answer.text
    attempt_log = at.relay.attempt_log(await at.relay.claim())
    attempt_log.append(event)
    await attempt_log.flush()


async def holding(server: RedisServer) -> list[str]:
    """Keys of webhooks, and the outbox, that hold the secret."""
    keys = [key for key in server.say("KEYS", "fleet:*").decode().split() if "webhook" in key]
    reads = {"stream": ("XRANGE", "-", "+"), "hash": ("HGETALL",)}
    found = []
    for key in [*keys, "fleet:outbox"]:
        read = reads.get(server.say("TYPE", key).decode().strip())
        if read and SECRET in server.say(read[0], key, *read[1:]).decode():
            found.append(key)
    return found


async def listed(at: Stage, webhook: str, count: int) -> list[dict[str, object]]:
    """The deliveries of a webhook, once so many have ended."""
    async with asyncio.timeout(5):
        while True:
            answer = await at.http.get(f"{PATH}/{webhook}/deliveries")
            found = [each for each in answer.json()["deliveries"] if each["state"] != "waiting"]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("retention", ["none", 600])
async def test_an_address_that_a_request_named_is_forgotten(
    shim: str, own_redis: RedisServer, hook: Receiver, retention: object
) -> None:
    async with stage(shim, own_redis.url) as at:
        await at.announce()
        await at.http.post(f"{PATH}/callbacks/rotate")
        for url in (f"{hook.url}/{SECRET}", f"http://{SECRET}.invalid/"):
            await ended(at, Done(), callback_url=url, retention=retention)
        found = await listed(at, "callbacks", 2)
        ids = {str(each["id"]) for each in found}
        again = [await at.http.post(f"{PATH}/callbacks/replay", json={"id": id}) for id in ids]
        since = await at.http.post(f"{PATH}/callbacks/replay", json={"since": 0})
        left = await holding(own_redis)

    assert sorted(str(each["state"]) for each in found) == ["delivered", "failed"]
    assert {each.get("url") for each in found} == {None}
    assert left == []
    assert all("retention" in problem(each, 422, "invalid_request")["detail"] for each in again)
    assert since.json() == {"replayed": 0, "dropped": 0}


async def test_the_text_of_an_error_is_forgotten_and_other_events_can_be_replayed(
    shim: str, own_redis: RedisServer, hook: Receiver
) -> None:
    webhook = httpx.post(f"{shim}{PATH}", json={"url": hook.url}).json()["id"]
    async with stage(shim, own_redis.url) as at:
        await at.announce()
        await ended(at, Done(), retention="none")
        await ended(at, Failed(code="c", message=SECRET), retention="none")
        made = await at.http.post("/api/v1/jobs/chat", json={**CHAT, "retention": "none"})
        await at.relay.queue.cancel(made.json()["id"], by="caller", reason=SECRET)
        await listed(at, webhook, 3)
        left = await holding(own_redis)
        since = await at.http.post(f"{PATH}/{webhook}/replay", json={"since": 0})

    assert SECRET in "".join(str(each.body) for each in hook.received)
    assert left == []
    assert since.json() == {"replayed": 1, "dropped": 0}


async def test_of_other_jobs_all_is_listed(
    shim: str, own_redis: RedisServer, hook: Receiver
) -> None:
    async with stage(shim, own_redis.url) as at:
        await at.announce()
        await at.http.post(f"{PATH}/callbacks/rotate")
        await ended(at, Done(), callback_url=hook.url)
        (one,) = await listed(at, "callbacks", 1)

    assert one["url"] == hook.url
