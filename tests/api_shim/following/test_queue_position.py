"""Why a job waits, in words."""

from typing import Any

import pytest
from support.shim import CHAT, problem, serving, stage

from api_shim.following.queue_position import with_reason
from contract.jobs import QueuePlace
from contract.roster import QueueReport, WorkerReport

THIRD = QueuePlace(position=3, eta_s=4.0, reason="2 jobs before yours")
NEXT = QueuePlace(position=1, eta_s=0.5, reason="next in line")
QUEUE = "box.chat"


def worker(name: str = "w", *, draining: bool = False, **facts: Any) -> WorkerReport:
    queue = QueueReport(name=QUEUE, kind="chat", slots=1, in_flight=1, **facts)
    return WorkerReport(
        v=1, name=name, host="h", pid=1, started_at=0, draining=draining, backends=(),
        queues=(queue,),
    )  # fmt: skip


def test_a_job_waits_for_those_before_it() -> None:
    assert with_reason(THIRD, QUEUE, [worker()]) == THIRD


@pytest.mark.parametrize("workers", [[], [worker(draining=True)]])
def test_without_a_worker_it_waits_for_one_for_an_unknown_time(
    workers: list[WorkerReport],
) -> None:
    told = with_reason(THIRD, QUEUE, workers)

    assert told.reason == "waiting for a worker to start; 2 jobs before yours"
    assert told.eta_s is None


def test_the_next_in_line_waits_for_the_model_that_loads() -> None:
    assert with_reason(NEXT, QUEUE, [worker(loading="qwen3:8b")]).reason == "loading qwen3:8b"


def test_an_open_circuit_is_reported_with_its_time() -> None:
    broken = [worker("a", circuit_open_until=3661.0), worker("b", circuit_open_until=7200.0)]

    assert with_reason(NEXT, QUEUE, broken).reason == "circuit open until 01:01:01 UTC"


def test_the_open_circuit_of_a_model_is_reported_to_its_own_jobs() -> None:
    resting = [worker("a", model_circuits={"mx": 3661.0}), worker("b", circuit_open_until=7200.0)]
    mine = with_reason(NEXT, QUEUE, resting, "mx:latest")

    assert (mine.reason, mine.eta_s) == ("circuit of model mx:latest open until 01:01:01 UTC", None)
    assert with_reason(NEXT, QUEUE, resting, "my") == NEXT


def test_one_worker_whose_circuit_is_closed_is_enough() -> None:
    assert with_reason(NEXT, QUEUE, [worker("a", circuit_open_until=9e9), worker("b")]) == NEXT


async def test_a_job_s_record_has_the_reason_why_it_waits(shim: str, redis_url: str) -> None:
    async with stage(shim, redis_url) as at:
        asked = {**CHAT, "backend": "gone"}
        accepted = await at.http.post("/api/v1/jobs/chat?enqueue_anyway=true", json=asked)
        seen = (await at.http.get(f"/api/v1/jobs/{accepted.json()['id']}")).json()

        assert (seen["position"], seen["reason"]) == (1, "waiting for a worker to start")


async def test_a_full_queue_reports_its_size_and_when_to_retry(redis_url: str) -> None:
    with serving(redis_url, queue_limit=1) as shim:
        async with stage(shim, redis_url) as at:
            await at.announce()
            await at.http.post("/api/v1/jobs/chat", json=CHAT)
            refused = await at.http.post("/api/v1/jobs/chat", json=CHAT)

            told = problem(refused, 429, "queue_full")
            assert (told["queue"], told["scope"]) == ("scripted.chat", "queue")
            assert (told["held"], told["limit"]) == (1, 1)
            assert int(refused.headers["retry-after"]) > 0
