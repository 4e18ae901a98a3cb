"""Embed jobs of many callers through a real worker: few requests, and each job its own log."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.fleet import scripted_server
from support.processes import WorkerProcess, worker
from support.relay import Relay, relay_on

from contract.embeddings import EmbedRequest, unpack
from contract.result import Result, fold
from workers.scripted.script import vector

QUEUE = "box.embed"
SLOW = "scripted-embed:dim=16,first=0.2"


@pytest.fixture
def server() -> Iterator[str]:
    with scripted_server() as url:
        yield url


def seen(server: str) -> Any:
    return httpx.get(f"{server}/_seen").json()


async def enqueue(relay: Relay, *texts: str, model: str = SLOW, **fields: Any) -> str:
    request = EmbedRequest(model=model, input=texts, **fields)
    record, _ = await relay.queue.enqueue(request, queue=QUEUE)
    return record.id


async def result(relay: Relay, job: str) -> Result:
    async with asyncio.timeout(40):
        return fold(frame.event for frame in await relay.frames(job))


async def results(relay: Relay, *jobs: str) -> list[Result]:
    return await asyncio.gather(*(result(relay, job) for job in jobs))


def rows(result: Result) -> list[list[float]]:
    found = result.embeddings
    return unpack(found.data, found.dimension) if found else []


def is_of(result: Result, text: str) -> bool:
    (row,) = rows(result)
    return row == pytest.approx(vector(text, len(row)), abs=1e-6)


@asynccontextmanager
async def fleet(
    redis_url: str, folder: Path, server: str, **env: str
) -> AsyncGenerator[tuple[Relay, WorkerProcess]]:
    dsn = server.replace("http://", "llamacpp://") + "/v1?slots=1"
    with worker(redis_url, folder, "box", LLM_BOX=dsn, **env) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            yield relay, one


async def trusted(relay: Relay, model: str = SLOW) -> None:
    """Let the worker find out that texts may share a request."""
    async with asyncio.timeout(60):
        while not await packs(relay, model):
            await results(relay, *[await enqueue(relay, t, model=model) for t in "abcd"])


async def packs(relay: Relay, model: str) -> bool | None:
    (report,) = await relay.roster.workers()
    told = {each.name: each.packs for each in report.backends[0].models}
    return told.get(model)


@pytest.fixture
def listed() -> Iterator[str]:
    with scripted_server([SLOW]) as url:
        yield url


async def test_many_single_texts_become_few_requests(
    redis_url: str, tmp_path: Path, listed: str
) -> None:
    async with fleet(redis_url, tmp_path, listed) as (relay, _):
        await trusted(relay)
        before = len(seen(listed)["texts"])
        texts = [f"text {number}" for number in range(60)]
        answers = await results(relay, *[await enqueue(relay, text) for text in texts])
        sizes = seen(listed)["texts"][before:]

        assert all(is_of(answer, text) for answer, text in zip(answers, texts, strict=True))
        assert sum(sizes) == 60
        assert len(sizes) <= 12
        assert [answer.usage.prompt_tokens for answer in answers if answer.usage] == [2] * 60


async def test_a_bad_text_fails_its_own_job_only(redis_url: str, tmp_path: Path) -> None:
    # openrag #465, pinchy #840.
    model = f"{SLOW},poison=bad,fail=context"
    with scripted_server([model]) as server:
        async with fleet(redis_url, tmp_path, server) as (relay, _):
            await trusted(relay, model)
            texts = [*(f"text {number}" for number in range(12)), "bad"]
            jobs = [await enqueue(relay, text, model=model) for text in texts]
            *well, ill = await results(relay, *jobs)

            assert {answer.status for answer in well} == {"done"}
            assert (ill.status, ill.error and ill.error.code) == ("failed", "context_exceeded")


async def test_a_cancelled_job_leaves_the_request_and_the_others_keep_it(
    redis_url: str, tmp_path: Path
) -> None:
    model = "scripted-embed:dim=16,first=1"
    with scripted_server([model]) as server:
        async with fleet(redis_url, tmp_path, server) as (relay, _):
            await trusted(relay, model)
            jobs = [await enqueue(relay, f"text {n}", model=model) for n in range(6)]
            async with asyncio.timeout(20):
                while (await relay.records.get(jobs[3])).status != "running":
                    await asyncio.sleep(0.01)
            await relay.queue.cancel(jobs[3], by="caller", reason="enough")
            ends = [answer.status for answer in await results(relay, *jobs)]

            assert ends == ["done"] * 3 + ["cancelled"] + ["done"] * 2
            assert seen(server)["aborted"] == 0


async def test_a_deadline_takes_one_job_out_and_leaves_the_others(
    redis_url: str, tmp_path: Path
) -> None:
    model = "scripted-embed:dim=16,first=1.5"
    with scripted_server([model]) as server:
        async with fleet(redis_url, tmp_path, server) as (relay, _):
            await trusted(relay, model)
            long = [await enqueue(relay, f"text {n}", model=model) for n in range(3)]
            short = await enqueue(relay, "late", model=model, deadline_s=0.7)
            late, *others = await results(relay, short, *long)

            assert (late.status, late.error and late.error.code) == ("failed", "deadline_exceeded")
            assert {answer.status for answer in others} == {"done"}


async def test_jobs_of_a_worker_that_dies_are_done_by_the_next(
    redis_url: str, tmp_path: Path, listed: str
) -> None:
    env = {"FLEET_LEASE_S": "1", "FLEET_RENEW_S": "0.3", "FLEET_REAP_S": "0.3"}
    async with fleet(redis_url, tmp_path, listed, **env) as (relay, first):
        await trusted(relay)
        texts = [f"text {number}" for number in range(30)]
        jobs = [await enqueue(relay, text) for text in texts]
        async with asyncio.timeout(20):
            while (await relay.records.get(jobs[5])).status != "running":
                await asyncio.sleep(0.01)
        first.send(signal.SIGKILL)
        async with fleet(redis_url, tmp_path, listed, **env):
            answers = await results(relay, *jobs)

        assert all(is_of(answer, text) for answer, text in zip(answers, texts, strict=True))


async def test_big_jobs_are_not_hoarded(redis_url: str, tmp_path: Path, server: str) -> None:
    async with fleet(redis_url, tmp_path, server) as (relay, one):
        texts = [f"text {number}" for number in range(2000)]
        jobs = [await enqueue(relay, *texts) for _ in range(12)]
        async with asyncio.timeout(20):
            while len(seen(server)["texts"]) < 3:
                await asyncio.sleep(0.01)
        held = [await relay.records.get(job) for job in jobs]

        assert 1 <= sum(record.status == "running" for record in held) <= 4
        one.send(signal.SIGKILL)


async def test_a_vector_that_was_computed_is_not_computed_again(
    redis_url: str, tmp_path: Path, server: str
) -> None:
    async with fleet(redis_url, tmp_path, server, FLEET_EMBED_CACHE_TTL_S="60") as (relay, _):
        (first,) = await results(relay, await enqueue(relay, "known", "other"))
        async with asyncio.timeout(10):
            while True:
                before = len(seen(server)["texts"])
                (again,) = await results(relay, await enqueue(relay, "new", "known"))
                sizes = seen(server)["texts"][before:]
                if sizes == []:
                    break

        assert rows(again)[1] == rows(first)[0]


async def test_without_packing_each_job_has_its_own_request(
    redis_url: str, tmp_path: Path, server: str
) -> None:
    async with fleet(redis_url, tmp_path, server, FLEET_EMBED_PACK="false") as (relay, _):
        (report,) = await relay.roster.workers()
        slots = {queue.name: queue.slots for queue in report.queues}
        before = len(seen(server)["texts"])  # the adapter has asked for the dimension
        await results(relay, *[await enqueue(relay, f"text {n}") for n in range(5)])

        assert slots[QUEUE] == 1
        assert seen(server)["texts"][before:] == [1] * 5
