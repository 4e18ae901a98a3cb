"""The way of a job through the worker: calls go down, one observer reports up; its images."""

import asyncio
import logging
import sys
from collections.abc import Coroutine
from types import FrameType
from typing import Any

import pytest
from support.lifetime import lifetime
from support.relay import QUEUE, chat, relay_on

from contract.chat import ImagePart, Message, TextPart
from relay.claims import Claim, Claims, StartedJob
from workers.scripted.backend import Scripted


def project_module(frame: FrameType | None) -> str:
    """The module of the nearest frame that is ours, upwards."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith(("workers.", "relay.")):
            return name
        frame = frame.f_back
    return ""


class Calls:
    """Who calls whom among the modules of workers and relay."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        callee = str(frame.f_globals.get("__name__", ""))
        if event == "call" and callee.startswith(("workers.", "relay.")):
            caller = project_module(frame.f_back)
            if caller and caller != callee:
                self.seen.add((caller, callee))


async def calls_of_one_job(redis_url: str) -> set[tuple[str, str]]:
    calls = Calls()
    async with relay_on(redis_url) as relay, lifetime(redis_url) as worker_lifetime:
        record, _ = await relay.queue.enqueue(
            chat().model_copy(update={"model": "scripted-story:chunks=3"}), queue=QUEUE
        )
        sys.setprofile(calls)
        try:
            await worker_lifetime.worker.work(QUEUE)
        finally:
            sys.setprofile(None)
        assert (await relay.records.get(record.id)).status == "done"
    return calls.seen


async def test_the_relay_calls_nothing_in_the_worker(redis_url: str) -> None:
    calls = await calls_of_one_job(redis_url)
    back = {call for call in calls if call[0].startswith("relay.") and "workers." in call[1]}

    assert ("workers.worker", "relay.claims") in calls
    assert back == set()


async def test_the_only_module_that_calls_back_into_the_worker_is_the_run(redis_url: str) -> None:
    calls = await calls_of_one_job(redis_url)
    climbs = {caller for caller, callee in calls if callee == "workers.worker"}

    assert climbs == {"workers.run"}


async def test_a_job_costs_two_asyncio_tasks_and_one_log_line_at_most(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    jobs, tasks, loop = 10, 0, asyncio.get_running_loop()

    def counted(
        loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **more: Any
    ) -> asyncio.Task[Any]:
        nonlocal tasks
        tasks += 1
        return asyncio.Task(work, loop=loop, **more)

    async with relay_on(redis_url) as relay, lifetime(redis_url) as worker_lifetime:
        one = chat().model_copy(update={"model": "scripted-story:chunks=3"})
        records = [(await relay.queue.enqueue(one, queue=QUEUE))[0] for _ in range(jobs)]
        caplog.set_level(logging.INFO)
        loop.set_task_factory(counted)
        try:
            await worker_lifetime.worker.work(QUEUE)
        finally:
            loop.set_task_factory(None)
        assert [(await relay.records.get(each.id)).status for each in records] == ["done"] * jobs
    lines = [each for each in caplog.records if each.name.startswith(("workers.", "relay."))]

    assert tasks / jobs <= 2
    assert len(lines) == jobs
    assert {each.facts["outcome"] for each in lines} == {"done"}  # type: ignore[attr-defined]
    assert [each.facts["job"] for each in lines] == [each.id for each in records]  # type: ignore[attr-defined]


@pytest.mark.parametrize("passes", [False, True])
async def test_only_with_pass_image_urls_is_a_url_left_to_a_backend_that_fetches(
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    passes: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(Scripted, "accepts_image_urls", True, raising=False)
    image = ImagePart(image="http://127.0.0.1:1/latest/meta-data")
    request = chat().model_copy(
        update={
            "model": "scripted-story:chunks=3",
            "messages": (Message(role="user", content=(TextPart(text="?"), image)),),
        }
    )
    async with relay_on(redis_url) as relay, lifetime(redis_url, passes=passes) as worker_lifetime:
        record, _ = await relay.queue.enqueue(request, queue=QUEUE)
        await worker_lifetime.worker.work(QUEUE)
        done = await relay.records.get(record.id)

    assert done.status == ("done" if passes else "failed")


async def test_a_job_that_was_assigned_keeps_its_lease_while_a_crowded_worker_starts_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"lease_s": 1.0, "renew_s": 0.2, "reap_s": 0.1}
    start = Claims.start

    async def late(claims: Claims, claim: Claim, *labels: str) -> StartedJob | None:
        await asyncio.sleep(2.5)
        return await start(claims, claim, *labels)

    async with relay_on(redis_url, **times) as relay, lifetime(redis_url, **times) as one:
        state = one.worker._state
        session = asyncio.create_task(one.worker.work(QUEUE))
        async with asyncio.timeout(5):
            while state.sessions.of(QUEUE) is None or state.slots.taken[QUEUE]:
                await asyncio.sleep(0.02)
        monkeypatch.setattr(Claims, "start", late)
        record, _ = await relay.queue.enqueue(
            chat().model_copy(update={"model": "scripted-story:chunks=3"}), queue=QUEUE
        )
        claim = await relay.claims.claim(QUEUE, state.name)
        assert claim is not None
        one.worker.accept(claim)
        reaped = 0
        async with asyncio.timeout(10):
            while (seen := await relay.records.get(record.id)).status != "done" and not reaped:
                reaped = await relay.leases.reap()
                await asyncio.sleep(0.05)
        session.cancel()
        await asyncio.wait([session], timeout=5)

    assert reaped == 0
    assert seen.attempt == 1
    assert state.held.attempts() == {}
