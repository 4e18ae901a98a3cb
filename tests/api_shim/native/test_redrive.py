"""Dead letters by how they failed, and many of them retried at a rate."""

import asyncio
import json
from typing import Any

import httpx
from support.dying import died
from support.keys import keyed
from support.redis_server import RedisServer
from support.relay import QUEUE
from support.shim import problem, stage

GROUPS = "/api/v1/dead/groups"
REDRIVE = "/api/v1/dead/redrive"


async def redriven(at: httpx.AsyncClient, **wanted: Any) -> list[dict[str, Any]]:
    async with at.stream("POST", REDRIVE, json=wanted) as response:
        assert response.status_code == 200, await response.aread()
        return [
            json.loads(line.removeprefix("data: "))
            async for line in response.aiter_lines()
            if line.startswith("data: ")
        ]


async def test_letters_that_failed_alike_are_one_group(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        ids = [(await died(at.relay)).id for _ in range(3)]
        other = await died(at.relay, queue="other.chat")
        found = (await at.http.get(GROUPS)).json()
        (group,) = found["groups"]
        (alone,) = (await at.http.get(GROUPS, params={"queue": "other.chat"})).json()["groups"]

        assert (found["counted"], found["complete"], group["count"]) == (4, True, 4)
        assert (group["code"], group["model"]) == ("server_fault", "m")
        assert group["queues"] == ["other.chat", QUEUE]
        assert group["newest"] == [other.id, *ids[::-1]]
        assert (alone["count"], alone["fingerprint"]) == (1, group["fingerprint"])


async def test_a_dry_run_says_what_would_happen_and_changes_nothing(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        for _ in range(3):
            await died(at.relay)
        await died(at.relay, queue="other.chat")
        report = (
            await at.http.post(REDRIVE, json={"dry_run": True, "rate_per_s": 2, "queue": QUEUE})
        ).json()
        whole = (await at.http.post(REDRIVE, json={"dry_run": True, "limit": 2})).json()

        assert (report["matched"], report["retried"], report["seconds"]) == (3, 3, 1.5)
        assert report["queues"] == [{"queue": QUEUE, "jobs": 3, "workers": 1, "waiting": 0}]
        assert (whole["matched"], whole["complete"], whole["done"]) == (2, False, True)
        assert (await at.http.get(GROUPS)).json()["counted"] == 4


async def test_a_redrive_retries_each_letter_once_at_its_rate(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        for _ in range(6):
            await died(at.relay)
        began = asyncio.get_running_loop().time()
        reports = await redriven(at.http, rate_per_s=5)
        took_s = asyncio.get_running_loop().time() - began
        queue = (await at.http.get("/api/v1/queues")).json()["queues"]

        assert (reports[0]["retried"], reports[0]["done"]) == (0, False)
        assert (reports[-1]["retried"], reports[-1]["done"]) == (6, True)
        assert took_s >= 0.9
        assert sum(each["depth"] for each in queue) == 6
        assert (await redriven(at.http))[-1]["matched"] == 0


async def test_some_are_chosen_by_id_and_by_fingerprint(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        one, two = [(await died(at.relay)).id for _ in range(2)]
        (group,) = (await at.http.get(GROUPS)).json()["groups"]
        nobody = await redriven(at.http, fingerprint="0" * 12)
        chosen = await redriven(at.http, ids=[one])
        rest = await redriven(at.http, fingerprint=group["fingerprint"])

        assert (nobody[-1]["matched"], chosen[-1]["retried"], rest[-1]["retried"]) == (0, 1, 1)
        assert (await at.relay.records.get(two)).retried_as is not None


async def test_a_client_that_leaves_stops_its_redrive(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        for _ in range(5):
            await died(at.relay)
        async with at.http.stream("POST", REDRIVE, json={"rate_per_s": 0.5}) as response:
            await anext(response.aiter_lines())
        await asyncio.sleep(0.3)
        left = (await at.http.get(GROUPS)).json()["counted"]

        assert left >= 4


async def test_what_nobody_could_run_stays_dead_and_is_named(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce("scripted", "another")
        await died(at.relay)
        (report,) = [each for each in await redriven(at.http) if each["done"]]
        wrong = await at.http.post(REDRIVE, json={"rate_per_s": 0})

        assert (report["retried"], report["refused"][0]["jobs"]) == (0, 1)
        assert (await at.http.get(GROUPS)).json()["counted"] == 1
        problem(wrong, 422, "invalid_request")


async def test_a_tenant_redrives_its_own(own_redis: RedisServer) -> None:
    with keyed(own_redis.url) as at:
        async with stage(at.url, own_redis.url) as behind, at.caller("red") as red:
            await behind.announce()
            await died(behind.relay)
            seen = (await red.get(GROUPS)).json()["counted"]
            reports = await redriven(red)
            async with at.admin as boss:
                left = (await boss.get(GROUPS)).json()["counted"]

    assert (seen, reports[-1]["matched"], left) == (0, 0, 1)
