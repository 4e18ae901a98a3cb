"""The surface's edges: keys, bodies that are too large, streams that were reset, other tenants."""

import asyncio
from typing import Any

import httpx
from support.keys import keyed
from support.message_grammar import checked
from support.redis_server import RedisServer
from support.shim import serving, stage

from contract.events import Delta, Reset

HEADERS = {"anthropic-version": "2023-06-01"}
HELLO: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}


def test_a_key_may_be_in_either_header_and_without_one_the_error_is_anthropics(
    own_redis: RedisServer,
) -> None:
    with keyed(own_redis.url) as at:
        key = at.issue("somebody")["key"]
        said = [
            httpx.get(f"{at.url}/v1/models", headers={**HEADERS, **given})
            for given in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}, {})
        ]

    assert [answer.status_code for answer in said] == [200, 200, 401]
    refused = said[2].json()
    assert (refused["type"], refused["error"]["type"]) == ("error", "authentication_error")
    assert refused["request_id"] == said[2].headers["request-id"]


def test_a_body_that_is_too_large_is_an_error_of_anthropics(redis_url: str) -> None:
    with serving(redis_url, max_body_bytes=2048) as url:
        turn = [{"role": "user", "content": "x" * 4096}]
        answer = httpx.post(f"{url}/v1/messages", json={**HELLO, "messages": turn}, headers=HEADERS)

    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "request_too_large")


def test_the_id_of_a_request_is_in_the_header_without_a_version_too(redis_url: str) -> None:
    with serving(redis_url) as url:
        answer = httpx.post(f"{url}/v1/messages", json={})

    assert answer.status_code == 400
    assert answer.headers["request-id"] == answer.json()["request_id"]


async def test_a_log_that_was_reset_is_told_to_each_cursor_as_far_as_it_holds(
    shim: str, redis_url: str
) -> None:
    stay = {**HEADERS, "X-Fleet-On-Disconnect": "continue"}
    async with stage(shim, redis_url) as at:
        await at.announce()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(at.http.post("/v1/messages", json=HELLO, headers=stay))
            async with asyncio.timeout(5):
                while not (claim := await at.relay.start_next("scripted.chat", "w1")):
                    await asyncio.sleep(0.01)
            old, new = Delta(content="old"), Delta(content="new")
            await at.relay.run(claim, old, Reset(attempt=2, reason="x"), new)
        url = f"/v1/messages/msg_{claim.record.id}"

        async def follow(after: str | None) -> httpx.Response:
            given = {**HEADERS, "Last-Event-ID": after} if after else HEADERS
            return await at.http.get(url, params={"stream": "true"}, headers=given)

        whole, before, behind, at_end, beyond = [
            await follow(after) for after in (None, "1-2", "1-4", "1-5", "3-7")
        ]

        assert asking.result().json()["content"][0]["text"] == "new"
        assert (await at.http.get(url)).json() == asking.result().json()
        assert checked(whole.content).text == "new"
        for lost in (before, beyond):
            told = checked(lost.content, resumed=True)
            assert told.error
            assert told.error["code"] == "answer_restarted"
        assert checked(behind.content, resumed=True).ids == ["1-5"]
        assert at_end.status_code == 204


async def test_another_tenants_message_does_not_exist(own_redis: RedisServer) -> None:
    with keyed(own_redis.url, keepalive_s=0.2) as at:
        async with (
            at.caller("alice") as alice,
            at.caller("bob") as bob,
            stage(at.url, own_redis.url) as scene,
            asyncio.timeout(10),
        ):
            await scene.announce()
            body = {**HELLO, "stream": True}
            async with alice.stream("POST", "/v1/messages", json=body, headers=HEADERS) as answer:
                url = f"/v1/messages/msg_{answer.headers['x-fleet-job']}"
                seen = [(await each.get(url)).status_code for each in (alice, bob)]

    assert seen == [200, 404]
