"""Jobs for later over HTTP: scheduled for a time, or after other jobs; what cannot be is refused.

Subjects: api_shim/native/enqueue.py, api_shim/submission/submission.py, relay/scheduling/later.py.
"""

import time

import pytest
from support.keys import bearer, issued
from support.redis_server import RedisServer
from support.relay import QUEUE, words
from support.shim import CHAT, problem, serving, stage

JOBS = "/api/v1/jobs/chat"


async def test_a_job_for_later_is_scheduled_says_when_and_is_cancelled(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        later = {**CHAT, "not_before": "2999-01-01T00:00:00Z"}
        too_late = await at.http.post(JOBS, json=later)
        accepted = await at.http.post(JOBS, json={**CHAT, "not_before": time.time() + 600})
        job = accepted.json()
        view = (await at.http.get(f"/api/v1/jobs/{job['id']}")).json()
        listed = (await at.http.get("/api/v1/jobs", params={"status": "scheduled"})).json()
        cancelled = await at.http.delete(f"/api/v1/jobs/{job['id']}")

    assert "at most 30 days" in problem(too_late, 422, "invalid_request")["detail"]
    assert (job["status"], job["position"]) == ("scheduled", None)
    assert job["reason"].startswith("scheduled for 20")
    assert (view["status"], view["reason"]) == ("scheduled", job["reason"])
    assert [each["id"] for each in listed["jobs"]] == [job["id"]]
    assert cancelled.json()["status"] == "cancelled"


async def test_a_drop_in_call_may_be_for_later_by_its_header(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        headers = {"X-Fleet-Not-Before": f"{time.time() + 600:.0f}"}
        body = {"model": "m", "input": "hello", "background": True}
        background = await at.http.post("/v1/responses", json=body, headers=headers)
        wrong = await at.http.post(JOBS, json=CHAT, headers={"X-Fleet-Not-Before": "at ten"})
        listed = (await at.http.get("/api/v1/jobs", params={"status": "scheduled"})).json()

    assert background.json()["status"] == "queued"
    assert len(listed["jobs"]) == 1
    assert "X-Fleet-Not-Before" in str(problem(wrong, 422, "invalid_request"))


async def test_a_child_is_scheduled_until_its_parent_is_done(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        parent = (await at.http.post(JOBS, json=CHAT)).json()["id"]
        child = (await at.http.post(JOBS, json={**CHAT, "after": [parent]})).json()
        await at.relay.run(await at.relay.claim(), *words(1))
        await at.relay.reconciler.reconcile()
        freed = (await at.http.get(f"/api/v1/jobs/{child['id']}")).json()

        assert child["status"] == "scheduled"
        assert child["reason"] == "scheduled: it waits for another job to end"
        assert (freed["status"], freed["after"], freed["blocked"]) == ("queued", [parent], False)
        assert (await at.relay.claim()).record.id == child["id"]


async def test_a_repeated_child_is_the_same_job_although_its_parent_has_expired(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        parent = (await at.http.post(JOBS, json=CHAT)).json()["id"]
        body, key = {**CHAT, "after": [parent]}, {"Idempotency-Key": "one"}
        first = await at.http.post(JOBS, json=body, headers=key)
        await at.relay.connection.command("DEL", f"fleet:j:{parent}:record")
        again = await at.http.post(JOBS, json=body, headers=key)
        other = await at.http.post(JOBS, json=CHAT, headers=key)
        unknown = await at.http.post(JOBS, json=body, headers={"Idempotency-Key": "two"})

    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    problem(other, 409, "idempotency_key_reused")
    problem(unknown, 404, "job_not_found")


async def test_another_tenants_job_is_no_parent(own_redis: RedisServer) -> None:
    with serving(own_redis.url, key_max_age_s=0.1) as shim:
        admin = bearer(issued(shim, {}, tenant="boss", admin=True)["key"])
        red = bearer(issued(shim, admin, tenant="red")["key"])
        blue = bearer(issued(shim, admin, tenant="blue")["key"])
        async with stage(shim, own_redis.url) as at:
            await at.announce()
            parent = (await at.http.post(JOBS, json=CHAT, headers=red)).json()["id"]
            body = {**CHAT, "after_any": [parent]}
            foreign = await at.http.post(JOBS, json=body, headers=blue)
            own = await at.http.post(JOBS, json=body, headers=red)

    problem(foreign, 404, "job_not_found")
    assert own.status_code == 202


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"not_before": "22:00"}, "not_before"),
        ({"not_before": "2026-11-29T22:00:00"}, "offset"),
        ({"not_before": [1]}, "not_before"),
        ({"not_before": -1}, "between 1970"),
        ({"after": ["0123"]}, "after"),
        ({"after": "0" * 32}, "after"),
        ({"after": ["0" * 32] * 101}, "100"),
        ({"after_any": [None]}, "after_any"),
        ({"after": ["G" * 32]}, "after"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_named(
    shim: str, redis_url: str, fields: dict[str, object], told: str
) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        refused = await at.http.post(JOBS, json={**CHAT, **fields})

        assert told in str(problem(refused, 422, "invalid_request"))
        assert await at.relay.connection.command("KEYS", f"fleet:q:{QUEUE}:*") == []
