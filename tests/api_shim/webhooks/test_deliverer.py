"""Ends of jobs and batches reach receivers, signed, in order, and at least once.

Subjects: api_shim/webhooks/deliverer.py, api_shim/webhooks/posting.py,
relay/webhooks/delivery_queue.py, relay/webhooks/notices.py.
"""

import asyncio
import base64
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from openai import OpenAI
from pydantic import SecretStr
from standardwebhooks import WebhookVerificationError
from support.receiver import Receiver, receiver
from support.redis_server import RedisServer
from support.shim import CHAT, Stage, problem, serving, stage

from api_shim.webhooks.posting import signed
from contract.events import Delta, Done
from outbound.public_web import is_public
from telemetry import repeated_warnings

PATH = "/api/v1/webhooks"
QUICK = {"private_webhooks": True, "webhook_retry_s": 0.05, "renew_s": 0.2, "lease_s": 1}


@pytest.fixture
def shim(own_redis: RedisServer) -> Iterator[str]:
    with serving(own_redis.url, **QUICK) as url:
        yield url


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def registered(shim: str, hook: Receiver, **fields: Any) -> dict[str, Any]:
    answer = httpx.post(f"{shim}{PATH}", json={"url": hook.url, **fields})
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def enqueued(at: Stage, **fields: Any) -> str:
    answer = await at.http.post("/api/v1/jobs/chat", json=CHAT | fields)
    assert answer.status_code == 202, answer.text
    told: str = answer.json()["id"]
    return told


async def got(hook: Receiver, count: int) -> list[Any]:
    return await asyncio.to_thread(hook.wait_for, count)


async def test_ends_are_posted_in_their_order_and_verified(
    shim: str, own_redis: RedisServer, hook: Receiver
) -> None:
    webhook = registered(shim, hook)
    async with stage(shim, own_redis.url) as at:
        await at.announce()
        ids = [await enqueued(at) for _ in range(4)]
        await at.http.delete(f"/api/v1/jobs/{ids[1]}")  # which waits
        for _ in range(3):
            await at.relay.run(await at.relay.claim())
        received = await got(hook, 4)
        deliveries = (await at.http.get(f"{PATH}/{webhook['id']}/deliveries")).json()["deliveries"]

    events = [each.verified(webhook["secret"]) for each in received]
    assert [each["type"] for each in events] == ["job.cancelled", *["job.done"] * 3]
    assert [each["data"]["id"] for each in events] == [ids[1], ids[0], ids[2], ids[3]]
    assert events[1]["data"]["status"] == "done"
    assert (events[1]["data"]["kind"], events[1]["data"]["model"]) == ("chat", "m")
    assert [each.id for each in received] == [each["id"] for each in reversed(deliveries)]
    assert {each["state"] for each in deliveries} == {"delivered"}
    with pytest.raises(WebhookVerificationError):
        received[0].verified("whsec_" + "A" * 44)


async def test_a_receiver_that_is_down_for_a_while_gets_all_in_order_with_their_ids(
    shim: str, own_redis: RedisServer, hook: Receiver
) -> None:
    webhook = registered(shim, hook)
    answers = iter([(503, {"Retry-After": "1"}), None, (500, {})])
    hook.answer = lambda _: next(answers, (200, {}))
    async with stage(shim, own_redis.url) as at:
        await at.announce()
        ids = [await enqueued(at) for _ in range(3)]
        for _ in ids:
            await at.relay.run(await at.relay.claim())
        began = asyncio.get_running_loop().time()
        received = await got(hook, 6)
        passed = asyncio.get_running_loop().time() - began
        deliveries = (await at.http.get(f"{PATH}/{webhook['id']}/deliveries")).json()["deliveries"]

    assert [each.subject for each in received] == [ids[0]] * 4 + ids[1:]
    assert len({each.id for each in received[:4]}) == 1
    assert passed > 0.9  # it had asked for a second
    assert [each["tries"] for each in reversed(deliveries)] == [4, 1, 1]


async def test_while_a_secret_is_replaced_both_verify(
    shim: str, own_redis: RedisServer, hook: Receiver
) -> None:
    webhook = registered(shim, hook)
    async with stage(shim, own_redis.url) as at:
        await at.announce()
        renewed = (await at.http.post(f"{PATH}/{webhook['id']}/rotate")).json()
        await enqueued(at)
        await at.relay.run(await at.relay.claim())
        both = (await got(hook, 1))[0]
        last = (await at.http.post(f"{PATH}/{webhook['id']}/rotate", json={"overlap_s": 0})).json()
        await enqueued(at)
        await at.relay.run(await at.relay.claim())
        one = (await got(hook, 2))[1]

    assert both.verified(webhook["secret"]) == both.verified(renewed["secret"])
    assert both.headers["webhook-signature"].count("v1,") == 2
    assert one.verified(last["secret"])["type"] == "job.done"
    with pytest.raises(WebhookVerificationError):
        one.verified(renewed["secret"])


