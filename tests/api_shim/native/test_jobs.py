"""Looking at jobs, waiting for them, listing and cancelling them."""

import asyncio
from typing import Any

import httpx
import pytest
from support.redis_server import RedisServer
from support.shim import eventually, followers, problem, stage

from contract.events import Delta


async def test_a_job_has_its_record_its_place_and_its_output(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue(metadata={"row": "7", "ä": "🦜"})
        waiting = (await at.http.get(f"/api/v1/jobs/{job}")).json()
        await at.relay.run(await at.relay.claim(), Delta(content="Grüße "), Delta(content="🦜"))
        done = (await at.http.get(f"/api/v1/jobs/{job}")).json()

        assert (waiting["status"], waiting["position"]) == ("queued", 1)
        assert (done["status"], done["position"]) == ("done", None)
        assert (done["result"]["status"], done["result"]["content"]) == ("done", "Grüße 🦜")
        assert done["metadata"] == {"row": "7", "ä": "🦜"}


async def test_the_result_can_be_left_out(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        await at.relay.run(await at.relay.claim(), Delta(content="long"))
        seen = (await at.http.get(f"/api/v1/jobs/{job}", params={"result": False})).json()

        assert (seen["result"]["status"], seen["result"]["content"]) == ("done", "")


async def test_a_long_poll_answers_when_the_job_ends(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        claim = await at.relay.claim()
        waiting = asyncio.create_task(at.http.get(f"/api/v1/jobs/{job}", params={"wait_s": 300}))
        await at.relay.run(claim, Delta(content="a"))
        async with asyncio.timeout(5):
            seen = (await waiting).json()

        assert (seen["status"], seen["result"]["content"]) == ("done", "a")


async def test_a_long_poll_answers_when_its_time_is_over(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        seen = (await at.http.get(f"/api/v1/jobs/{job}", params={"wait_s": 0.05})).json()

        assert seen["status"] == "queued"


async def test_a_long_poll_whose_caller_leaves_is_forgotten(
    shim: str, redis_url: str, redis_server: RedisServer
) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        poll = asyncio.create_task(at.http.get(f"/api/v1/jobs/{job}", params={"wait_s": 300}))
        await eventually(lambda: followers(redis_server, job) == 1)
        poll.cancel()
        await eventually(lambda: followers(redis_server, job) == 0)


async def test_a_cancelled_job_is_reported_and_may_be_cancelled_again(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        for claimed in (False, True):
            job = await at.relay.enqueue()
            if claimed:
                await at.relay.claim()
            first = await at.http.delete(f"/api/v1/jobs/{job}", params={"reason": "enough"})
            again = await at.http.delete(f"/api/v1/jobs/{job}")
            last = (await at.heard(job))[-1]

            assert (first.status_code, first.json()["status"]) == (200, "cancelled")
            assert (again.status_code, again.json()) == (200, first.json())
            assert (last["type"], last["by"], last["reason"]) == ("cancelled", "caller", "enough")


async def test_cancelling_a_job_that_is_done_changes_nothing(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        job = await at.relay.enqueue()
        await at.relay.run(await at.relay.claim(), Delta(content="a"))

        assert (await at.http.delete(f"/api/v1/jobs/{job}")).json()["status"] == "done"


async def test_jobs_are_listed_newest_first_a_page_at_a_time(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        jobs = [await at.relay.enqueue() for _ in range(5)]
        first = (await at.http.get("/api/v1/jobs", params={"limit": 3})).json()
        rest = (
            await at.http.get("/api/v1/jobs", params={"limit": 3, "before": first["next"]})
        ).json()

        assert [job["id"] for job in (*first["jobs"], *rest["jobs"])] == jobs[::-1]
        assert rest["next"] is None


async def test_the_list_is_filtered(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        ended, waits = await at.relay.enqueue(), await at.relay.enqueue()
        await at.http.delete(f"/api/v1/jobs/{ended}")

        async def listed(**filters: str) -> list[str]:
            page = await at.http.get("/api/v1/jobs", params=filters)
            return [job["id"] for job in page.json()["jobs"]]

        assert await listed(status="queued") == [waits]
        assert await listed(status="cancelled", kind="chat") == [ended]
        assert await listed(kind="embed") == []
        assert await listed(queue="scripted.chat") == [waits, ended]
        assert await listed(queue="other.chat") == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/v1/jobs?limit=0", "limit"),
        ("/api/v1/jobs?status=asleep", "status"),
        ("/api/v1/jobs?kind=poem", "kind"),
        (f"/api/v1/jobs/{'0' * 32}?wait_s=301", "wait_s"),
        (f"/api/v1/jobs/{'0' * 32}?wait_s=nan", "wait_s"),
        (f"/api/v1/jobs/{'0' * 32}?wait_s=x", "wait_s"),
    ],
)
async def test_a_wrong_parameter_is_named(path: str, field: str, shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        error: dict[str, Any] = problem(await at.http.get(path), 422, "invalid_request")["errors"][
            0
        ]

        assert (error["where"], error["field"]) == ("query", field)


async def test_what_is_not_there_is_404(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        for id in ("0" * 32, "0" * 31, "chat", "ä"):
            for answer in (
                await at.http.get(f"/api/v1/jobs/{id}"),
                await at.http.delete(f"/api/v1/jobs/{id}"),
            ):
                problem(answer, 404, "job_not_found")


@pytest.mark.parametrize("cursor", ["x", "nan", "-5", "inf"])
async def test_a_cursor_that_no_page_gave_is_400(cursor: str, shim: str) -> None:
    async with httpx.AsyncClient(base_url=shim) as http:
        answer = await http.get("/api/v1/jobs", params={"before": cursor})

        problem(answer, 400, "invalid_cursor")


async def test_jobs_are_searched_by_id_model_queue_and_tenant(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        one, two = [await at.relay.enqueue() for _ in range(2)]

        async def found(**params: str) -> list[str]:
            page = (await at.http.get("/api/v1/jobs", params=params)).json()
            return [job["id"] for job in page["jobs"]]

        assert await found(search=one[:12]) == [one]
        assert await found(search="SCRIPTED.ch") == [two, one]
        assert await found(search="default") == await found(tenant="default") == [two, one]
        assert await found(search="nothing") == await found(tenant="nobody") == []


async def test_a_request_can_be_sent_again_as_it_is_shown(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await at.announce()
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
            "response_format": {"type": "json_schema", "schema": {"type": "object"}},
        }
        first = (await at.http.post("/api/v1/jobs/chat", json=body)).json()["id"]
        shown = (await at.http.get(f"/api/v1/jobs/{first}/request")).json()
        path = f"/api/v1/jobs/{shown['kind']}"
        again = (await at.http.post(path, json=shown["request"])).json()["id"]

        assert shown["request"].keys() <= {"model", "messages", "response_format", "backend"}
        assert (await at.relay.records.request(first)).model_dump(exclude={"backend"}) == (
            await at.relay.records.request(again)
        ).model_dump(exclude={"backend"})
        problem(await at.http.get(f"/api/v1/jobs/{'0' * 32}/request"), 404, "job_not_found")
