"""Responses as streams: followed again on any shim, continued, failed, taken back."""

import asyncio
from typing import Any

import httpx
from support.responses import (
    BACKGROUND,
    STREAM,
    asked,
    claimed,
    followed,
    on_stage,
    parsed,
    said,
    seen,
)
from support.shim import Stage, serving

from contract.events import Delta, Done, Failed, Reset, Resumed


async def test_any_shim_follows_a_response_from_any_event_on(shim: str, redis_url: str) -> None:
    # LocalAI #10993: only the replica that has the stream resumes it.
    async with on_stage(shim, redis_url) as at:
        with serving(redis_url) as other:
            told = await asked(at)
            attempt_log = at.relay.attempt_log(await claimed(at))
            async with (
                httpx.AsyncClient(base_url=other, timeout=10) as there,
                asyncio.TaskGroup() as group,
            ):
                reading = group.create_task(followed(there, told["id"]))
                for event in (Delta(content="a"), Delta(thinking="hm"), Delta(content="b"), Done()):
                    attempt_log.append(event)
                    await attempt_log.flush()
                whole = await reading
                here = await followed(at.http, told["id"])
                rest = [await followed(there, told["id"], n) for n in range(len(whole) + 1)]

            assert here == whole
            assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
            # Also to a client that has it: without it, clients raise at the end of the stream.
            assert rest == [whole[n + 1 :] or whole[-1:] for n in range(len(whole) + 1)]
            assert whole[-1]["type"] == "response.completed"


async def test_what_is_not_the_background_can_be_followed_again_too(
    shim: str, redis_url: str
) -> None:
    async with on_stage(shim, redis_url) as at:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(at.http.post("/v1/responses", json=STREAM))
            await at.relay.run(await claimed(at), Delta(content="a"))
            events = parsed((await asking).content)
        id = events[0]["response"]["id"]

        assert await followed(at.http, id) == events
        assert await followed(at.http, id, 3) == events[4:]


async def test_a_stream_begins_before_anybody_works_on_it(shim: str, redis_url: str) -> None:
    async with on_stage(shim, redis_url) as at:
        async with at.http.stream("POST", "/v1/responses", json=STREAM) as response:
            first = await anext(response.aiter_bytes())

        assert parsed(first)[0]["type"] == "response.created"
        assert response.headers["x-fleet-job"] in first.decode()


async def test_a_failure_after_text_is_an_event_with_the_output(shim: str, redis_url: str) -> None:
    async with on_stage(shim, redis_url) as at:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(at.http.post("/v1/responses", json=STREAM))
            attempt_log = at.relay.attempt_log(await claimed(at))
            attempt_log.append(Delta(content="heard"))
            attempt_log.append(Failed(code="server_fault", message="oh"))
            events = parsed((await asking).content)

        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["error"]["type"] == "server_fault"
        assert said(events[-1]["response"]) == "heard"


async def test_a_reset_ends_open_streams_and_later_ones_receive_the_new_text(
    shim: str, redis_url: str
) -> None:
    async with on_stage(shim, redis_url) as at:
        told = await asked(at)
        attempt_log = at.relay.attempt_log(await claimed(at))
        attempt_log.append(Delta(content="old"))
        await attempt_log.flush()
        async with asyncio.TaskGroup() as group:
            hears = asyncio.Event()
            listening = group.create_task(followed_aloud(at, told["id"], hears))
            await hears.wait()
            for event in (Reset(attempt=2, reason=""), Delta(content="new"), Done()):
                attempt_log.append(event)
            heard = await listening
        error, fresh = heard[-1], await followed(at.http, told["id"])
        numbers = [event["sequence_number"] for event in fresh]

        assert (error["type"], error["code"]) == ("error", "answer_restarted")
        assert said(fresh[-1]["response"]) == said(await seen(at, told["id"])) == "new"
        assert fresh[0]["type"] == "response.created"
        assert numbers[0] == error["sequence_number"] + 1
        # Who comes back behind the old words is told so again, behind the error hears the new ones.
        assert await followed(at.http, told["id"], 2) == [error]
        assert await followed(at.http, told["id"], error["sequence_number"]) == fresh
        assert await followed(at.http, told["id"], numbers[3]) == fresh[4:]


async def followed_aloud(at: Stage, id: str, hears: asyncio.Event) -> list[Any]:
    """All events; `hears` is set when there is text among them."""
    data = b""
    async with (
        asyncio.timeout(10),
        at.http.stream("GET", f"/v1/responses/{id}", params={"stream": "true"}) as response,
    ):
        async for piece in response.aiter_raw():
            data += piece
            if b"output_text.delta" in data:
                hears.set()
    return parsed(data)


async def test_an_answer_that_is_continued_is_one_answer(shim: str, redis_url: str) -> None:
    async with on_stage(shim, redis_url) as at:
        told = await asked(at)
        claim = await claimed(at)
        attempt_log = at.relay.attempt_log(claim)
        attempt_log.append(Delta(content="a"))
        await attempt_log.flush()
        before = await followed_until(at, told["id"], "a")
        await at.relay.leases.hand_over(
            claim.record.queue, claim.record.id, claim.attempt, reason="lost", counts=True
        )
        again = await claimed(at)
        await at.relay.run(again, Resumed(attempt=2, reason="lost"), Delta(content="b"))
        whole = await followed(at.http, told["id"])

        assert whole[: len(before)] == before
        assert whole[-1]["response"]["output"][0]["content"][0]["text"] == "ab"
        assert len({event.get("item_id") for event in whole} - {None}) == 1


async def followed_until(at: Stage, id: str, word: str) -> list[Any]:
    data = b""
    async with at.http.stream("GET", f"/v1/responses/{id}", params={"stream": "true"}) as response:
        async for item_message in response.aiter_raw():
            data += item_message
            if f'"delta":"{word}"'.encode() in data:
                return parsed(data)
    raise AssertionError(data)


async def test_the_same_key_is_the_same_response_also_as_a_stream(
    shim: str, redis_url: str
) -> None:
    async with on_stage(shim, redis_url) as at:
        headers = {"Idempotency-Key": "once"}
        first = await at.http.post("/v1/responses", json=BACKGROUND, headers=headers)
        events = (Delta(content="old"), Reset(attempt=2, reason=""), Delta(content="new"))
        await at.relay.run(await claimed(at), *events)
        again = await at.http.post("/v1/responses", json=BACKGROUND, headers=headers)
        stream = await at.http.post(
            "/v1/responses", json={**BACKGROUND, "stream": True}, headers=headers
        )

        assert first.json()["id"] == again.json()["id"]
        assert said(again.json()) == said(parsed(stream.content)[-1]["response"]) == "new"
        assert parsed(stream.content)[0]["type"] == "response.created"
