"""Responses over HTTP: looked up, gone on from, cancelled, deleted, others' hidden."""

import asyncio
from typing import Any

import pytest
from support.keys import keyed
from support.redis_server import RedisServer
from support.responses import (
    ASKED,
    BACKGROUND,
    answered,
    asked,
    claimed,
    followed,
    on_stage,
    said,
    seen,
)

from contract.errors import LeaseLost
from contract.events import Delta, Done, ToolCallDelta
from contract.redis_keys import record as record_key


async def test_the_background_is_answered_at_once_and_looked_up_later(
    shim: str, redis_url: str
) -> None:
    async with on_stage(shim, redis_url) as at:
        told = await asked(at)
        waiting = await seen(at, told["id"])
        claim = await claimed(at)
        running = await seen(at, told["id"])
        await at.relay.run(claim, Delta(content="a"))
        done = await seen(at, told["id"])

        assert (told["status"], waiting["status"]) == ("queued", "queued")
        assert (running["status"], done["status"], said(done)) == ("in_progress", "completed", "a")
        assert claim.record.on_disconnect == "continue"
        assert {told["created_at"], done["created_at"]} == {int(claim.record.created_at)}


async def test_a_response_is_cancelled_once_and_a_second_cancel_returns_it(
    shim: str, redis_url: str
) -> None:
    async with on_stage(shim, redis_url) as at:
        told = await asked(at)
        claim = await claimed(at)
        attempt_log = at.relay.attempt_log(claim)
        attempt_log.append(Delta(content="a"))
        await attempt_log.flush()
        answers = [await at.http.post(f"/v1/responses/{told['id']}/cancel") for _ in range(2)]
        attempt_log.append(Delta(content="b"))
        with pytest.raises(LeaseLost):
            await attempt_log.flush()

        assert answers[0].json() == answers[1].json() == await seen(at, told["id"])
        assert (answers[0].json()["status"], said(answers[0].json())) == ("cancelled", "a")
        last = (await followed(at.http, told["id"]))[-1]
        assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")


async def test_what_is_done_stays_done_when_it_is_cancelled(shim: str, redis_url: str) -> None:
    async with on_stage(shim, redis_url) as at:
        done = await answered(at, Delta(content="a"))

        assert (await at.http.post(f"/v1/responses/{done['id']}/cancel")).json() == done


@pytest.mark.parametrize("status", ["running", "done"])
async def test_a_response_that_is_deleted_is_gone_and_its_job_with_it(
    status: str, shim: str, redis_url: str
) -> None:
    async with on_stage(shim, redis_url) as at:
        told = await asked(at)
        job = told["id"].removeprefix("resp_")
        attempt_log = at.relay.attempt_log(await claimed(at))
        if status == "done":
            attempt_log.append(Done())
            await attempt_log.flush()
        deleted = await at.http.delete(f"/v1/responses/{told['id']}")
        attempt_log.append(Delta(content="late"))
        with pytest.raises(LeaseLost):
            await attempt_log.flush()

        assert deleted.json() == {"id": told["id"], "object": "response", "deleted": True}
        for path in ("", "/input_items", "?stream=true"):
            gone = await at.http.get(f"/v1/responses/{told['id']}{path}")
            assert (gone.status_code, gone.json()["error"]["code"]) == (404, "response_not_found")
        assert (await at.http.get(f"/api/v1/jobs/{job}")).status_code == 404
        assert await at.relay.connection.command("EXISTS", record_key(job)) == 0


async def test_a_response_continues_another(shim: str, redis_url: str) -> None:
    async with on_stage(shim, redis_url) as at:
        first = await answered(at, Delta(content="b"), input="a", instructions="one")
        second = await answered(
            at, Delta(content="d"), input="c", previous_response_id=first["id"], instructions="two"
        )
        await asked(at, input="e", previous_response_id=second["id"])
        claim = await claimed(at)
        request = await at.relay.records.request(claim.record.id)

        assert [message.text for message in getattr(request, "messages", ())] == list("abcde")
        assert second["previous_response_id"] == first["id"]


async def test_there_is_no_going_on_from_a_call_whose_name_is_too_long(
    shim: str, redis_url: str
) -> None:
    async with on_stage(shim, redis_url) as at:
        call = ToolCallDelta(index=0, id="call_1", name="n" * 2000, arguments="{}")
        first = await answered(at, Delta(tool_calls=(call,)))
        ask = {**ASKED, "previous_response_id": first["id"]}
        refused = await at.http.post("/v1/responses", json=ask)

        assert first["output"][0]["name"] == "n" * 2000
        assert (refused.status_code, "too long" in refused.text) == (400, True)


async def test_there_is_no_going_on_from_what_is_not_there_or_not_done(
    shim: str, redis_url: str
) -> None:
    async with on_stage(shim, redis_url) as at:
        running = await asked(at)
        asks = [{**ASKED, "previous_response_id": id} for id in (f"resp_{'0' * 32}", running["id"])]
        errors = [(await at.http.post("/v1/responses", json=ask)).json()["error"] for ask in asks]

        assert [error["param"] for error in errors] == ["previous_response_id"] * 2
        assert [error["code"] for error in errors] == [
            "previous_response_not_found",
            "invalid_request",
        ]


