"""Webhooks over HTTP: what is refused, whose they are, and that their secrets are shown once.

Subjects: api_shim/webhooks/routes.py, relay/webhooks/webhook_store.py,
contract/webhooks/webhook_models.py.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis
from support.keys import Keyed, keyed
from support.redis_server import RedisServer
from support.shim import CHAT, problem

PATH = "/api/v1/webhooks"
URL = "https://example.com/hooks"


@pytest.fixture
def fleet(own_redis: RedisServer) -> Iterator[Keyed]:
    with keyed(own_redis.url) as shim:
        yield shim


async def test_a_tenant_sees_and_changes_its_own_webhooks_alone(fleet: Keyed) -> None:
    async with fleet.caller("ada") as ada, fleet.caller("ben") as ben, fleet.admin as admin:
        made = (await ada.post(PATH, json={"url": URL, "name": "mine"})).json()
        path = f"{PATH}/{made['id']}"
        lists = [(await each.get(PATH)).json()["webhooks"] for each in (ada, ben, admin)]
        refused = [
            await ben.get(path),
            await ben.patch(path, json={"name": "his"}),
            await ben.delete(path),
            await ben.post(f"{path}/rotate"),
            await ben.get(f"{path}/deliveries"),
            await ben.post(f"{path}/replay", json={"since": 0}),
        ]
        gone = await ada.delete(path)
        after = (await ada.get(PATH)).json()["webhooks"]

    assert [[each["name"] for each in found] for found in lists] == [["mine"], [], []]
    assert {problem(each, 404, "webhook_not_found")["status"] for each in refused} == {404}
    assert gone.status_code == 204
    assert after == []


async def test_a_secret_is_in_the_answer_that_makes_it_alone(
    fleet: Keyed, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with fleet.caller("ada") as ada:
        made = await ada.post(PATH, json={"url": URL})
        rotated = await ada.post(f"{PATH}/{made.json()['id']}/rotate", json={"overlap_s": 60})
        first = (await ada.post(f"{PATH}/callbacks/rotate")).json()["secret"]
        shown = (await ada.get(PATH)).text + (await ada.get(f"{PATH}/callbacks")).text
    secrets = [made.json()["secret"], rotated.json()["secret"], first]
    table = own_redis.say("HGETALL", "fleet:webhooks").decode()

    assert made.headers["cache-control"] == "no-store"
    assert len(set(secrets)) == 3
    assert all(each.startswith("whsec_") and len(each) == 50 for each in secrets)
    assert not any(each in shown or each in table or each in caplog.text for each in secrets)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "url"),
        ({"url": "example.com/hooks"}, "give an http or https URL"),
        ({"url": "ftp://example.com"}, "give an http or https URL"),
        ({"url": "https://me:secret@example.com"}, "no user or password"),
        ({"url": "https://example.com/#top"}, "leave out #"),
        ({"url": "https://example.com/\u00fc"}, "visible ASCII"),
        ({"url": "https://b\u00fccher.example/"}, "xn--"),
        ({"url": ""}, "give an http or https URL"),
        ({"url": "https://a..example/"}, "its host"),
        ({"url": f"https://{'a' * 64}.example/"}, "its host"),
        ({"url": "https://%31.example/"}, "its host"),
        ({"url": "https://127.1/"}, "its host"),
        ({"url": "https://example.com:0/"}, "its host"),
        ({"url": "https://[::1"}, "give an http or https URL"),
        ({"url": f"https://example.com/{'a' * 2048}"}, "may have 2048"),
        ({"url": 7}, "url"),
        ({"url": URL, "events": []}, "events"),
        ({"url": URL, "events": ["job.started"]}, "events"),
        ({"url": URL, "events": [{}]}, "events"),
        ({"url": URL, "secret": "whsec_mine"}, "secret"),
        ({"url": URL, "name": "n" * 81}, "name"),
    ],
)
async def test_a_wrong_field_is_named(fleet: Keyed, body: dict[str, Any], words: str) -> None:
    async with fleet.admin as admin:
        told = problem(await admin.post(PATH, json=body), 422, "invalid_request")

    assert words in json.dumps(told)
    assert "secret@" not in json.dumps(told)


@pytest.mark.parametrize("host", ["xn--a", "a.xn--a.example"])
async def test_a_host_that_is_no_name_is_refused(fleet: Keyed, host: str) -> None:
    async with fleet.admin as admin:
        made = (await admin.post(PATH, json={"url": URL})).json()
        for answer in (
            await admin.post(PATH, json={"url": f"http://{host}/"}),
            await admin.patch(f"{PATH}/{made['id']}", json={"url": f"http://{host}/"}),
        ):
            told = problem(answer, 422, "invalid_request")

            assert "with xn-- is no name" in told["detail"]
            assert "FLEET_PRIVATE_WEBHOOKS" not in told["detail"]


async def test_bounds_and_contradictions_are_refused(fleet: Keyed, own_redis: RedisServer) -> None:
    async with fleet.admin as admin:
        made = [await admin.post(PATH, json={"url": f"{URL}/{n}"}) for n in range(21)]
        path = f"{PATH}/{made[0].json()['id']}"
        empty = await admin.post(f"{path}/replay", json={})
        both = await admin.post(f"{path}/replay", json={"id": f"evt_{'0' * 32}", "since": 1})
        unknown = await admin.post(f"{path}/replay", json={"id": f"evt_{'0' * 32}"})
        callbacks = await admin.patch(f"{PATH}/callbacks", json={"enabled": False})
        ids = [await admin.get(f"{PATH}/{id}") for id in ("x", "wh_" + "0" * 24, "callbacks")]

    assert [each.status_code for each in made] == [201] * 20 + [422]
    assert "20 webhooks" in made[-1].json()["detail"]
    with redis.Redis.from_url(own_redis.url) as client:
        assert [client.hlen(key) for key in client.scan_iter("fleet:t:*:webhook:secrets")] == [20]
    for refused in (empty, both, callbacks):
        problem(refused, 422, "invalid_request")
    for missing in (unknown, *ids):
        problem(missing, 404, "webhook_not_found")


async def test_it_is_turned_off_and_on_and_keeps_the_rest(fleet: Keyed) -> None:
    async with fleet.admin as admin:
        made = (await admin.post(PATH, json={"url": URL, "events": ["batch.*"]})).json()
        path = f"{PATH}/{made['id']}"
        off = (await admin.patch(path, json={"enabled": False})).json()
        on = (await admin.patch(path, json={"enabled": True, "name": "n"})).json()

    assert off["disabled_reason"] == "its owner has disabled it"
    assert (on["disabled_at"], on["events"], on["url"], on["name"]) == (None, ["batch.*"], URL, "n")


async def test_a_key_needs_the_permission(fleet: Keyed) -> None:
    key = fleet.issue("ada", permissions=["chat"])["key"]
    answer = httpx.get(f"{fleet.url}{PATH}", headers={"authorization": f"Bearer {key}"})

    assert problem(answer, 403, "not_allowed")["permission"] == "webhooks"


@pytest.mark.parametrize("path", ["/api/v1/jobs/chat", "/v1/chat/completions", "/v1/responses"])
async def test_a_wrong_address_in_the_header_is_refused(fleet: Keyed, path: str) -> None:
    body = {"model": "m", "input": "hi"} if path == "/v1/responses" else CHAT
    async with fleet.admin as admin:
        answer = await admin.post(path, json=body, headers={"X-Fleet-Webhook": "nowhere"})

    assert answer.status_code in {400, 422}
    assert "http or https" in answer.text


async def test_a_refused_callback_is_named_as_the_client_has_named_it(fleet: Keyed) -> None:
    body = {"model": "m", "input": "x", "messages": [{"role": "user", "content": "x"}]}
    noted = body | {"metadata": {"webhook": URL}}
    header = {"X-Fleet-Webhook": URL}
    async with fleet.admin as admin:
        openai = [
            (await admin.post(path, json=json, headers=headers)).json()["error"]
            for path in ("/v1/chat/completions", "/v1/responses")
            for json, headers in ((noted, {}), (body, header))
        ]
        native = await admin.post(
            "/api/v1/jobs/embed", json={"model": "m", "input": ["x"], "callback_url": URL}
        )

    names = ["metadata.webhook", "X-Fleet-Webhook"]
    assert [each["param"] for each in openai] == names * 2
    assert all(each["message"].startswith(f"{each['param']}: tenant ") for each in openai)
    (named,) = native.json()["errors"]
    assert (named["field"], named["where"]) == ("callback_url", "body")
    assert native.json()["detail"].startswith("callback_url: tenant ")


async def test_a_batch_with_a_wrong_address_or_without_a_secret_is_refused(fleet: Keyed) -> None:
    body = {"input_file_id": f"file-{'0' * 32}", "endpoint": "/v1/embeddings"}
    async with fleet.admin as admin:
        file = await admin.post(
            "/v1/files", files={"file": ("in.jsonl", b"{}")}, data={"purpose": "batch"}
        )
        body["input_file_id"] = file.json()["id"]
        wrong = await admin.post("/v1/batches", json=body | {"callback_url": "nowhere"})
        note = await admin.post("/v1/batches", json=body | {"metadata": {"webhook": "mine"}})
        unsigned = await admin.post("/v1/batches", json=body | {"callback_url": URL})

    assert (wrong.status_code, "http or https" in wrong.text) == (400, True)
    assert note.status_code == 200
    assert (unsigned.status_code, "callbacks/rotate" in unsigned.text) == (400, True)
    assert unsigned.json()["error"]["param"] == "callback_url"
