"""The texts of a job whose retention is `none` or some seconds go at its end, whoever ends it.

Subjects: relay/lua/shared/retention.lua.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from contract.chat import ChatRequest, ResponseNotes
from contract.errors import InvalidRequest, JobNotKept, ServerFault
from contract.events import Delta
from contract.requests import Retention, retention_of
from contract.tenants import Tenant
from relay.admission.retention import check_retention, demand_kept, kept_s
from relay.settings import RelaySettings
from telemetry.trace_context import TraceContext, working_for

SECRET = "the patient is 41"
TRACE = TraceContext(f"01-{'a' * 32}-{'b' * 16}-01-{SECRET}", f"a={SECRET}")
DAY_S = 86400


async def stored(relay: Relay) -> bytes:
    """Everything in Redis, as bytes."""
    found = b""
    for key in await relay.connection.command("KEYS", "*"):
        found += await relay.connection.command("DUMP", key) or b""
        kind = await relay.connection.command("TYPE", key)
        if kind in (b"hash", "hash"):
            found += repr(await relay.connection.command("HGETALL", key)).encode()
        if kind in (b"stream", "stream"):
            found += repr(await relay.connection.command("XRANGE", key, "-", "+")).encode()
    return found


async def _done(relay: Relay, job: str) -> None:
    await relay.run(await relay.claim(), Delta(content=SECRET))


async def _cancelled(relay: Relay, job: str) -> None:
    await relay.claim()
    await relay.queue.cancel(job, by="caller")


async def _dead(relay: Relay, job: str) -> None:
    claim = await relay.claim()
    error = ServerFault("it broke")
    await relay.leases.hand_over(QUEUE, job, claim.attempt, reason="", counts=True, error=error)


@pytest.mark.parametrize("end", [_done, _cancelled, _dead])
async def test_nothing_that_was_said_is_kept(
    redis_url: str, end: Callable[[Relay, str], Awaitable[None]]
) -> None:
    async with relay_on(redis_url) as relay:
        fields: dict[str, Any] = {
            "retention": "none", "metadata": {"who": SECRET}, "conversation": SECRET,
            "callback_url": f"https://example.com/{SECRET.replace(' ', '-')}", "max_attempts": 1,
        }  # fmt: skip
        with working_for(TRACE):
            job = await relay.enqueue(SECRET, **fields)
        assert SECRET.encode() in await stored(relay)
        await end(relay, job)
        frames = await relay.frames(job)
        grace_s = await relay.connection.command("TTL", redis_keys.log(job))
        await relay.connection.command("UNLINK", redis_keys.log(job))  # as Redis does then
        left = await stored(relay)
        with pytest.raises(JobNotKept):
            await relay.records.request(job)
        with pytest.raises(JobNotKept):
            await relay.frames(job)

        assert frames[-1].is_last
        assert 0 < grace_s <= relay.connection.settings.retention_grace_s
        assert SECRET.encode() not in left
        record = await relay.records.get(job)
        assert (record.retention_s, record.traceparent, record.tracestate) == (0, None, None)
        assert await relay.connection.command("ZCARD", redis_keys.DEAD) == 0


async def test_seconds_are_those_of_record_and_log(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        left = []
        for retention in (600, "ttl", None):
            job = await relay.enqueue(retention=retention)
            await relay.run(await relay.claim())
            left += await relay.connection.pipeline(
                [("TTL", key) for key in (redis_keys.record(job), redis_keys.log(job))]
            )

        assert [round(seconds, -2) for seconds in left] == [600, 600, *4 * [DAY_S]]


async def test_a_dead_letter_and_its_retry_keep_the_seconds(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue(retention=600, max_attempts=1)
        await _dead(relay, job)
        kept_for_s = await relay.connection.command("TTL", redis_keys.record(job))

        assert (await relay.records.get(job)).dead_at is not None
        assert 590 < kept_for_s <= 600


async def test_a_worker_of_the_version_before_can_read_the_request(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.enqueue(retention="none")
        claim = await relay.claim()

        assert b"retention" not in claim.request
        assert claim.record.retention_s == 0


@pytest.mark.parametrize(
    ("asked", "key", "fleet", "kept"),
    [
        (None, None, "ttl", None),
        (None, None, "none", 0),
        (None, 60, "none", 60),
        (None, "ttl", "none", None),
        ("none", None, "ttl", 0),
        (60, "none", "ttl", 60),  # as rows of batches do; `check_retention` refuses others
        (DAY_S, None, "ttl", None),
        (5, 60, "none", 5),
    ],
)
def test_the_request_comes_before_the_key_and_the_key_before_the_fleet(
    asked: Retention | None, key: Retention | None, fleet: Retention, kept: int | None
) -> None:
    tenant = Tenant(name="t", retention=key)

    assert kept_s(asked, tenant, RelaySettings(retention=fleet)) == kept


@pytest.mark.parametrize(
    ("fields", "key", "fleet", "words"),
    [
        ({"retention": "ttl"}, None, "none", r"^retention: ttl.*FLEET_RETENTION allows \(none\)"),
        ({"retention": 61}, 60, "ttl", r"^retention: 61 .*this key allows \(60\)"),
        ({"retention": DAY_S + 1}, None, "ttl", r"86400 seconds at most \(FLEET_LOG_TTL_S\)"),
        ({"response_notes": ResponseNotes(background=True)}, "none", "ttl", r"^background: "),
    ],
)
def test_what_is_not_possible_is_refused(
    fields: dict[str, Any], key: Retention | None, fleet: Retention, words: str
) -> None:
    request: ChatRequest = chat(**fields)
    with pytest.raises(InvalidRequest, match=words):
        check_retention(request, Tenant(name="t", retention=key), RelaySettings(retention=fleet))


async def test_it_can_be_read_for_the_grace(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue(retention="none")
        await relay.run(await relay.claim())
        record, settings = await relay.records.get(job), relay.connection.settings
        assert record.ended_at is not None
        demand_kept(record, settings, record.ended_at + 9)
        with pytest.raises(JobNotKept, match="retention is none"):
            demand_kept(record, settings, record.ended_at + 11)


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "never", "1.5", "٣", "9" * 30, "34560001", "000000000001" + "9" * 5000]
)
def test_a_retention_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="none, ttl, or seconds"):
        retention_of(text)
