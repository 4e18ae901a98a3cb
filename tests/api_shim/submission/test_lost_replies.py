"""Jobs whose enqueue Redis has done and whose replies are lost: each waits, once, as a new one.

Subjects: api_shim/submission/submission.py, relay/queue.py, relay/admission/turn_admission.py.
"""

import asyncio
from collections import Counter
from random import Random
from typing import Any

import httpx
import pytest
from support.proxy import proxy_to
from support.redis_server import RedisServer
from support.relay import Relay, relay_on
from support.shim import CHAT, serving, stage

from contract.events import Delta

REQUESTS = 40
KEY = {"Idempotency-Key": "{}"}
CALLS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "plain": ("chat", CHAT, {}),
    "key": ("chat", CHAT, KEY),
    "pull with a key": ("pull", {"model": "m{}"}, KEY),
    "message": ("chat", {**CHAT, "conversation": "c", "conversation_policy": "queue"}, {}),
    "message with a key": (
        "chat", {**CHAT, "conversation": "c", "conversation_policy": "queue"}, KEY,
    ),
    "message with a key that interrupts": (
        "chat", {**CHAT, "conversation": "c{}", "conversation_policy": "interrupt"}, KEY,
    ),
}  # fmt: skip


async def work(relay: Relay, kind: str, started: Counter[str]) -> None:
    """Run what waits, until all requests have begun once."""
    while len(started) < REQUESTS:
        job = await relay.start_next(f"scripted.{kind}", "w1")
        if job is None:
            await asyncio.sleep(0.005)
            continue
        started[job.record.id] += 1
        await relay.run(job, Delta(content="x"))


@pytest.mark.parametrize("what", CALLS)
async def test_no_job_is_lost_doubled_or_taken_for_a_repeated_one(
    redis_server: RedisServer, redis_url: str, what: str
) -> None:
    kind, body, headers = CALLS[what]
    chance, lost = Random(what), 0

    def loses_reply() -> bool:
        nonlocal lost
        is_lost = chance.random() < 0.15
        lost += is_lost
        return is_lost

    async def ask(http: httpx.AsyncClient, number: int) -> httpx.Response:
        its = {name: text.format(number) for name, text in headers.items()}
        fields = {k: v.format(number) if isinstance(v, str) else v for k, v in body.items()}
        return await http.post(f"/api/v1/jobs/{kind}", json=fields, headers=its)

    started: Counter[str] = Counter()
    async with proxy_to(redis_server.port) as proxy, relay_on(redis_url) as worker:
        shim = serving(proxy.redis_url)
        url = await asyncio.to_thread(shim.__enter__)
        try:
            async with stage(url, redis_url) as at:
                await at.announce()
                at.http.timeout = httpx.Timeout(30)
                # In less time than the maintainer takes, which restores what was lost 10 s ago.
                working = asyncio.create_task(work(worker, kind, started))
                proxy.loses_reply = loses_reply
                answers = [await ask(at.http, number) for number in range(REQUESTS)]
                proxy.heal()
                assert {each.status_code for each in answers} == {202}
                async with asyncio.timeout(8):
                    await working
        finally:
            await asyncio.to_thread(shim.__exit__, None, None, None)

    assert lost > REQUESTS // 10
    assert started == Counter(each.json()["id"] for each in answers)
    assert not [each for each in answers if "idempotent-replayed" in each.headers]
