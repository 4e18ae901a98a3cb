"""Any Celery application is a producer: its message is a job, and the ticket of that job."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery
from support.processes import until_logged, worker
from support.redis_server import RedisServer
from support.redis_users import ADMIN, user_url
from support.relay import Relay, chat, relay_on
from support.shim import serving

from contract.events import Failed
from contract.redis_keys import job_id
from fleet import Client
from fleet.client.errors import GaveUpWaiting

ASK = {
    "model": "scripted-story:chunks=5",
    "messages": [{"role": "user", "content": "hello"}],
}


def sender(url: str) -> Celery:
    """Somebody's own project, which knows nothing of us but a broker's address."""
    return Celery("theirs", broker=url, set_as_current=False)


async def ended(relay: Relay, task: str) -> str:
    """Wait for the job of a task to end; its status."""
    async with asyncio.timeout(20):
        while True:
            record = await relay.records.find(job_id(task))
            if record is not None and record.ended_at:
                return record.status
            await asyncio.sleep(0.02)


async def send(
    url: str, task: str = "fleet.chat", queue: str = "scripted.chat", **more: object
) -> str:
    options = {"kwargs": ASK, **more}
    result = await asyncio.to_thread(sender(url).send_task, task, queue=queue, **options)
    return str(result.id)


async def test_a_message_of_another_application_becomes_a_job(
    redis_url: str, tmp_path: Path
) -> None:
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            task = await send(redis_url)
            status = await ended(relay, task)
            said = (await relay.result(job_id(task))).content

            assert (status, len(said.split())) == ("done", 5)


async def test_an_operator_takes_a_queue_from_a_worker_until_it_is_added_again(
    redis_url: str, tmp_path: Path
) -> None:
    control, queue = sender(redis_url).control, "scripted.chat"
    one_chat = chat().model_copy(update={"model": "scripted-echo"})
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            first = await send(redis_url)
            await ended(relay, first)
            # Its slot still waits for a next job.
            await asyncio.to_thread(control.cancel_consumer, queue, reply=True, limit=1)
            await until_logged(one, f"Canceling queue {queue}")
            record, _ = await relay.queue.enqueue(one_chat, queue=queue)
            await asyncio.sleep(0.5)  # longer than a poll of the consumer
            assert (await relay.records.get(record.id)).status == "queued"

            await asyncio.to_thread(control.add_consumer, queue, reply=True, limit=1)
            assert await ended(relay, record.id) == "done"


async def test_its_result_is_read_with_the_client_by_the_tasks_id(
    redis_url: str, tmp_path: Path
) -> None:
    with worker(redis_url, tmp_path) as one, serving(redis_url) as shim:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
        task = await send(redis_url)

        def read() -> str:
            with Client(shim) as fleet:
                job = fleet.job(task)
                job.registered(timeout_s=10)
                return job.result(timeout_s=10).content

        assert len((await asyncio.to_thread(read)).split()) == 5


async def test_a_task_id_that_is_no_uuid_is_a_job_too(redis_url: str, tmp_path: Path) -> None:
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            await send(redis_url, task_id="invoice 7")

            assert await ended(relay, "invoice 7") == "done"


async def test_the_same_message_twice_is_one_job(redis_url: str, tmp_path: Path) -> None:
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            id = str(uuid4())
            for _ in range(3):
                await send(redis_url, task_id=id)
            await ended(relay, id)
            frames = await relay.frames(job_id(id))

            assert [f.type for f in frames].count("started") == 1


async def test_messages_that_wait_have_a_place_and_can_be_cancelled(
    redis_url: str, tmp_path: Path
) -> None:
    with worker(redis_url, tmp_path, FLEET_REAP_S="0.2", LLM_BOX="scripted://?slots=1",
                backend="box") as one:  # fmt: skip
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            slow = {**ASK, "model": "scripted-story:chunks=10000,rate=20"}
            busy = await send(redis_url, queue="box.chat", kwargs=slow)
            async with asyncio.timeout(20):
                while not ((first := await relay.records.find(job_id(busy))) and first.started_at):
                    await asyncio.sleep(0.02)
            waiting = await send(redis_url, queue="box.chat")
            async with asyncio.timeout(20):
                while (record := await relay.records.find(job_id(waiting))) is None:
                    await asyncio.sleep(0.02)
                # The message leaves the list after its job is registered.
                while b"fleet.chat" in b"".join(
                    await relay.connection.command("LRANGE", "box.chat", 0, -1)
                ):
                    await asyncio.sleep(0.02)

            assert (await relay.queue.positions.place(record)).position == 1
            assert (await relay.queue.cancel(record.id, by="test")).status == "cancelled"
            await relay.queue.cancel(job_id(busy), by="test")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"kwargs": {"model": "m"}}, "keyword argument messages"),
        ({"kwargs": {**ASK, "temprature": 1}}, "keyword argument temprature"),
        ({"args": ["hello"]}, "keyword argument args"),
        ({"task": "fleet.embed"}, "would be queue scripted.embed"),
        ({"headers": {"fleet_tenant": "No Such!"}}, "fleet_tenant"),
    ],
)
async def test_what_is_no_request_is_a_failed_job_with_the_reason(
    redis_url: str, tmp_path: Path, more: dict[str, object], why: str
) -> None:
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            task = await send(redis_url, **more)  # type: ignore[arg-type]

            assert await ended(relay, task) == "failed"
            error = (await relay.result(job_id(task))).error
            assert error is not None
            assert (error.code, why in error.message) == ("invalid_request", True)


async def test_a_header_names_the_tenant(redis_url: str, tmp_path: Path) -> None:
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            task = await send(redis_url, headers={"fleet_tenant": "billing"})
            await ended(relay, task)

            assert (await relay.records.get(job_id(task))).tenant == "billing"


async def test_redis_that_restarts_between_send_and_start_costs_no_job(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    task = await send(own_redis.url)
    await asyncio.to_thread(own_redis.restart)
    with worker(own_redis.url, tmp_path) as one:
        async with relay_on(own_redis.url) as relay:
            await one.ready(relay)

            assert await ended(relay, task) == "done"


async def test_a_producer_gets_an_error_when_no_worker_takes_a_message(redis_url: str) -> None:
    nobody = pytest.raises(GaveUpWaiting, match="is there one for the queue")
    with serving(redis_url) as shim, Client(shim) as fleet, nobody:
        await asyncio.to_thread(fleet.job(str(uuid4())).registered, 0.2)


def test_a_project_of_its_own_needs_nothing_of_ours(redis_url: str, tmp_path: Path) -> None:
    """The lines of docs/celery.md, in a process that cannot import the fleet."""
    lines = (Path(__file__).parents[2] / "docs" / "celery.md").read_text().split("```python\n")[1]
    script = tmp_path / "theirs.py"
    script.write_text(lines.split("```")[0].replace("redis://127.0.0.1:6379/0", redis_url))
    ran = subprocess.run(
        [sys.executable, "-I", str(script)], capture_output=True, text=True, timeout=30, check=True
    )

    assert len(ran.stdout.strip()) == 36


async def failure(url: str, folder: Path, task: str, queue: str, **fields: object) -> Failed:
    """How a job of a producer ends that its worker has to refuse."""
    with worker(url, folder) as one:
        async with relay_on(url) as relay:
            await one.ready(relay)
            id = await send(url, task, queue, kwargs=fields)
            assert await ended(relay, id) == "failed"
            error = (await relay.result(job_id(id))).error
    assert error is not None
    return error


async def test_a_producer_with_a_model_of_another_kind_reads_which_models_are(
    redis_url: str, tmp_path: Path
) -> None:
    ask = {**ASK, "model": "scripted-embed"}
    error = await failure(redis_url, tmp_path, "fleet.chat", "scripted.chat", **ask)

    assert error.code == "wrong_kind"
    assert "scripted-embed is for embed jobs, not for chat; models for chat: " in error.message


async def test_a_producer_whose_model_is_missing_gets_close_names(
    redis_url: str, tmp_path: Path
) -> None:
    error = await failure(
        redis_url, tmp_path, "fleet.show", "scripted.show", model="scripted-stori"
    )

    assert error.code == "model_missing"
    assert "close names: scripted-story" in error.message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["inspect", "ping"], "pong"),
        (["inspect", "active_queues"], "scripted.chat"),
        (["control", "cancel_consumer", "scripted.embed"], "no longer consuming"),
        (["status"], "1 node online"),
    ],
    ids=lambda words: words if isinstance(words, str) else " ".join(words),
)
async def test_celerys_command_with_the_workers_application_reads_their_replies(
    redis_url: str, tmp_path: Path, words: list[str], expected: str
) -> None:
    celery = [sys.executable, "-m", "celery", "-A", "workers.app", *words]
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
        ran = await asyncio.to_thread(
            subprocess.run, celery, capture_output=True, text=True, timeout=60, check=False,
            env={
                **os.environ,
                "FLEET_REDIS_URL": user_url(redis_url, ADMIN),
                "FLEET_WORKER_BACKEND": "scripted",
            },
        )  # fmt: skip

    assert (ran.returncode, ran.stderr) == (0, "")
    assert expected in ran.stdout
