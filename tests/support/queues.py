"""The books of queues: where jobs are, what is counted of them, and what is left in the end."""

import asyncio
import json
from collections import Counter
from collections.abc import Collection
from typing import Any

from contract import redis_keys
from support.relay import QUEUE, Relay

_OF_LIVING_JOBS = (redis_keys.LIVE, redis_keys.DEADLINES, redis_keys.FOLLOWED)


async def left_in_queues(relay: Relay) -> list[str]:
    """Keys of queues that do not expire by themselves, and indexes of jobs that live."""
    keys = await relay.connection.command("KEYS", "fleet:q:*")
    lasting = [key for key in keys if await relay.connection.command("TTL", key) == -1]
    for index in _OF_LIVING_JOBS:
        lasting += await relay.connection.command("ZRANGE", index, 0, -1)
    return sorted(key.decode() for key in lasting)


async def nothing_waits(relay: Relay, within_s: float = 2.0) -> None:
    """Wait until no queue holds anything; fails with what is left."""
    give_up_at = asyncio.get_running_loop().time() + within_s
    while left := await left_in_queues(relay):
        assert asyncio.get_running_loop().time() < give_up_at, left
        await asyncio.sleep(0.02)


async def check_books(relay: Relay, held: Collection[str], queue: str = QUEUE) -> set[str]:
    """Each job is in one place, `held` ones in leases; what is counted is what is there.

    Returns the jobs of the queue.
    """
    lists = (
        redis_keys.backlog(queue), redis_keys.delayed(queue), redis_keys.leases(queue),
        redis_keys.urgent(queue), redis_keys.line(queue, "m"),
    )  # fmt: skip
    hashes = (redis_keys.facts(queue), redis_keys.load(queue), redis_keys.scheduled(queue))
    read = [("ZRANGE", key, 0, -1) for key in lists] + [("HGETALL", key) for key in hashes]
    *members, facts, load, later = await relay.connection.pipeline(read)
    backlog, delayed, leases, urgent, line = ({id.decode() for id in ids} for ids in members)
    known = {id.decode(): json.loads(text) for id, text in facts.items()}
    counted = _counted([known[id] for id in backlog])
    counted_later = _counted([known[id] for id in delayed])

    assert len(backlog) + len(delayed) + len(leases) == len(known)
    assert backlog | delayed | leases == set(known)
    assert leases == set(held)
    assert urgent == {i for i in backlog if "batch" not in known[i]}
    assert line == backlog
    assert {k: int(load.get(k.encode(), 0)) for k in counted} == dict(counted)
    assert {k: int(later.get(k.encode(), 0)) for k in counted_later} == dict(counted_later)
    return set(known)


def _counted(jobs: list[dict[str, Any]]) -> Counter[str]:
    """What a queue counts of these jobs, by their facts."""
    counted = Counter(f"jobs {job['tenant']}" for job in jobs)
    for job in jobs:
        for what in ("tokens", "bytes"):
            counted.update({what: job[what], f"{what} {job['tenant']}": job[what]})
    return counted