async def test_items_of_a_response_can_be_named(shim: str, redis_url: str) -> None:
    async with on_stage(shim, redis_url) as at:
        first = await answered(at, Delta(content="b"), input="a")
        listed = (await at.http.get(f"/v1/responses/{first['id']}/input_items")).json()["data"]
        items = [{"type": "item_reference", "id": i["id"]} for i in (*listed, *first["output"])]
        await asked(at, input=[*items, {"role": "user", "content": "c"}])
        request = await at.relay.records.request((await claimed(at)).record.id)

        assert [message.text for message in getattr(request, "messages", ())] == list("abc")


async def test_what_was_asked_is_listed_page_by_page(shim: str, redis_url: str) -> None:
    async with on_stage(shim, redis_url) as at:
        items = [{"role": "user", "content": f"{n}"} for n in range(5)]
        told = await asked(at, input=items, instructions="not among them")
        path = f"/v1/responses/{told['id']}/input_items"
        first = (await at.http.get(path, params={"limit": 2})).json()
        query = {"limit": "9", "after": first["last_id"]}
        rest = (await at.http.get(path, params=query)).json()
        wrong = await at.http.get(path, params={"after": "msg_absent"})
        ordered = (await at.http.get(path, params={"order": "asc"})).json()["data"]

        assert texts(first["data"]) == ["4", "3"]
        assert (texts(rest["data"]), first["has_more"], rest["has_more"]) == (
            ["2", "1", "0"],
            True,
            False,
        )
        assert texts(ordered) == ["0", "1", "2", "3", "4"]
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "after")


def texts(items: list[dict[str, Any]]) -> list[str]:
    return [item["content"][0]["text"] for item in items]


async def test_what_is_not_stored_is_answered_and_not_there_afterwards(
    shim: str, redis_url: str
) -> None:
    async with on_stage(shim, redis_url) as at:
        asks = {**ASKED, "store": False}
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(at.http.post("/v1/responses", json=asks))
            await at.relay.run(await claimed(at), Delta(content="a"))
            told = (await asking).json()
        after = {**ASKED, "previous_response_id": told["id"]}

        assert (said(told), told["store"]) == ("a", False)
        assert (await at.http.get(f"/v1/responses/{told['id']}")).status_code == 404
        assert (await at.http.post("/v1/responses", json=after)).status_code == 400


async def test_a_job_of_another_surface_is_no_response(shim: str, redis_url: str) -> None:
    async with on_stage(shim, redis_url) as at:
        job = await at.relay.enqueue()

        assert (await at.http.get(f"/v1/responses/resp_{job}")).status_code == 404


async def test_notes_that_a_native_caller_wrote_break_nothing(shim: str, redis_url: str) -> None:
    echo = {"reasoning": 1, "text": [], "tools": [1, {"name": "f"}], "id": "mine"}
    notes = {"has_instructions": True, "echo": echo}
    async with on_stage(shim, redis_url) as at:
        body = {"model": "m", "prompt": "once", "response_notes": notes}
        job = (await at.http.post("/api/v1/jobs/chat", json=body)).json()["id"]
        told = await seen(at, f"resp_{job}")

        assert (told["id"], told["instructions"]) == (f"resp_{job}", None)
        assert told["text"]["format"] == {"type": "text"}


async def test_who_waits_for_a_whole_answer_and_hangs_up_ends_it(shim: str, redis_url: str) -> None:
    # litellm #36123: a disconnect on /v1/responses does not reach the backend.
    async with on_stage(shim, redis_url) as at:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(at.http.post("/v1/responses", json=ASKED))
            claim = await claimed(at)
            asking.cancel()
        frames = await at.relay.frames(claim.record.id)

        assert frames[-1].type == "cancelled"


async def test_a_response_is_its_tenant_s(own_redis: RedisServer) -> None:
    with keyed(own_redis.url) as shim:
        async with (
            on_stage(shim.url, own_redis.url),
            shim.caller("ann") as ann,
            shim.caller("bob") as bob,
        ):
            id = (await ann.post("/v1/responses", json=BACKGROUND)).json()["id"]
            paths = [f"/v1/responses/{id}", f"/v1/responses/{id}/input_items"]
            seen_by_bob = [(await bob.get(path)).status_code for path in paths]
            seen_by_bob.append((await bob.delete(paths[0])).status_code)
            seen_by_bob.append((await bob.post(f"{paths[0]}/cancel")).status_code)
            after = {**ASKED, "previous_response_id": id}
            gone_on = await bob.post("/v1/responses", json=after)

            assert seen_by_bob == [404] * 4
            assert gone_on.json()["error"]["code"] == "previous_response_not_found"
            assert (await ann.get(paths[0])).json()["status"] == "queued"
