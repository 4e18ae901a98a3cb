"""A worker that is the maintainer makes room also while it has much else to do."""

import asyncio
from types import SimpleNamespace
from typing import Any

from support.relay import Relay, relay_on, words

from contract import redis_keys
from relay.room.answer_room import AnswerRoom
from telemetry.process_metrics import ProcessMetrics
from workers.maintenance import Maintenance
from workers.settings import WorkerSettings


def maintenance(relay: Relay) -> Maintenance:
    """Of a worker without jobs."""
    none: Any = None
    state: Any = SimpleNamespace(name="w1")
    settings = WorkerSettings(worker_backend="scripted")
    return Maintenance(
        state, none, none, connection=relay.connection, subscriber=relay.subscriber,
        settings=settings, metrics=ProcessMetrics("worker", settings),
        answer_room=AnswerRoom(relay.connection),
    )  # fmt: skip


async def test_room_is_made_while_a_thousand_jobs_are_handed_over(redis_url: str) -> None:
    async with relay_on(redis_url, reap_s=0.05, compact_after_s=0.01) as relay:
        job = await relay.enqueue("x" * 500)
        await relay.run(await relay.claim(), *words(40))
        one = maintenance(relay)
        one._leases.reap = asyncio.Event().wait  # type: ignore[assignment, method-assign]
        looked = asyncio.Event()

        async def make(_: float) -> None:
            looked.set()

        one._reconciler._room.make = make  # type: ignore[method-assign]
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            loops = [group.create_task(each) for each in (one.reap(), one.make_room())]
            while not await relay.connection.command(
                "HEXISTS", redis_keys.record(job), "compacted"
            ):
                await asyncio.sleep(0.02)
            await looked.wait()
            for each in loops:
                each.cancel()
