"""A path that has an id accepts an unambiguous prefix of it, among the tenant's own ids only.

Subjects: relay/records.py, relay/batches.py, api_shim/native/jobs.py.
"""

import json
from collections.abc import Iterator

import httpx
import pytest
from support.dying import died
from support.keys import Keyed, keyed
from support.redis_server import RedisServer
from support.relay import chat, relay_on
from support.shim import lines, problem, stage
from websockets.asyncio.client import connect

from contract import redis_keys
from contract.events import Delta
from contract.tenants import Tenant

BATCH = '{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {}}\n'


async def test_a_job_is_looked_at_followed_and_cancelled_by_its_beginning(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        path = f"/api/v1/jobs/{job[:8]}"
        seen = await at.http.get(path)
        waited = await at.http.get(path, params={"wait_s": 0.05})
        cancelled = await at.http.delete(path)
        ndjson = {"accept": "application/x-ndjson"}
        async with at.http.stream("GET", f"{path}/events", headers=ndjson) as stream:
            told = [json.loads(line) async for line in lines(stream)]
            header = stream.headers["x-fleet-job"]
        url = f"{shim.replace('http', 'ws', 1)}{path}/events"
        async with connect(url, proxy=None) as socket:
            words = [json.loads(text)["type"] async for text in socket]

        assert seen.json()["id"] == waited.json()["id"] == cancelled.json()["id"] == header == job
        assert seen.headers["x-fleet-job"] == cancelled.headers["x-fleet-job"] == job
        assert told[-1]["type"] == words[-1] == "cancelled"


async def test_a_dead_letter_is_shown_retried_and_forgotten_by_its_beginning(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        one, other = [(await died(at.relay)).id for _ in range(2)]
        shown = await at.http.get(f"/api/v1/dead/{one[:8]}")
        retried = await at.http.post(f"/api/v1/jobs/{one[:8]}/retry")
        gone = await at.http.delete(f"/api/v1/dead/{other[:8]}")

        assert (shown.json()["id"], retried.status_code) == (one, 202)
        assert gone.json()["purged"] == 1
        assert await at.relay.records.find(other) is None


async def test_several_are_a_409_that_counts_them_and_none_is_a_404(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        await at.relay.run(await at.relay.claim(), Delta(content="a"))
        fields = await at.relay.connection.command("HGETALL", redis_keys.record(job))
        twin = job[:8] + "0" * 24
        flat = [it for pair in fields.items() for it in pair]
        await at.relay.connection.command("HSET", redis_keys.record(twin), *flat, "id", twin)
        await at.relay.connection.command("ZADD", redis_keys.RECENT, 1, twin)
        found = problem(await at.http.get(f"/api/v1/jobs/{job[:8]}"), 409, "ambiguous_id")

        assert found["detail"].startswith(f"2 ids begin with {job[:8]}")
        for path in (f"/api/v1/jobs/{job[:8]}/events", f"/api/v1/dead/{job[:8]}"):
            problem(await at.http.get(path), 409, "ambiguous_id")
        problem(await at.http.delete(f"/api/v1/jobs/{job[:8]}"), 409, "ambiguous_id")
        for absent in ("0000", "abc", "xyz0", "*", job[:8].upper() + "G"):
            problem(await at.http.get(f"/api/v1/jobs/{absent}"), 404, "job_not_found")


@pytest.fixture
def fleet(own_redis: RedisServer) -> Iterator[Keyed]:
    with keyed(own_redis.url) as shim:
        yield shim


async def test_a_tenant_finds_and_counts_only_its_own(fleet: Keyed, own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay, fleet.caller("a") as a, fleet.caller("b") as b:
        record, _ = await relay.queue.enqueue(
            chat(), queue="scripted.chat", tenant=Tenant(name="a")
        )
        mine = await a.get(f"/api/v1/jobs/{record.id[:6]}")
        theirs = await b.get(f"/api/v1/jobs/{record.id[:6]}")
        nobodys = await b.get("/api/v1/jobs/ffffff")
        async with fleet.admin as admin:
            everybodys = await admin.get(f"/api/v1/jobs/{record.id[:6]}")

    assert mine.json()["id"] == everybodys.json()["id"] == record.id
    problem(theirs, 404, "job_not_found")
    assert theirs.json()["detail"].replace(record.id[:6], "") == nobodys.json()["detail"].replace(
        "ffffff", ""
    )


async def test_a_key_is_revoked_by_its_beginning(fleet: Keyed) -> None:
    told = fleet.issue("a")
    async with fleet.admin as admin:
        gone = await admin.delete(f"/api/v1/keys/{told['id'][:8]}")
        again = await admin.delete(f"/api/v1/keys/{told['id'][:8]}")

    assert gone.json()["id"] == told["id"]
    problem(again, 404, "unknown_key")


async def test_a_batch_is_looked_at_and_cancelled_by_its_beginning(fleet: Keyed) -> None:
    async with fleet.caller("a") as a, fleet.caller("b") as b:
        form = {"purpose": "batch"}
        sent = await a.post("/v1/files", data=form, files={"file": ("x.jsonl", BATCH)})
        body = {
            "input_file_id": sent.json()["id"],
            "endpoint": "/v1/embeddings",
            "completion_window": "24h",
        }
        batch = (await a.post("/v1/batches", json=body)).json()["id"]
        short = batch[: len("batch_") + 8]
        answers: list[httpx.Response] = [
            await a.get(f"/v1/batches/{short}"),
            await b.get(f"/v1/batches/{short}"),
        ]

    assert answers[0].json()["id"] == batch
    assert answers[1].status_code == 404
