"""Worker processes that have the model in their own memory: queue, Celery, residence, log."""

import shutil
import signal
from pathlib import Path

import pytest
from support.in_process import ask, needed
from support.processes import worker
from support.relay import Relay, relay_on

from contract import redis_keys
from contract.embeddings import EmbedRequest
from contract.result import Result, fold
from fleet.real.tiny_model import tiny_model

needed("llama_cpp")
pytestmark = pytest.mark.real

LEASES = {"FLEET_LEASE_S": "1", "FLEET_RENEW_S": "0.3", "FLEET_REAP_S": "0.3"}


@pytest.fixture
def dsn(tmp_path: Path) -> dict[str, str]:
    shutil.copy(tiny_model(), tmp_path / "tiny.gguf")
    return {"LLM_LLAMA": f"llama://{tmp_path}/tiny.gguf?threads=1", **LEASES}


async def enqueue(relay: Relay, **fields: object) -> str:
    record, _ = await relay.queue.enqueue(ask(seed=7, **fields), queue="llama.chat")
    return record.id


async def result(relay: Relay, job: str) -> Result:
    return fold(frame.event for frame in await relay.frames(job))


async def owner(relay: Relay) -> bytes | None:
    told = await relay.connection.command("HGET", redis_keys.residence("llama", "tiny"), "owner")
    assert told is None or isinstance(told, bytes)
    return told


async def test_a_worker_chats_and_embeds_without_a_server(
    redis_url: str, tmp_path: Path, dsn: dict[str, str]
) -> None:
    texts = EmbedRequest(model="tiny", input=("a", "b"))
    with worker(redis_url, tmp_path, "llama", **dsn) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            chat = await result(relay, await enqueue(relay))
            record, _ = await relay.queue.enqueue(texts, queue="llama.embed")
            vectors = await result(relay, record.id)
            while_it_lives = await owner(relay)

    assert (chat.status, vectors.status) == ("done", "done")
    assert chat.usage is not None
    assert chat.usage.prompt_tokens == 30
    assert while_it_lives is not None


async def test_two_workers_share_the_jobs_of_one_model(
    redis_url: str, tmp_path: Path, dsn: dict[str, str]
) -> None:
    with (
        worker(redis_url, tmp_path, "llama", **dsn) as one,
        worker(redis_url, tmp_path, "llama", **dsn) as two,
    ):
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            await two.ready(relay)
            jobs = [await enqueue(relay) for _ in range(20)]
            results = [await result(relay, job) for job in jobs]

    assert {result.status for result in results} == {"done"}
    assert len({result.content for result in results}) == 1


async def test_the_model_of_a_killed_worker_is_the_next_ones(
    redis_url: str, tmp_path: Path, dsn: dict[str, str]
) -> None:
    with worker(redis_url, tmp_path, "llama", **dsn) as first:
        async with relay_on(redis_url) as relay:
            await first.ready(relay)
            await result(relay, await enqueue(relay))
            before = await owner(relay)
            first.send(signal.SIGKILL)
            with worker(redis_url, tmp_path, "llama", **dsn) as second:
                await second.ready(relay)
                answered = await result(relay, await enqueue(relay))
                after = await owner(relay)

    assert answered.status == "done"
    assert before != after


async def test_a_worker_that_is_told_to_stop_releases_its_model(
    redis_url: str, tmp_path: Path, dsn: dict[str, str]
) -> None:
    async with relay_on(redis_url) as relay:
        with worker(redis_url, tmp_path, "llama", **{**dsn, "FLEET_LEASE_S": "60"}) as one:
            await one.ready(relay)
            await result(relay, await enqueue(relay))
            held = await owner(relay)
            one.send(signal.SIGTERM)
            one.wait()
            after = await owner(relay)

    assert held is not None
    assert after is None
