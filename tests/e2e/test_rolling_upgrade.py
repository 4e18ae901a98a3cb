"""A worker of this version beside one of the next: it leaves what it cannot read, and logs it."""

import asyncio
import json
from pathlib import Path

from support.processes import worker
from support.relay import Relay, relay_on
from support.shim import CHAT

from contract import redis_keys
from contract.jobs import any_request
from relay.tickets import message

QUEUE = "scripted.chat"
ASK = {**CHAT, "kind": "chat", "model": "scripted-story:chunks=3"}


async def queued_again(relay: Relay, job: str) -> str:
    """Wait until the job was left to others; the reason that its log gives."""
    async with asyncio.timeout(20):
        while True:
            frames = [frame async for page in relay.log.read(job) for frame in page]
            last = next(frame for frame in reversed(frames) if frame.type == "queued")
            if last.id and last.id.attempt > 1:
                return str(json.loads(last.body)["reason"])
            await asyncio.sleep(0.02)


async def test_a_newer_request_waits_for_a_worker_that_can_read_it(
    redis_url: str, tmp_path: Path
) -> None:
    async with relay_on(redis_url) as relay:
        record, _ = await relay.queue.enqueue(any_request.validate_python(ASK), queue=QUEUE)
        request = await relay.connection.command("HGET", redis_keys.record(record.id), "request")
        newer = json.dumps({**json.loads(request), "mood": "good"})
        await relay.connection.command("HSET", redis_keys.record(record.id), "request", newer)
        with worker(redis_url, tmp_path) as one:
            await one.ready(relay)
            reason = await queued_again(relay, record.id)
            # The next version's worker, which knows the field.
            await relay.connection.command("HSET", redis_keys.record(record.id), "request", request)
            frames = await relay.frames(record.id)

            assert "newer version" in reason
            assert "mood" in reason
            assert frames[-1].type == "done"
            assert one.popen.poll() is None


async def test_a_ticket_of_a_newer_version_is_a_ticket(redis_url: str, tmp_path: Path) -> None:
    async with relay_on(redis_url) as relay:
        record, _ = await relay.queue.enqueue(any_request.validate_python(ASK), queue=QUEUE)
        more = {"queue": QUEUE, "mood": "good"}
        await relay.connection.command("DEL", QUEUE)
        await relay.connection.command("LPUSH", QUEUE, message(redis_keys.TICKET_TASK, more, QUEUE))
        with worker(redis_url, tmp_path, FLEET_REAP_S="600") as one:
            await one.ready(relay)

            assert (await relay.frames(record.id))[-1].type == "done"
