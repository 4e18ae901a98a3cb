"""Texts that are not kept, and a tenant that is deleted while its clients send, in a real fleet.

Subjects: relay/lua/shared/retention.lua, api_shim/tenants/tenant_eraser.py.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI
from support.batches import begun, echo, ended, lines
from support.keys import Keyed, client, keyed
from support.processes import WorkerProcess, worker
from support.redis_server import RedisServer
from support.relay import Relay, relay_on
from support.up import wait_until

from contract import redis_keys

SECRET = "the patient in room 41"
TIMES = {"lease_s": 1, "renew_s": 0.3, "reap_s": 0.3, "retention_grace_s": 1}
ENV = {f"FLEET_{name.upper()}": str(value) for name, value in TIMES.items()}
LONG = {
    "model": "scripted-story:chunks=60,rate=30",
    "backend": "scripted",
    "messages": [{"role": "user", "content": SECRET}],
    "retention": "none",
}


@pytest.fixture
def fleet(own_redis: RedisServer) -> Iterator[Keyed]:
    with keyed(own_redis.url, **TIMES) as fleet:
        yield fleet


async def holding(relay: Relay, text: str) -> list[str]:
    """Keys that hold a text."""
    found = []
    for key in await relay.connection.command("KEYS", "fleet:*"):
        kind = await relay.connection.command("TYPE", key)
        read = {"hash": ("HGETALL", key), "stream": ("XRANGE", key, "-", "+")}.get(
            kind.decode() if isinstance(kind, bytes) else kind
        )
        if read and text.encode() in repr(await relay.connection.command(*read)).encode():
            found.append(key.decode())
    return found


async def test_a_killed_worker_leaves_no_text_behind(
    fleet: Keyed, own_redis: RedisServer, tmp_path: Path
) -> None:
    def started() -> WorkerProcess:
        return WorkerProcess(own_redis.url, tmp_path, **ENV, LLM_SCRIPTED="scripted://")

    heard, kept = "", []
    async with relay_on(own_redis.url) as relay, fleet.admin as admin:
        workers = [started()]
        try:
            await workers[0].ready(relay)
            job = (await admin.post("/api/v1/jobs/chat", json=LONG)).json()["id"]
            async with admin.stream("GET", f"/api/v1/jobs/{job}/events") as events:
                async for text in events.aiter_text():
                    heard += text
                    if "event: delta" in heard and len(workers) == 1:
                        kept = await holding(relay, SECRET)
                        workers[0].end()
                        workers.append(started())
            await asyncio.sleep(2.5)  # the grace, and Redis's own look for what has expired
            left = await holding(relay, SECRET)
            record = (await admin.get(f"/api/v1/jobs/{job}", params={"result": False})).json()
            gone = await admin.get(f"/api/v1/jobs/{job}/events")
        finally:
            for each in workers:
                each.end()

    assert heard.rstrip().splitlines()[-2] == "event: done"
    assert (len(kept), left) == (1, [])
    assert (record["status"], record["attempt"]) == ("done", 2)
    assert gone.status_code == 410


async def test_a_batch_of_a_key_that_keeps_nothing_has_its_answers(
    fleet: Keyed, own_redis: RedisServer, tmp_path: Path
) -> None:
    key = fleet.issue("clinic", retention="none")["key"]
    with worker(own_redis.url, tmp_path, LLM_SCRIPTED="scripted://", **ENV):
        with httpx.Client(base_url=fleet.url, headers={"authorization": f"Bearer {key}"}) as ask:
            wait_until(lambda: ask.get("/api/v1/models").json()["models"])
        with OpenAI(base_url=f"{fleet.url}/v1", api_key=key) as openai:
            batch = ended(openai, begun(openai, [echo(number) for number in range(5)]))
            answers = lines(openai, batch.output_file_id)

    assert batch.status == "completed"
    assert len(answers) == 5


async def test_a_tenant_is_deleted_while_its_clients_send(
    fleet: Keyed, own_redis: RedisServer, tmp_path: Path
) -> None:
    key = fleet.issue("clinic")["key"]
    ask = {**LONG, "retention": "ttl"}
    statuses: list[int] = []

    async def send() -> None:
        async with client(fleet.url, key) as clinic:
            while not statuses or statuses[-1] != 401:
                answer = await clinic.post("/api/v1/jobs/chat", json=ask)
                statuses.append(answer.status_code)

    with worker(own_redis.url, tmp_path, LLM_SCRIPTED="scripted://", **ENV):
        async with relay_on(own_redis.url) as relay, fleet.admin as admin:
            while not (await admin.get("/api/v1/models")).json()["models"]:
                await asyncio.sleep(0.05)
            sending = [asyncio.create_task(send()) for _ in range(3)]
            while len(statuses) < 30:
                await asyncio.sleep(0.01)
            begun = await admin.delete("/api/v1/tenants/clinic", params={"confirm": "clinic"})
            async with asyncio.timeout(60):
                await asyncio.gather(*sending)
                path = "/api/v1/tenants/clinic/deletion"
                while (receipt := (await admin.get(path)).json())["status"] == "running":
                    await asyncio.sleep(0.1)
            left = await holding(relay, SECRET)
            jobs = await relay.connection.command("EXISTS", redis_keys.recent("clinic"))

    assert begun.status_code == 202
    assert receipt["status"] == "done", receipt
    assert receipt["counts"]["jobs"] == statuses.count(202)
    assert receipt["counts"]["api_keys"] == 1
    assert (left, jobs) == ([], 0)
