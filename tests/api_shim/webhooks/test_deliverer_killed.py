"""A deliverer that is killed again and again loses nothing, and keeps the order.

Subjects: api_shim/webhooks/deliverer.py.
"""

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from support.receiver import receiver
from support.redis_server import RedisServer
from support.relay import QUEUE, chat, relay_on
from support.shims import ShimProcess

from contract.webhooks.webhook_models import NewWebhook
from relay.queue import Queue
from relay.webhooks.webhook_store import WebhookStore

KILLS = 20
JOBS_A_LIFE = 15
QUICK = {
    "FLEET_PRIVATE_WEBHOOKS": "true", "FLEET_WEBHOOK_RETRY_S": "0.05",
    "FLEET_LEASE_S": "0.6", "FLEET_RENEW_S": "0.2",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_every_end_is_told_once_or_more_in_order_although_the_deliverer_is_killed(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    ids: list[str] = []
    with receiver() as hook:
        hook.pause_s = 0.01
        async with relay_on(own_redis.url) as relay:
            store = WebhookStore(relay.connection)
            await store.create("default", NewWebhook(url=hook.url))
            queue = Queue(relay.connection, store.has)
            for life in range(KILLS + 1):
                shim = await asyncio.to_thread(ShimProcess, own_redis.url, tmp_path, **QUICK)
                before = len(hook.received)
                for _ in range(JOBS_A_LIFE):
                    record, _ = await queue.enqueue(chat(), queue=QUEUE)
                    ids.append(record.id)
                    await relay.run(await relay.claim())
                if life < KILLS:
                    await asyncio.to_thread(hook.wait_for, before + JOBS_A_LIFE // 3)
                    shim.kill()
            async with asyncio.timeout(60):
                while {each.subject for each in hook.received} != set(ids):
                    await asyncio.sleep(0.05)
            shim.end()

    first = list(dict.fromkeys(each.subject for each in hook.received))
    assert first == ids
    assert len({each.id for each in hook.received}) == len(ids)
    places = [ids.index(each.subject) for each in hook.received]
    # Only what a killed shim had sent without noting it comes again, and at once.
    assert all(after - before in {0, 1} for before, after in pairwise(places))
    assert len(places) - len(ids) <= KILLS
