"""Whatever stands in a ticket list, the worker serves on, and nothing is lost without a word."""

import asyncio
import base64
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from support.processes import worker
from support.relay import Relay, relay_on

from contract.errors import RelayUnavailable
from contract.jobs import any_request
from contract.redis_keys import job_id
from relay.tickets import message, ticket

QUEUE = "scripted.chat"
ASK = {"model": "scripted-story:chunks=3", "messages": [{"role": "user", "content": "hello"}]}


def envelope(**changed: Any) -> str:
    """A well-formed ticket with something changed."""
    return json.dumps({**json.loads(ticket(QUEUE)), **changed})


def packed(body: Any) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


def headed(**headers: Any) -> str:
    return envelope(headers={**json.loads(ticket(QUEUE))["headers"], **headers})


def foreign(task: str = "fleet.chat", body: Any = None, **headers: Any) -> str:
    fields = json.loads(message(task, ASK, QUEUE))
    fields["headers"] |= headers
    if body is not None:
        fields["body"] = packed(body)
    return json.dumps(fields)


BROKEN = {
    "a body that is no triple": envelope(body=packed({"a": 1})),
    "a body of another length": envelope(body=packed([[], {}])),
    "arguments that are no mapping": envelope(body=packed([[], ["queue"], {}])),
    "an embed that is no mapping": envelope(body=packed([[], {"queue": QUEUE}, 7])),
    "no base64": envelope(body="%%%"),
    "a body that is no JSON": envelope(body=base64.b64encode(b"{").decode()),
    "no JSON": "{",
    "no text": "\x00\x01",
    "no UTF-8": b"\xff\xfe\xfd",
    "deep": "[" * 100_000,
    "an endless number": "9" * 10_000,
    "a number": "7",
    "a list": "[]",
    "null": "null",
    "an empty object": "{}",
    "an empty entry": "",
    "no headers": envelope(headers=None),
    "headers that are a list": envelope(headers=["task"]),
    "no properties": envelope(properties=None),
    "no delivery tag": envelope(properties={"body_encoding": "base64"}),
    "a delivery tag that is a list": envelope(
        properties={"delivery_tag": [], "body_encoding": "base64", "delivery_info": {}}
    ),
    "another content type": envelope(
        **{"content-type": "application/x-python-serialize", "content-encoding": "binary",
           "body": base64.b64encode(pickle.dumps([[], {}, {}])).decode()}
    ),
    "an unknown content type": envelope(**{"content-type": "application/nonsense"}),
    "an unknown compression": headed(compression="application/x-nothing"),
    "an unknown task": headed(task="their.task"),
    "a task that is a list": headed(task=["fleet.ticket"]),
    "no id": headed(id=None),
    "a time limit that is none": headed(timelimit=5),
    "an expiry that is none": headed(expires="soon"),
    "an eta that is none": headed(eta="later"),
    "retries that are none": headed(retries="many"),
    "a huge one": envelope(body="A" * (5 * 2**20)),
}  # fmt: skip


async def still_serves(relay: Relay) -> None:
    """A job after it is done."""
    request = any_request.validate_python({"kind": "chat", **ASK})
    record, _ = await relay.queue.enqueue(request, queue=QUEUE)
    frames = await relay.frames(record.id)

    assert frames[-1].type == "done"


async def kept(relay: Relay, count: int) -> list[Any]:
    async with asyncio.timeout(15):
        while len(found := (await relay.unreadable.page()).messages) < count:
            await asyncio.sleep(0.02)
    return list(found)


async def test_every_malformed_message_is_set_aside_and_the_worker_serves_on(
    redis_url: str, tmp_path: Path
) -> None:
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            for raw in BROKEN.values():
                await relay.connection.command("LPUSH", QUEUE, raw)
            found = await kept(relay, len(BROKEN))
            await still_serves(relay)

            assert one.popen.poll() is None, one.text()
            assert len(found) == len(BROKEN)
            assert (await relay.unreadable.page()).total == len(BROKEN)
            assert await relay.connection.command("LLEN", QUEUE) == 0


async def test_each_is_kept_with_its_bytes_and_a_reason(redis_url: str, tmp_path: Path) -> None:
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            for name, raw in BROKEN.items():
                data = raw if isinstance(raw, bytes) else raw.encode()
                await relay.connection.command("LPUSH", QUEUE, raw)
                (found,) = await kept(relay, 1)
                await relay.unreadable.purge()

                assert (name, found.queue, found.size_bytes) == (name, QUEUE, len(data))
                assert base64.b64decode(found.data) == data[: 64 * 1024]
                assert found.reason


