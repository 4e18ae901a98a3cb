"""Requests while no worker is live: those for a known backend wait, all others are refused.

Subjects: api_shim/native/enqueue.py, api_shim/native/backends.py, api_shim/settings.py.
"""

from typing import Any

import httpx
import pytest
from support.relay import QUEUE
from support.shim import CHAT, Stage, problem, serving, sse, stage

from contract.roster import ModelReport
from relay.position import NO_WORKER

PATH = "/api/v1/jobs/chat"
REFUSE = {"X-Fleet-On-No-Worker": "refuse"}


async def scale_to_zero(at: Stage, backend: str = "scripted", *models: Any) -> None:
    """A worker was there and has left."""
    report = await at.announce(backend, *models)
    await at.relay.roster.leave(report.name)


async def test_a_job_for_a_known_backend_waits_and_says_why(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await scale_to_zero(at)
        answer = await at.http.post(PATH, json=CHAT)
        job = answer.json()
        view = (await at.http.get(f"/api/v1/jobs/{job['id']}")).json()
        async with at.events(job["id"]) as response:
            first = await anext(sse(response))

    assert (answer.status_code, job["reason"], job["eta_s"]) == (202, NO_WORKER, None)
    assert answer.headers["x-fleet-queue-reason"] == NO_WORKER
    assert (view["position"], view["reason"]) == (1, NO_WORKER)
    assert (first["id"], first["reason"]) == ("1-0", NO_WORKER)


async def test_it_runs_as_soon_as_a_worker_claims(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await scale_to_zero(at)
        ids = [(await at.http.post(PATH, json=CHAT)).json()["id"] for _ in range(2)]
        second = (await at.http.get(f"/api/v1/jobs/{ids[1]}")).json()
        claimed = await at.relay.claim()

    assert second["reason"] == f"{NO_WORKER}; 1 job before yours"
    assert claimed.record.id == ids[0]
    assert claimed.record.backend == "scripted"


@pytest.mark.parametrize("body", [{}, {"backend": "scripted"}])
async def test_a_client_may_refuse_to_wait(body: dict[str, str], shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await scale_to_zero(at)
        by_header = await at.http.post(PATH, json=CHAT | body, headers=REFUSE)
        by_body = await at.http.post(PATH, json=CHAT | body | {"on_no_worker": "refuse"})

    for answer in (by_header, by_body):
        assert "scripted.chat" in problem(answer, 503, "no_worker")["detail"]


async def test_a_shim_may_refuse_by_default_and_a_request_still_wait(redis_url: str) -> None:
    with serving(redis_url, on_no_worker="refuse") as shim:
        async with stage(shim, redis_url) as at:
            await scale_to_zero(at)
            refused = await at.http.post("/v1/chat/completions", json=CHAT)
            waits = await at.http.post(PATH, json=CHAT | {"on_no_worker": "wait"})

    assert (refused.status_code, waits.status_code) == (503, 202)


async def test_what_is_remembered_decides_as_a_live_report_would(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await scale_to_zero(at, "sees", ModelReport(name="v", traits=("chat", "vision")))
        await scale_to_zero(at, "reads", ModelReport(name="t", traits=("chat",), lacks=("vision",)))
        part = {"type": "image", "image": "data:image/png;base64,iVBORw0KGgo="}
        picture = {"role": "user", "content": [part]}
        wrong = await at.http.post(PATH, json={"model": "t", "messages": [picture]})
        right = await at.http.post(PATH, json={"model": "v", "messages": [picture]})
        unknown = await at.http.post(PATH, json={**CHAT, "model": "nobody"})

    assert "vision" in problem(wrong, 400, "not_supported")["detail"]
    assert (right.status_code, right.json()["queue"]) == (202, "sees.chat")
    problem(unknown, 404, "unknown_model")


async def test_a_live_backend_is_preferred_to_one_that_must_start(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await scale_to_zero(at, "asleep")
        await at.announce("awake", healthy=False)
        answer = await at.http.post(PATH, json=CHAT)

    assert answer.json()["queue"] == "awake.chat"
    assert "x-fleet-queue-reason" not in answer.headers


async def test_known_models_and_backends_are_listed_as_without_worker(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await scale_to_zero(at)
        (backend,) = (await at.http.get("/api/v1/backends")).json()["backends"]
        (model,) = (await at.http.get("/api/v1/models")).json()["models"]
        openai = (await at.http.get("/v1/models")).json()["data"]
        ollama = (await at.http.get("/api/tags")).json()["models"]
        shown = await at.http.post("/api/show", json={"model": "m"})
        waiting = (await at.http.get("/api/v1/queues")).json()["queues"]

    assert (backend["healthy"], backend["workers"], backend["queues"]) == (False, [], [])
    assert backend["error"] == "no worker is live"
    assert "scripted.chat" in backend["known_queues"]
    assert backend["last_seen_at"] > 0
    assert (model["name"], model["workers"]) == ("m", 0)
    assert [each["id"] for each in openai] == [each["name"] for each in ollama] == ["m"]
    assert shown.status_code == 200
    assert sum(each["depth"] for each in waiting) == 0


async def test_a_kind_whose_workers_are_gone_waits_beside_another_that_is_served(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await scale_to_zero(at)
        whole = await at.announce(name="whole")
        await at.relay.roster.leave("whole")
        embeds = [queue for queue in whole.queues if queue.kind == "embed"]
        only = {"name": "only-embeds", "queues": tuple(embeds)}
        await at.relay.roster.report(whole.model_copy(update=only))
        answer = await at.http.post(PATH, json={**CHAT, "backend": "scripted"})

    assert answer.headers["x-fleet-queue-reason"] == NO_WORKER


async def test_a_removed_backend_is_forgotten(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await scale_to_zero(at)
        removed = (await at.http.delete("/api/v1/backends/scripted")).json()
        again = await at.http.delete("/api/v1/backends/scripted")
        refused = await at.http.post(PATH, json=CHAT)
        keys = await at.relay.connection.command("KEYS", "*known*")

    assert removed == {"name": "scripted", "workers": 0, "forgotten": True, "waiting": 0}
    problem(again, 404, "unknown_backend")
    problem(refused, 503, "no_worker")
    assert keys == []


async def test_a_configured_backend_is_known_before_its_first_worker(redis_url: str) -> None:
    known = {"scripted": {"capabilities": ["chat"], "models": ["m"], "slots": 4}}
    with serving(redis_url, known_backends=known) as shim:
        async with stage(shim, redis_url) as at:
            answer = await at.http.post(PATH, json=CHAT)
            before = (await at.http.get("/api/v1/backends")).json()["backends"]
            await at.announce("scripted", "n")
            after = (await at.http.get("/v1/models")).json()["data"]

    assert (answer.status_code, answer.json()["queue"]) == (202, QUEUE)
    assert [each["last_seen_at"] for each in before] == [None]
    assert [each["id"] for each in after] == ["n"]


async def test_who_waits_for_a_worker_has_a_deadline(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        await scale_to_zero(at)
        body = {"model": "m", "input": ["text"], "backend": "scripted"}
        waits = (await at.http.post("/api/v1/jobs/embed", json=body)).json()["id"]
        await at.announce(name="another")
        soon = (await at.http.post("/api/v1/jobs/embed", json=body)).json()["id"]
        views = [(await at.http.get(f"/api/v1/jobs/{each}")).json() for each in (waits, soon)]

    assert views[0]["deadline_at"] - views[0]["created_at"] == 30 * 86400
    assert views[1]["deadline_at"] is None


async def test_a_stream_of_a_drop_in_client_says_what_it_waits_for(redis_url: str) -> None:
    with serving(redis_url, keepalive_s=0.2) as shim:
        async with (
            stage(shim, redis_url) as at,
            httpx.AsyncClient(base_url=shim, timeout=10) as http,
        ):
            await scale_to_zero(at)
            body = {**CHAT, "stream": True}
            async with http.stream("POST", "/v1/chat/completions", json=body) as response:
                line = await anext(response.aiter_lines())

    assert response.headers["x-fleet-queue-reason"] == NO_WORKER
    assert line == f": {NO_WORKER}"


async def test_a_job_that_is_enqueued_anyway_says_that_it_waits_for_a_worker(
    shim: str, redis_url: str
) -> None:
    async with stage(shim, redis_url) as at:
        await scale_to_zero(at)
        jobs = []
        for backend in ("scripted", "nobody"):
            body = {**CHAT, "backend": backend, "on_no_worker": "refuse"}
            jobs.append((await at.http.post(f"{PATH}?enqueue_anyway=true", json=body)).json())
        await at.announce("scripted", name="another")
        served = {**CHAT, "backend": "scripted"}
        jobs.append((await at.http.post(f"{PATH}?enqueue_anyway=true", json=served)).json())

    assert [job["reason"] for job in jobs[:2]] == [NO_WORKER, NO_WORKER]
    assert not jobs[2]["reason"].startswith(NO_WORKER)
