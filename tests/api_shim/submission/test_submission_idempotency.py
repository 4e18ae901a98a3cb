"""The same key with the same request is the same job, for every kind, on any shim, in any race."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from support.redis_server import RedisServer
from support.relay import Relay
from support.shim import CHAT, Stage, problem, serving, stage

from contract import redis_keys
from contract.events import Delta
from relay.claims import StartedJob

KEY = {"Idempotency-Key": "order-17"}
BODIES: dict[str, dict[str, Any]] = {
    "chat": CHAT,
    "embed": {"model": "m", "input": ["one"]},
    "pull": {"model": "new"},
    "image": {"model": "m", "prompt": "a lighthouse"},
    "show": {"model": "m"},
    "running": {"backend": "scripted"},
    "delete": {"model": "m"},
    "copy": {"model": "m", "destination": "n"},
    "create": {"model": "n", "source": "m"},
    "load": {"model": "m"},
    "unload": {"model": "m"},
    "count": CHAT,
    "rerank": {"model": "m", "query": "q", "documents": ["a", "ä"]},
}


async def ask(at: Stage, kind: str = "chat", **arguments: Any) -> httpx.Response:
    arguments = {"json": BODIES[kind], "headers": KEY, **arguments}
    return await at.http.post(f"/api/v1/jobs/{kind}", **arguments)


async def jobs(relay: Relay) -> int:
    return int(await relay.connection.command("ZCARD", redis_keys.LIVE))


@pytest.mark.parametrize("kind", BODIES)
async def test_a_repeat_is_the_same_job_for_every_kind(
    kind: str, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        anyway = {"enqueue_anyway": "true"}
        first, second = await ask(at, kind, params=anyway), await ask(at, kind, params=anyway)

        assert (first.status_code, second.status_code) == (202, 202)
        assert first.json()["id"] == second.json()["id"] == second.headers["x-fleet-job"]
        assert "idempotent-replayed" not in first.headers
        assert second.headers["idempotent-replayed"] == "true"
        assert await jobs(at.relay) == 1


async def test_the_order_of_fields_does_not_matter(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        first = await ask(at)
        turned = json.dumps(dict(reversed(CHAT.items())))
        second = await ask(at, json=None, content=turned, headers={
            **KEY, "Content-Type": "application/json",
        })  # fmt: skip

        assert first.json()["id"] == second.json()["id"]


async def test_another_request_with_the_key_is_refused(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        job = (await ask(at)).json()["id"]
        other = await ask(at, json={**CHAT, "max_tokens": 7})

        document = problem(other, 409, "idempotency_key_reused")
        assert job in document["detail"]
        assert not document["retryable"]
        assert await jobs(at.relay) == 1


async def test_a_header_that_changes_the_request_makes_it_another(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        await ask(at)
        other = await ask(at, headers={**KEY, "X-Fleet-Priority": "batch"})

        problem(other, 409, "idempotency_key_reused")


async def test_many_at_once_on_two_shims_are_one_job(shim: str, redis_url: str) -> None:
    with serving(redis_url) as other:
        async with stage(shim, redis_url) as here, stage(other, redis_url) as there:
            for backend in ("scripted", "second"):
                await here.announce(backend)
            answers = await asyncio.gather(*(ask(at) for _ in range(10) for at in (here, there)))
            record = await here.relay.records.get(answers[0].json()["id"])
            waiting = [
                await here.relay.start_next(q, "w") for q in ("scripted.chat", "second.chat")
            ]

            assert len({answer.json()["id"] for answer in answers}) == 1
            assert [claim.record.id for claim in waiting if claim] == [record.id]


async def test_a_key_leads_to_the_pull_that_was_under_way(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        first = await ask(at, "pull", headers={"X-Fleet-On-Disconnect": "cancel"})
        joined = await ask(at, "pull")
        await at.relay.run(await claimed(at.relay, "scripted.pull"))
        again = await ask(at, "pull")

        assert first.json()["id"] == joined.json()["id"] == again.json()["id"]
        assert again.json()["status"] == "done"
        # Who joined stays: nobody may take the pull from them by leaving.
        assert (await at.relay.records.get(first.json()["id"])).on_disconnect == "continue"


async def claimed(relay: Relay, queue: str) -> StartedJob:
    claim = await relay.start_next(queue, "w1")
    assert claim is not None
    return claim


async def test_a_repeat_is_answered_when_the_job_has_ended_and_its_worker_is_gone(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        report = await at.announce()
        job = (await ask(at)).json()["id"]
        await at.relay.run(await at.relay.claim())
        await at.relay.roster.leave(report.name)
        again = await ask(at)

        assert again.status_code == 202
        assert (again.json()["id"], again.json()["status"]) == (job, "done")


async def test_a_shim_that_dies_before_the_enqueue_is_finished_by_the_repeat(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        chosen = (await ask(at)).json()["id"]
        await forget(at.relay, chosen)  # as if the first shim had only taken the key
        again = await ask(at)
        claim = await at.relay.claim()

        assert again.json()["id"] == claim.record.id == chosen


async def forget(relay: Relay, job: str) -> None:
    await relay.claim()
    for key in (
        redis_keys.record(job),
        redis_keys.log(job),
        *(
            f"fleet:q:scripted.chat:{part}"
            for part in (
                "facts",
                "leases",
                "holders",
            )
        ),
    ):
        await relay.connection.command("DEL", key)


async def test_a_full_queue_does_not_burn_the_key(redis_url: str) -> None:
    with serving(redis_url, queue_limit=1) as small:
        async with stage(small, redis_url) as at:
            await at.announce()
            first = await ask(at, headers={})
            refused = await ask(at)
            await at.http.delete(f"/api/v1/jobs/{first.json()['id']}")
            taken = await ask(at, json={**CHAT, "max_tokens": 7})

            problem(refused, 429, "queue_full")
            assert taken.status_code == 202
            assert "idempotent-replayed" not in taken.headers


async def test_a_fleet_without_workers_does_not_burn_the_key(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        refused = await ask(at)
        await at.announce()
        taken = await ask(at, json={**CHAT, "max_tokens": 7})

        assert refused.status_code >= 400
        assert taken.status_code == 202


async def test_a_redis_that_is_away_does_not_burn_the_key(own_redis: RedisServer) -> None:
    with serving(own_redis.url, command_timeout_s=1) as shim:
        async with stage(shim, own_redis.url) as at:
            await at.announce()
            own_redis.stop()
            refused = await ask(at, timeout=30)
            own_redis.start()
            await at.announce()
            taken = await ask(at)

            problem(refused, 503, "relay_unavailable")
            assert taken.status_code == 202


@pytest.mark.parametrize("bad", ["", "x" * 256, "two words", "smörgås".encode("latin-1")])
async def test_a_key_that_is_none_is_refused_by_name(
    bad: str | bytes, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        refused = await ask(at, headers={b"Idempotency-Key": bad})

        (error,) = problem(refused, 422, "invalid_request")["errors"]
        assert (error["field"], error["where"]) == ("Idempotency-Key", "header")
        assert await jobs(at.relay) == 0


async def test_headers_are_stronger_than_the_body(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        body = {**CHAT, "priority": "batch", "on_disconnect": "cancel"}
        said = {"X-Fleet-Priority": "interactive", "X-Fleet-On-Disconnect": "cancel_after_s=30"}
        job = (await ask(at, json=body, headers=said)).json()["id"]
        view = (await at.http.get(f"/api/v1/jobs/{job}")).json()

        assert (view["priority"], view["on_disconnect"]) == (
            "interactive", {"cancel_after_s": 30.0},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("header", "bad"),
    [
        ("X-Fleet-Priority", "urgent"),
        ("X-Fleet-On-Disconnect", "stop"),
        ("X-Fleet-On-Disconnect", "cancel_after_s=0"),
        ("X-Fleet-On-Disconnect", "cancel_after_s=86401"),
        ("X-Fleet-On-Disconnect", "cancel_after_s=-1"),
    ],
)
async def test_a_header_that_means_nothing_is_refused_by_name(
    header: str, bad: str, shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        refused = await ask(at, headers={header: bad})

        (error,) = problem(refused, 422, "invalid_request")["errors"]
        assert (error["field"], error["where"]) == (header, "header")
        assert header in refused.json()["detail"]


async def ask_openai(at: Stage, **arguments: Any) -> httpx.Response:
    return await at.http.post("/v1/chat/completions", json=CHAT, headers=KEY, **arguments)


async def test_a_client_that_repeats_after_a_timeout_gets_the_answer_of_its_job(
    shim: str, redis_url: str
) -> None:
    # SDKs repeat by themselves after a timeout: the first call's end must not cancel the job.
    async with stage(shim, redis_url) as at:
        await at.announce()
        with pytest.raises(httpx.ReadTimeout):
            await ask_openai(at, timeout=0.3)
        await asyncio.sleep(0.3)
        repeat = asyncio.create_task(ask_openai(at))
        await at.relay.run(await at.relay.claim(), Delta(content="late"))
        answer = await repeat

        assert answer.status_code == 200
        assert answer.json()["choices"][0]["message"]["content"] == "late"
        assert answer.headers["idempotent-replayed"] == "true"


async def test_a_client_that_does_not_repeat_in_time_has_left(
    shim: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_shim.following.drop_in._RETRY_GRACE_S", 0.2)
    async with stage(shim, redis_url) as at:
        await at.announce()
        with pytest.raises(httpx.ReadTimeout):
            await ask_openai(at, timeout=0.3)
        async with asyncio.timeout(5):
            while await jobs(at.relay):
                await asyncio.sleep(0.05)

        assert (await ask_openai(at)).status_code == 409
