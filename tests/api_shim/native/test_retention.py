"""Jobs whose texts are not kept, over HTTP: how they are asked for, and what is said afterwards.

Subjects: api_shim/native/jobs.py, api_shim/http/headers.py, relay/log.py.
"""

import asyncio
from typing import Any

import httpx
import pytest
from support.keys import keyed
from support.redis_server import RedisServer
from support.shim import CHAT, problem, stage

from contract import redis_keys
from contract.events import Delta

NONE = {"X-Fleet-Retention": "none"}


async def test_the_job_is_there_and_its_texts_are_gone(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("box", "m")
        made = await at.http.post("/api/v1/jobs/chat", json={**CHAT, "retention": "none"})
        job = made.json()["id"]
        async with at.events(job) as following:
            claim = await at.relay.start_next("box.chat", "w1")
            assert claim is not None
            await at.relay.run(claim, Delta(content="secret"))
            text = (await following.aread()).decode()
        asked = problem(await at.http.get(f"/api/v1/jobs/{job}/request"), 410, "job_not_kept")
        await at.relay.connection.command("UNLINK", redis_keys.log(job))
        record = redis_keys.record(job)
        await at.relay.connection.command("HINCRBYFLOAT", record, "ended_at", -60)
        problem(await at.http.get(f"/api/v1/jobs/{job}"), 410, "job_not_kept")
        problem(await at.http.get(f"/api/v1/jobs/{job}/events"), 410, "job_not_kept")
        bare = (await at.http.get(f"/api/v1/jobs/{job}", params={"result": False})).json()
        listed = (await at.http.get("/api/v1/jobs")).json()["jobs"]

        assert "secret" in text
        assert "event: done" in text
        assert "retention is none" in asked["detail"]
        assert (bare["status"], bare["retention_s"]) == ("done", 0)
        assert [each["id"] for each in listed] == [job]


async def test_a_drop_in_call_and_its_repeat(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("box", "m")
        headers = {**NONE, "Idempotency-Key": "once"}

        async def ask() -> httpx.Response:
            return await at.http.post("/v1/chat/completions", json=CHAT, headers=headers)

        asking = asyncio.create_task(ask())
        while (claim := await at.relay.start_next("box.chat", "w1")) is None:
            await asyncio.sleep(0.01)
        await at.relay.run(claim, Delta(content="secret"))
        first = await asking
        await at.relay.connection.command("UNLINK", redis_keys.log(claim.record.id))
        again = await ask()

        assert first.json()["choices"][0]["message"]["content"] == "secret"
        assert again.status_code == 410
        assert again.json()["error"]["code"] == "job_not_kept"


@pytest.mark.parametrize(
    ("retention", "status"),
    [("none", 202), (60, 202), ("ttl", 202), ("60", 202), ("never", 422), (0, 422), (-1, 422),
     (True, 422), (1.5, 422), (86_401, 422), (10**12, 422), ([], 422), ("", 422)],
)  # fmt: skip
async def test_what_a_body_may_say(shim: str, redis_url: str, retention: Any, status: int) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("box", "m")
        answer = await at.http.post("/api/v1/jobs/chat", json={**CHAT, "retention": retention})

        assert answer.status_code == status, answer.text
        assert status == 202 or "retention" in answer.text


@pytest.mark.parametrize("text", ["never", "0", "-1", "99999999999", "none, none", ""])
async def test_what_a_header_may_not_say(shim: str, redis_url: str, text: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("box", "m")
        headers = {"X-Fleet-Retention": text}
        answer = await at.http.post("/api/chat", json={**CHAT, "stream": False}, headers=headers)

        assert answer.status_code in {400, 422}
        assert "retention" in answer.text.lower()


async def test_a_key_says_how_long_at_most(own_redis: RedisServer) -> None:
    with keyed(own_redis.url) as fleet:
        async with stage(fleet.url, own_redis.url) as at:
            await at.announce("box", "m")
            async with fleet.caller("clinic", retention="none") as clinic:
                made = await clinic.post("/api/v1/jobs/chat", json=CHAT)
                job = (await clinic.get(f"/api/v1/jobs/{made.json()['id']}")).json()
                refused = await clinic.post("/api/v1/jobs/chat", json={**CHAT, "retention": 60})
                background = await clinic.post(
                    "/v1/responses", json={"model": "m", "input": "hi", "background": True}
                )

    assert job["retention_s"] == 0
    assert "this key allows (none)" in problem(refused, 422, "invalid_request")["detail"]
    assert background.status_code == 400
    assert "background: its response would be gone" in background.json()["error"]["message"]
