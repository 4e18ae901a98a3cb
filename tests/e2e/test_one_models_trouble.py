"""A failing model does not delay others: real workers, and a server that fails by model."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.answers import Answer, Server, answering, failing, lines, words
from support.processes import worker
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from contract.embeddings import EmbedRequest
from contract.jobs import JobRecord
from workers.scripted.http import Reply

NO_MEMORY = "model requires more system memory (9.0 GiB) than is available (4.2 GiB)"
IN_A_200 = Reply(b'{"error":{"message":"the model choked on this"}}')
RARELY = {"FLEET_REAP_S": "60", "FLEET_BREAKER_OPEN_S": "2"}
"""Reapers that come too late to help."""
SHAPES = {"vllm": words, "ollama": lines}


@asynccontextmanager
async def fleet(
    redis_url: str, folder: Path, type: str = "vllm", options: str = "slots=4", **models: Answer
) -> AsyncGenerator[tuple[Relay, Server]]:
    async with answering(**models) as server, relay_on(redis_url) as relay:
        path = "" if type == "ollama" else "/v1"
        dsn = f"{type}://127.0.0.1:{server.port}{path}?{options}"
        with worker(redis_url, folder, "box", LLM_BOX=dsn, **RARELY) as one:
            await one.ready(relay)
            yield relay, server


async def put(relay: Relay, model: str, count: int, **fields: object) -> list[str]:
    request = ChatRequest(model=model, messages=(Message(role="user", content="hi"),), **fields)
    return [(await relay.queue.enqueue(request, queue="box.chat"))[0].id for _ in range(count)]


async def ended(relay: Relay, jobs: list[str], within_s: float) -> list[JobRecord]:
    async with asyncio.timeout(within_s):
        await asyncio.gather(*(relay.frames(job) for job in jobs))
    return [await relay.records.get(job) for job in jobs]


@pytest.mark.parametrize("type", SHAPES)
async def test_a_model_that_always_fails_starves_no_other(
    redis_url: str, tmp_path: Path, type: str
) -> None:
    async with fleet(
        redis_url, tmp_path, type, mx=lambda _: failing(NO_MEMORY), my=lambda _: SHAPES[type]("hi")
    ) as (relay, server):
        await put(relay, "mx", 6)
        others = await put(relay, "my", 10, deadline_s=100)
        records = await ended(relay, others, within_s=10)

        assert {(record.status, record.attempt) for record in records} == {("done", 1)}
        assert server.asked["my"] == 10


async def test_nor_do_a_thousand_jobs_of_it_at_the_head_of_the_queue(
    redis_url: str, tmp_path: Path
) -> None:
    async with fleet(
        redis_url, tmp_path, mx=lambda _: failing(NO_MEMORY), my=lambda _: words("hi")
    ) as (relay, server):
        await put(relay, "mx", 1000)
        others = await put(relay, "my", 50, deadline_s=100)
        records = await ended(relay, others, within_s=30)

        assert {record.status for record in records} == {"done"}
        assert server.asked["mx"] < 60


async def test_once_it_works_again_its_own_jobs_run(redis_url: str, tmp_path: Path) -> None:
    left = [7]

    def moody(_: object) -> object:
        left[0] -= 1
        return failing(NO_MEMORY) if left[0] >= 0 else words("hi")

    async with fleet(redis_url, tmp_path, mx=moody, my=lambda _: words("hi")) as (relay, server):
        jobs = await put(relay, "mx", 6, max_attempts=5)
        records = await ended(relay, jobs, within_s=40)

        assert {record.status for record in records} == {"done"}
        assert server.asked["mx"] == 6 + 7


@pytest.mark.parametrize("bad", [IN_A_200, None], ids=["error in a 200", "dropped"])
async def test_errors_of_requests_and_dropped_connections_starve_no_other_model(
    redis_url: str, tmp_path: Path, bad: Reply | None
) -> None:
    async with fleet(redis_url, tmp_path, mx=lambda _: bad, my=lambda _: words("hi")) as (
        relay, server,
    ):  # fmt: skip
        await put(relay, "mx", 12)
        records = await ended(relay, await put(relay, "my", 10, deadline_s=100), within_s=10)

        assert {record.status for record in records} == {"done"}
        assert server.asked["my"] == 10


async def test_errors_inside_answers_of_status_200_make_their_model_rest(
    redis_url: str, tmp_path: Path
) -> None:
    async with fleet(redis_url, tmp_path, mx=lambda _: IN_A_200, my=lambda _: words("hi")) as (
        relay, server,
    ):  # fmt: skip
        await put(relay, "mx", 30)
        records = await ended(relay, await put(relay, "my", 10, deadline_s=100), within_s=10)

        assert {record.status for record in records} == {"done"}
        assert server.asked["mx"] < 15


async def test_malformed_vectors_starve_no_other_model(redis_url: str, tmp_path: Path) -> None:
    def one(number: object) -> Answer:
        return lambda body: Reply(
            b'{"data":[%s]}'
            % b",".join(
                b'{"index":%d,"embedding":[%s]}' % (i, number) for i in range(len(body["input"]))
            )
        )

    async def embed(relay: Relay, model: str, count: int) -> list[str]:
        asked = [EmbedRequest(model=model, input=(f"{model} {i}",)) for i in range(count)]
        return [(await relay.queue.enqueue(each, queue="box.embed"))[0].id for each in asked]

    async with fleet(redis_url, tmp_path, mx=one(b'"?"'), my=one(b"0.5")) as (relay, _):
        await embed(relay, "mx", 8)
        records = await ended(relay, await embed(relay, "my", 10), within_s=10)

        assert {record.status for record in records} == {"done"}


async def test_a_router_that_is_at_its_limit_costs_no_attempt(
    redis_url: str, tmp_path: Path
) -> None:
    left = dict.fromkeys(("ma", "mb", "mc"), 4)

    def model(name: str) -> Answer:
        def answer(_: object) -> object:
            left[name] -= 1
            limit = failing("model limit reached, try again later")
            return limit if left[name] >= 0 else words("hi")

        return answer

    async with fleet(redis_url, tmp_path, **{name: model(name) for name in left}) as (relay, _):
        jobs = [job for i in range(20) for job in await put(relay, ["ma", "mb", "mc"][i % 3], 1)]
        records = await ended(relay, jobs, within_s=40)

        assert {record.status for record in records} == {"done"}
        assert {record.tries for record in records} == {1}


async def test_a_half_open_model_is_tried_with_a_job_that_has_not_failed_yet(
    redis_url: str, tmp_path: Path
) -> None:
    # One caller's poison would be at the head again and again: the others' jobs wait behind it.
    def picky(body: dict[str, object]) -> object:
        return failing("crashed") if "poison" in str(body["messages"]) else words("hi")

    async with fleet(redis_url, tmp_path, options="slots=1", m=picky) as (relay, _):
        poison = ChatRequest(
            model="m", messages=(Message(role="user", content="poison"),), max_attempts=50
        )
        for _ in range(5):
            await relay.queue.enqueue(poison, queue="box.chat")
            records = await ended(relay, await put(relay, "m", 5), within_s=20)

        assert {record.status for record in records} == {"done"}
