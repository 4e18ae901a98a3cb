"""A job whose record is damaged while its queue has it is set aside, once; others go on.

Subjects: relay/leases.py, relay/claims.py, relay/reconciler.py, relay/lua/jobs.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from support.redis_server import RedisServer
from support.relay import QUEUE, Relay, relay_on

from contract import redis_keys
from contract.errors import JobNotFound, NewerVersion, RelayUnavailable
from contract.events import Failed
from relay import reconciler

GARBAGE = (None, b"", b"x", b"-1", b"nan", b"9" * 400, b"1e999", b"\xff\xfe{", b"[" * 5000)
"""None: the field is missing."""
FIELDS = (
    "attempt", "tries", "max_attempts", "lost", "status", "queue", "nonce", "created_at",
    "not_before", "deadline_at", "facts", "request", "priority", "tenant", "retention_s", "v",
    "id", "kind", "target", "started_at", "reserved_tokens", "price", "children", "on_disconnect",
)  # fmt: skip
OTHER_TYPES = ("record", "log")
STATES = ("held", "claimed", "waits", "scheduled", "late", "left")
ROUNDS = 6
SOON_S = 0.5

Damage = tuple[str, bytes | None]


async def damage(relay: Relay, job_id: str, field: str, value: bytes | None) -> None:
    say, key = relay.connection.command, redis_keys.record(job_id)
    if field in OTHER_TYPES:
        key = getattr(redis_keys, field)(job_id)
        await say("DEL", key)
        if value is not None:
            await say("SET", key, value)
    elif value is None:
        await say("HDEL", key, field)
    else:
        await say("HSET", key, field, value)


async def begun(relay: Relay, state: str) -> str:
    """A job in this state."""
    due = time.time() + SOON_S if state == "scheduled" else None
    job_id = await relay.enqueue(not_before=due)
    match state:
        case "held":
            await relay.start_next(QUEUE, "w1")
        case "claimed":
            await relay.claims.claim(QUEUE, "w1")
        case "late":
            await relay.connection.command("ZADD", redis_keys.DEADLINES, 1, job_id)
        case "left":
            key = redis_keys.record(job_id)
            await relay.connection.command("HSET", key, "on_disconnect", "cancel")
            await relay.connection.command("ZADD", redis_keys.FOLLOWED, 1, job_id)
    return job_id


async def served(relay: Relay) -> set[str]:
    """Jobs that a worker runs to their end, while the maintainer works."""
    found, after = set(), time.time() + SOON_S
    for _ in _rounds(after):
        while job := await relay.start_next(QUEUE, "w2"):
            found.add(job.record.id)
            await relay.run(job, worker="w2")
        await relay.leases.reap()
        await relay.reconciler.reconcile()
    return found


def _rounds(after: float) -> Iterator[None]:
    """So many rounds after a time at which what is scheduled has begun."""
    done = 0
    while done < ROUNDS:
        done += time.time() > after
        yield


async def left(relay: Relay, job_id: str) -> list[str]:
    """What still has a job that has not ended and waits in no queue."""
    say = relay.connection.command
    keys = {
        name: getattr(redis_keys, name) for name in ("LIVE", "FOLLOWED", "BLOCKED", "MOVABLE")
    } | {"leases": redis_keys.leases(QUEUE)}
    found = [name for name, key in keys.items() if await say("ZSCORE", key, job_id) is not None]
    if await say("ZCOUNT", redis_keys.DEADLINES, 0, time.time()):
        found.append("DEADLINES")
    if "leases" in found:
        return found
    (queue,) = await relay.connection.replies([("HGET", redis_keys.record(job_id), "queue")])
    name = (queue or b"").decode(errors="replace")  # a job of a queue that nobody serves waits
    waits = [
        key(each) for key in (redis_keys.backlog, redis_keys.delayed) for each in (name, QUEUE)
    ]
    return [] if any([await say("ZSCORE", key, job_id) for key in waits]) else found


@pytest.mark.parametrize("state", STATES)
async def test_a_damaged_job_is_set_aside_and_the_others_run(
    own_redis: RedisServer, state: str, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(reconciler, "_SETTLED_S", -60)
    caplog.set_level(logging.WARNING)
    async with relay_on(own_redis.url, lease_s=0.01) as relay:
        jobs: dict[str, Damage] = {}
        for how in [(field, value) for field in (*FIELDS, *OTHER_TYPES) for value in GARBAGE]:
            jobs[await begun(relay, state)] = how
        good = await relay.enqueue()
        for job_id, how in jobs.items():
            await damage(relay, job_id, *how)
        found = await served(relay)
        remains = {how: which for id, how in jobs.items() if (which := await left(relay, id))}

    broken = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    named = Counter(text for text in caplog.messages if "is set aside" in text)
    assert good in found
    assert (remains, broken) == ({}, [])
    assert set(named.values()) <= {1}


@pytest.mark.parametrize("state", ["held", "waits", "scheduled"])
async def test_a_damaged_job_that_is_read_or_cancelled_is_an_answer(
    own_redis: RedisServer, state: str
) -> None:
    async with relay_on(own_redis.url) as relay:
        wrong: dict[Damage, BaseException] = {}
        for how in [(field, value) for field in (*FIELDS, *OTHER_TYPES) for value in GARBAGE]:
            job_id = await begun(relay, state)
            await damage(relay, job_id, *how)
            for ask in (relay.records.get(job_id), relay.queue.cancel(job_id, by="me")):
                try:
                    await ask
                except (NewerVersion, JobNotFound):
                    pass
                except RelayUnavailable as error:
                    if how[0] != "record":
                        wrong[how] = error

    assert wrong == {}


@pytest.mark.parametrize("value", GARBAGE, ids=range(len(GARBAGE)))
async def test_its_followers_hear_why(own_redis: RedisServer, value: bytes | None) -> None:
    async with relay_on(own_redis.url, lease_s=0.01) as relay:
        job = await begun(relay, "held")
        await damage(relay, job, "max_attempts", value)
        await served(relay)
        last = (await relay.frames(job))[-1].event

    assert isinstance(last, Failed)
    assert (last.code, last.retryable) == ("internal_error", False)