async def test_410_disables_and_what_comes_is_listed_and_can_be_replayed(
    shim: str, own_redis: RedisServer, hook: Receiver
) -> None:
    webhook = registered(shim, hook)
    path = f"{PATH}/{webhook['id']}"
    hook.answer = lambda _: (410, {})
    async with stage(shim, own_redis.url) as at:
        await at.announce()
        first, second = await enqueued(at), await enqueued(at)
        await at.relay.run(await at.relay.claim())
        await got(hook, 1)
        async with asyncio.timeout(5):
            while (disabled := (await at.http.get(path)).json())["disabled_at"] is None:
                await asyncio.sleep(0.02)
        await at.relay.run(await at.relay.claim())
        async with asyncio.timeout(5):
            while len(listed := (await at.http.get(f"{path}/deliveries")).json()["deliveries"]) < 2:
                await asyncio.sleep(0.02)
        refused = await at.http.post(f"{path}/replay", json={"since": 0})
        hook.answer = lambda _: (200, {})
        await at.http.patch(path, json={"enabled": True})
        replayed = (await at.http.post(f"{path}/replay", json={"since": 0})).json()
        received = await got(hook, 3)
        one = (await at.http.post(f"{path}/replay", json={"id": received[0].id})).json()
        again = await got(hook, 4)

    assert "410" in disabled["disabled_reason"]
    assert [each["state"] for each in listed] == ["dropped", "failed"]
    assert "disabled" in listed[0]["error"]
    assert refused.status_code == 422
    assert (replayed["replayed"], one["replayed"]) == (2, 1)
    assert [each.subject for each in again] == [first, first, second, first]
    assert again[3].id == again[0].id


async def test_repeated_failure_disables_with_the_reason(
    own_redis: RedisServer, hook: Receiver
) -> None:
    hook.answer = lambda _: (302, {"Location": "http://127.0.0.1/elsewhere"})
    with serving(own_redis.url, **QUICK, webhook_tries=2, webhook_failures=2) as shim:
        webhook = registered(shim, hook)
        async with stage(shim, own_redis.url) as at:
            await at.announce()
            for _ in range(3):
                await enqueued(at)
                await at.relay.run(await at.relay.claim())
            async with asyncio.timeout(5):
                while True:
                    told = (await at.http.get(f"{PATH}/{webhook['id']}")).json()
                    if told["disabled_at"] and not told["waiting"]:
                        break
                    await asyncio.sleep(0.02)
            listed = (await at.http.get(f"{PATH}/{webhook['id']}/deliveries")).json()["deliveries"]

    assert "2 deliveries in a row" in told["disabled_reason"]
    assert "redirects are not followed" in told["disabled_reason"]
    assert told["waiting"] == 0
    assert [each["state"] for each in listed] == ["dropped", "failed", "failed"]
    assert len(hook.received) == 4


async def test_a_stuck_receiver_holds_back_only_itself(
    shim: str, own_redis: RedisServer, hook: Receiver
) -> None:
    with receiver() as stuck:
        held = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold(_: object) -> None:
            asyncio.run_coroutine_threadsafe(held.wait(), loop).result()

        stuck.answer = hold
        registered(shim, stuck)
        registered(shim, hook)
        async with stage(shim, own_redis.url) as at:
            await at.announce()
            for _ in range(3):
                await enqueued(at)
                await at.relay.run(await at.relay.claim())
            received = await got(hook, 3)
            held.set()

    assert len(received) == 3
    assert len(stuck.received) == 1


def _name_of_this_machine() -> str:
    """A name that is resolved to private addresses alone."""
    name = socket.gethostname()
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(name, 80)}
    except OSError:
        found = set()
    if not found or any(is_public(str(each)) for each in found):
        pytest.skip("the name of this machine is not that of a private address")
    return name


async def test_a_private_address_is_refused_at_once_and_a_name_of_one_at_each_delivery(
    own_redis: RedisServer, hook: Receiver
) -> None:
    port = hook.url.rpartition(":")[2]
    with serving(own_redis.url, **(QUICK | {"private_webhooks": False}), webhook_tries=1) as shim:
        refused = httpx.post(f"{shim}{PATH}", json={"url": hook.url})
        url = f"http://{_name_of_this_machine()}:{port}"
        named = httpx.post(f"{shim}{PATH}", json={"url": url}).json()
        async with stage(shim, own_redis.url) as at:
            await at.announce()
            await enqueued(at)
            await at.relay.run(await at.relay.claim())
            async with asyncio.timeout(5):
                while (
                    not (told := (await at.http.get(f"{PATH}/{named['id']}/deliveries")).json())[
                        "deliveries"
                    ]
                    or told["deliveries"][0]["state"] == "waiting"
                ):
                    await asyncio.sleep(0.02)
            moved = await at.http.patch(f"{PATH}/{named['id']}", json={"url": hook.url})

    for each in (refused, moved):
        assert (
            "url: 127.0.0.1 is not a public address"
            in problem(each, 422, "invalid_request")["detail"]
        )
    assert "no public address" in told["deliveries"][0]["error"]
    assert hook.received == []