async def failed(relay: Relay, task: str) -> str:
    async with asyncio.timeout(15):
        while (record := await relay.records.find(job_id(task))) is None or not record.ended_at:
            await asyncio.sleep(0.02)
    error = (await relay.result(record.id)).error
    assert error is not None
    return f"{record.status} {error.code}: {error.message}"


MEANT = {
    "t1": (foreign(id="t1", body={"a": 1}), "is not [args, kwargs, embed]"),
    "t2": (foreign(id="t2", timelimit=5), "timelimit"),
    "t3": (foreign(id="t3", eta="later"), "eta"),
}


async def test_what_was_to_be_a_job_is_a_failed_one_besides(redis_url: str, tmp_path: Path) -> None:
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            for task, (raw, why) in MEANT.items():
                await relay.connection.command("LPUSH", QUEUE, raw)
                told = await failed(relay, task)
                (found,) = await kept(relay, 1)
                await relay.unreadable.purge()

                assert told.startswith("failed invalid_request")
                assert (found.job_id, why in told) == (job_id(task), True)


HALF = "half \ud83d"


NO_TEXT = [
    ({**ASK, "messages": [{"role": "user", "content": HALF}]}, "messages.0.content"),
    ({**ASK, "model": HALF}, "model"),
    ({**ASK, "metadata": {HALF: "x"}}, "metadata"),
    ({**ASK, HALF: 1}, "the name of a field"),
    ({**ASK, "self": 1}, "keyword argument self"),
]


async def test_a_lone_surrogate_is_a_failed_job_that_names_the_field(
    redis_url: str, tmp_path: Path
) -> None:
    with worker(redis_url, tmp_path) as one:
        async with relay_on(redis_url) as relay:
            await one.ready(relay)
            theirs = Celery("theirs", broker=redis_url, set_as_current=False)
            for kwargs, where in NO_TEXT:
                sent = await asyncio.to_thread(
                    theirs.send_task, "fleet.chat", kwargs=kwargs, queue=QUEUE
                )
                told = await failed(relay, str(sent.id))

                assert told.startswith("failed invalid_request")
                assert where in told
            await relay.connection.command("LPUSH", QUEUE, foreign(id=HALF))
            async with asyncio.timeout(15):
                while await relay.records.find(job_id(HALF)) is None:
                    await asyncio.sleep(0.02)
            await still_serves(relay)


async def test_no_more_are_kept_than_a_thousand(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for _ in range(1003):
            await relay.unreadable.put(QUEUE, reason="r", size_bytes=1, data=b"x")

        assert await relay.unreadable.count() == 1000
        assert (await relay.unreadable.page()).total == 1003


async def test_a_queues_key_that_is_no_list_is_named_once_and_other_queues_are_served(
    redis_url: str, tmp_path: Path
) -> None:
    async with relay_on(redis_url) as relay:
        with worker(redis_url, tmp_path) as one:
            await one.ready(relay)
            await relay.connection.command("SET", "scripted.embed", "oops")
            asks = [any_request.validate_python({"kind": "chat", **ASK}) for _ in range(3)]
            for ask in asks:
                job, _ = await relay.queue.enqueue(ask, queue=QUEUE)
                async with asyncio.timeout(20):
                    assert (await relay.frames(job.id))[-1].type == "done"
                await asyncio.sleep(0.5)

            assert one.text().count("key scripted.embed in Redis is a string") == 1
            assert "Connection to broker lost" not in one.text()
            assert one.popen.poll() is None

            await relay.connection.command("DEL", "scripted.embed")
            embed = any_request.validate_python(
                {"kind": "embed", "model": "scripted-embed", "input": ["a"]}
            )
            job, _ = await relay.queue.enqueue(embed, queue="scripted.embed")
            async with asyncio.timeout(30):
                assert (await relay.frames(job.id))[-1].type == "done"


async def test_a_job_for_such_a_queue_is_refused_for_now(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.connection.command("SET", QUEUE, "oops")
        ask = any_request.validate_python({"kind": "chat", **ASK})

        with pytest.raises(RelayUnavailable, match="holds what another program wrote"):
            await relay.queue.enqueue(ask, queue=QUEUE)
        await relay.connection.command("DEL", QUEUE)