async def test_a_response_has_openais_events_where_they_are_wanted(
    shim: str, own_redis: RedisServer, hook: Receiver
) -> None:
    webhook = registered(shim, hook, events=["response.*"])
    async with stage(shim, own_redis.url) as at:
        await at.announce()
        await enqueued(at)  # no response
        created = (
            await at.http.post(
                "/v1/responses", json={"model": "m", "input": "hi", "background": True}
            )
        ).json()
        for _ in range(2):
            await at.relay.run(await at.relay.claim())
        received = (await got(hook, 1))[0]

    client = OpenAI(api_key="none", base_url=shim, webhook_secret=webhook["secret"])
    event = client.webhooks.unwrap(received.body.decode(), received.headers)
    assert type(event).__name__ == "ResponseCompletedWebhookEvent"
    assert (event.type, event.object, event.data.id) == (
        "response.completed", "event", created["id"],
    )  # fmt: skip
    assert len(hook.received) == 1


async def test_a_refusal_is_a_response_that_is_complete_for_everybody(
    shim: str, own_redis: RedisServer, hook: Receiver
) -> None:
    registered(shim, hook, events=["response.*"])
    async with stage(shim, own_redis.url) as at:
        await at.announce()
        body = {"model": "m", "input": "hi", "background": True}
        created = (await at.http.post("/v1/responses", json=body)).json()
        attempt_log = at.relay.attempt_log(await at.relay.claim())
        attempt_log.append(Delta(refusal="I won't say that."))
        attempt_log.append(Done(finish_reason="content_filter"))
        await attempt_log.flush()
        received = (await got(hook, 1))[0]
        whole = (await at.http.get(f"/v1/responses/{created['id']}")).json()

    assert (received.type, whole["status"]) == ("response.completed", "completed")


async def test_a_new_address_is_tried_at_once(own_redis: RedisServer, hook: Receiver) -> None:
    with serving(own_redis.url, **QUICK | {"webhook_retry_s": 60}) as shim:
        made = httpx.post(f"{shim}{PATH}", json={"url": "http://127.0.0.1:1/"}).json()
        async with stage(shim, own_redis.url) as at, asyncio.timeout(20):
            await at.announce()
            job = await enqueued(at)
            await at.relay.run(await at.relay.claim())
            path = f"{PATH}/{made['id']}"
            while not (await at.http.get(path)).json()["tries"]:
                await asyncio.sleep(0.02)
            await at.http.patch(path, json={"url": hook.url})
            received = await got(hook, 1)

    assert received[0].verified(made["secret"])["data"]["id"] == job


async def test_nothing_is_posted_without_a_signature(
    own_redis: RedisServer, hook: Receiver
) -> None:
    with serving(own_redis.url, **QUICK | {"webhook_retry_s": 60}) as shim:
        made = registered(shim, hook)
        with redis.Redis.from_url(own_redis.url) as client:
            client.delete("fleet:t:default:webhook:secrets")
        async with stage(shim, own_redis.url) as at, asyncio.timeout(20):
            await at.announce()
            await enqueued(at)
            await at.relay.run(await at.relay.claim())
            error = ""
            while not error:
                error = (await at.http.get(f"{PATH}/{made['id']}")).json()["error"]

    assert "its secret is gone" in error
    assert hook.received == []


async def test_a_defect_of_one_receiver_is_met_again_only_after_a_pause(
    own_redis: RedisServer,
    hook: Receiver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repeated_warnings, "_EVERY_S", 0.0)
    with serving(own_redis.url, **QUICK | {"webhook_retry_s": 0.3}) as shim:
        webhook = registered(shim, hook)
        with redis.Redis.from_url(own_redis.url) as client:
            client.hset("fleet:t:default:webhook:secrets", webhook["id"], "damaged")
        async with stage(shim, own_redis.url) as at, asyncio.timeout(10):
            await at.announce()
            await enqueued(at)
            await at.relay.run(await at.relay.claim())
            met: list[float] = []
            while len(met) < 2:
                await asyncio.sleep(0.02)
                met = [each.created for each in caplog.records if "webhooks wait" in each.msg]

    assert met[1] - met[0] > 0.25
    assert hook.received == []


async def test_an_answer_whose_body_breaks_off_is_an_answer(
    own_redis: RedisServer, shim: str
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nthan")
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, stage(shim, own_redis.url) as at, asyncio.timeout(10):
        await at.announce()
        made = (await at.http.post(PATH, json={"url": url})).json()
        await enqueued(at)
        await at.relay.run(await at.relay.claim())
        listed: list[Any] = []
        while not listed or listed[0]["state"] == "waiting":
            told = await at.http.get(f"{PATH}/{made['id']}/deliveries")
            listed = told.json()["deliveries"]

    assert [(each["state"], each["status"]) for each in listed] == [("delivered", 200)]


async def test_a_request_names_its_own_address(
    shim: str, own_redis: RedisServer, hook: Receiver
) -> None:
    async with stage(shim, own_redis.url) as at:
        await at.announce()
        unsigned = await at.http.post("/api/v1/jobs/chat", json=CHAT | {"callback_url": hook.url})
        secret = (await at.http.post(f"{PATH}/callbacks/rotate")).json()["secret"]
        mine = f"{hook.url}?job=1"
        named = await enqueued(at, callback_url=mine)
        quiet = await enqueued(at)
        body = {"model": "m", "input": "hi", "background": True, "metadata": {"webhook": hook.url}}
        response = (await at.http.post("/v1/responses", json=body)).json()
        headers = {"X-Fleet-Webhook": f"{hook.url}/header"}
        third = (await at.http.post("/api/v1/jobs/chat", json=CHAT, headers=headers)).json()["id"]
        for _ in range(4):
            await at.relay.run(await at.relay.claim())
        received = {each.path: each for each in await got(hook, 3)}
        listed = (await at.http.get(f"{PATH}/callbacks/deliveries")).json()["deliveries"]

    assert unsigned.status_code == 422
    assert "webhooks/callbacks/rotate" in unsigned.json()["detail"]
    assert received["/hooks?job=1"].verified(secret)["data"]["id"] == named
    assert received["/hooks"].verified(secret)["data"]["id"] == response["id"]
    assert received["/hooks"].type == "response.completed"
    assert received["/hooks/header"].subject == third
    assert quiet not in {each.subject for each in hook.received}
    assert {each["url"] for each in listed} == {mine, hook.url, f"{hook.url}/header"}


async def test_a_batch_is_posted_as_openai_does(
    shim: str, own_redis: RedisServer, hook: Receiver
) -> None:
    webhook = registered(shim, hook, events=["job.*", "batch.*"])
    async with stage(shim, own_redis.url) as at:
        await at.announce()
        secret = (await at.http.post(f"{PATH}/callbacks/rotate")).json()["secret"]
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}
        data = json.dumps(line).encode()
        file = await at.http.post(
            "/v1/files", files={"file": ("in.jsonl", data)}, data={"purpose": "batch"}
        )
        made = await at.http.post(
            "/v1/batches",
            json={
                "input_file_id": file.json()["id"],
                "endpoint": "/v1/chat/completions",
                "metadata": {"webhook": f"{hook.url}/mine"},
            },
        )
        async with asyncio.timeout(10):
            while (claim := await at.relay.start_next("scripted.chat", "w1")) is None:
                await asyncio.sleep(0.02)
        await at.relay.run(claim)
        received = {each.path: each for each in await got(hook, 2)}

    for path, its_secret in (("/hooks", webhook["secret"]), ("/hooks/mine", secret)):
        client = OpenAI(api_key="none", base_url=shim, webhook_secret=its_secret)
        event = client.webhooks.unwrap(received[path].body.decode(), received[path].headers)
        assert type(event).__name__ == "BatchCompletedWebhookEvent"
        assert event.data.id == made.json()["id"]
    assert len(hook.received) == 2  # none of its rows


async def test_the_receiver_of_the_docs_runs_as_it_stands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text()
    found = re.search(r"```python\n(from fastapi.*?)```", text, re.DOTALL)
    assert found is not None
    secret = "whsec_" + base64.b64encode(b"s" * 32).decode()
    names: dict[str, Any] = {}
    exec(found[1].replace("whsec_...", secret), names)
    body = b'{"id": "evt_1", "type": "job.done", "data": {"id": "abc"}}'
    headers = signed("evt_1", body, [SecretStr(secret)], int(time.time()))
    transport = httpx.ASGITransport(names["app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://receiver") as http:
        answers = [await http.post("/hooks", content=body, headers=headers) for _ in range(2)]
        with pytest.raises(WebhookVerificationError):
            await http.post("/hooks", content=body + b" ", headers=headers)

    assert {each.status_code for each in answers} == {200}
    assert capsys.readouterr().out == "job.done abc\n"
