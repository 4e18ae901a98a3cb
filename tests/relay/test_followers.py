"""Who follows a job, and what becomes of it when the last of them has left."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.relay import QUEUE, Relay, chat, relay_on

from contract import redis_keys
from contract.jobs import JobRecord
from contract.models import PullRequest
from contract.requests import CancelAfter, OnDisconnect, disconnect_policy, disconnect_text
from relay.followers import Followers

AFTER_A_MOMENT = CancelAfter(cancel_after_s=0.2)


async def job(relay: Relay, policy: OnDisconnect) -> JobRecord:
    return await relay.records.get(await relay.enqueue(on_disconnect=policy))


async def http_job(relay: Relay, policy: OnDisconnect) -> JobRecord:
    request = chat(on_disconnect=policy)
    record, _ = await relay.queue.enqueue(request, queue=QUEUE, expects_follower=True)
    return record


async def ended(relay: Relay, record: JobRecord) -> str:
    """Wait for the job's terminal event: who or what ended it."""
    async with asyncio.timeout(10):
        last = (await relay.frames(record.id))[-1].event
    return str(getattr(last, "by", last.type))


async def is_followed(relay: Relay, record: JobRecord) -> bool:
    return bool(await relay.connection.command("EXISTS", redis_keys.audience(record.id)))


async def nothing_is_watched(relay: Relay) -> bool:
    return not await relay.connection.command("ZCARD", redis_keys.FOLLOWED)


async def scripts_run(relay: Relay) -> int:
    stats = (await relay.connection.command("INFO", "commandstats"))["cmdstat_evalsha"]
    return int(stats["calls"])


async def until(ask: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await ask():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def audience(relay: Relay, **arguments: Any) -> AsyncIterator[Followers]:
    """A shim process's, with what it does by itself."""
    audience = Followers(relay.connection, **arguments)
    keeping = asyncio.create_task(audience.keep_leases())
    try:
        yield audience
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


@pytest.mark.parametrize("policy", ["continue", "cancel", CancelAfter(cancel_after_s=0.25)])
async def test_a_record_keeps_its_policy(policy: OnDisconnect, redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        assert (await job(relay, policy)).on_disconnect == policy
        assert disconnect_policy(disconnect_text(policy)) == policy


async def test_a_job_that_is_to_be_cancelled_ends_with_its_last_follower(redis_url: str) -> None:
    # litellm #3341, #13774: a client that goes away leaves the backend generating.
    async with relay_on(redis_url) as relay, audience(relay) as here, audience(relay) as there:
        record = await job(relay, "cancel")
        async with here.follow(record, grace_s=0):
            async with there.follow(record, grace_s=0), here.follow(record, grace_s=0):
                pass
            still = await there.cancel_abandoned() or (await relay.records.get(record.id)).status

        assert still == "queued"
        assert await ended(relay, record) == "disconnect"
        await until(lambda: nothing_is_watched(relay))


async def test_a_job_that_is_to_continue_costs_nothing_and_continues(redis_url: str) -> None:
    # litellm #36275: "disconnect cancels" broke jobs whose clients leave on purpose.
    async with relay_on(redis_url) as relay, audience(relay) as here:
        record = await job(relay, "continue")
        asked = await scripts_run(relay)
        async with here.follow(record, grace_s=0):
            pass
        asked_since = await scripts_run(relay) - asked
        await relay.reconciler.reconcile()

        assert asked_since == 0
        assert (await relay.records.get(record.id)).status == "queued"


async def test_a_job_without_a_first_follower_is_not_cancelled_early(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        record = await job(relay, "cancel")
        await relay.reconciler.reconcile()

        assert (await relay.records.get(record.id)).status == "queued"


async def test_a_follower_that_returns_in_time_stops_the_timer(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, audience(relay) as here, audience(relay) as there:
        record = await job(relay, AFTER_A_MOMENT)
        async with here.follow(record):
            pass
        async with there.follow(record):
            await passed(relay, 0.3)
            await relay.reconciler.reconcile()
            meanwhile = (await relay.records.get(record.id)).status

        assert meanwhile == "queued"
        assert await ended(relay, record) == "disconnect"


async def passed(relay: Relay, seconds: float) -> None:
    """Let Redis's clock move on."""
    key, ms = "clock", int(seconds * 1000)
    await relay.connection.command("SET", key, "", "PX", ms)
    while await relay.connection.command("EXISTS", key):
        await asyncio.sleep(0.01)


async def test_any_worker_cancels_what_a_dead_shim_had_to(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        record = await job(relay, AFTER_A_MOMENT)
        async with Followers(relay.connection).follow(record):
            pass
        early = await relay.reconciler.reconcile() or (await relay.records.get(record.id)).status
        await passed(relay, 0.25)
        await relay.reconciler.reconcile()

        assert early == "queued"
        assert (await relay.records.get(record.id)).status == "cancelled"


@pytest.mark.parametrize("policy", ["cancel", AFTER_A_MOMENT])
async def test_followers_of_a_killed_shim_do_not_count_for_ever(
    policy: OnDisconnect, redis_url: str
) -> None:
    async with relay_on(redis_url, lease_s=0.3) as dying, relay_on(redis_url) as relay:
        left, kept = await job(relay, policy), await job(relay, policy)
        killed = Followers(dying.connection, is_ending=lambda: True)  # so it says nothing more
        async with killed.follow(left), killed.follow(kept):
            pass
        async with Followers(relay.connection).follow(kept):
            await passed(relay, 0.6)
            await relay.reconciler.reconcile()
            statuses = [(await relay.records.get(each.id)).status for each in (left, kept)]

        assert statuses == ["cancelled", "queued"]


async def test_a_lease_that_is_renewed_does_not_end(redis_url: str) -> None:
    async with (
        relay_on(redis_url, lease_s=0.4, renew_s=0.05) as relay,
        audience(relay) as here,
    ):
        record = await job(relay, "cancel")
        async with here.follow(record):
            await passed(relay, 1.0)
            await relay.reconciler.reconcile()
            meanwhile = (await relay.records.get(record.id)).status

        assert meanwhile == "queued"


async def test_a_process_that_redis_forgot_is_counted_again(redis_url: str) -> None:
    async with relay_on(redis_url, renew_s=0.05) as relay, audience(relay) as here:
        record = await job(relay, "cancel")
        async with here.follow(record):
            await relay.connection.command("DEL", redis_keys.audience(record.id))
            await until(lambda: is_followed(relay, record))

        assert await ended(relay, record) == "disconnect"


async def test_a_shim_that_stops_leaves_its_followers_time_to_reconnect(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, audience(relay, is_ending=lambda: True) as ending:
        record = await job(relay, "cancel")
        async with ending.follow(record, grace_s=0):
            pass
        await relay.reconciler.reconcile()

        assert await is_followed(relay, record)
        assert (await relay.records.get(record.id)).status == "queued"


async def test_a_poll_that_was_answered_is_no_disconnect(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, audience(relay) as here:
        polled, timed = await job(relay, "cancel"), await job(relay, AFTER_A_MOMENT)
        for record in (polled, timed):
            async with here.follow(record, grace_s=0) as follower:
                follower.returns()

        assert await ended(relay, timed) == "disconnect"
        assert (await relay.records.get(polled.id)).status == "queued"
        await until(lambda: nothing_is_watched(relay))


async def test_nothing_is_left_of_a_job_that_has_ended(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, audience(relay) as here:
        record = await job(relay, "cancel")
        async with here.follow(record):
            await relay.run(await relay.claim())

        assert (await relay.records.get(record.id)).status == "done"
        assert not await is_followed(relay, record)
        assert await nothing_is_watched(relay)


async def test_followers_that_come_and_go_at_once_are_all_counted(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, audience(relay) as here:
        record = await job(relay, "cancel")

        async def follow_briefly() -> None:
            async with here.follow(record):
                pass

        async with here.follow(record):
            for _ in range(20):
                await asyncio.gather(*(follow_briefly() for _ in range(10)))
            seen = await is_followed(relay, record)

        assert seen
        assert not here._jobs


async def test_a_shared_pull_lives_as_long_as_its_most_patient_caller(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, audience(relay) as here:
        ask = PullRequest(model="m", backend="scripted", on_disconnect="cancel")
        record, _ = await relay.queue.enqueue(ask, queue="scripted.pull")
        policies = []
        for policy in (AFTER_A_MOMENT, CancelAfter(cancel_after_s=0.1), "continue", "cancel"):
            await here.merge_policy(record, policy)  # type: ignore[arg-type]
            policies.append((await relay.records.get(record.id)).on_disconnect)

        assert policies == [AFTER_A_MOMENT, AFTER_A_MOMENT, "continue", "continue"]


@pytest.mark.parametrize("policy", ["cancel", AFTER_A_MOMENT])
async def test_a_job_without_followers_ends_after_the_lease(
    redis_url: str, policy: OnDisconnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.admission.new_job.FIRST_FOLLOW_S", 0.0)
    # Its client, or the shim, has died between enqueue and first follow: another process sees it.
    async with relay_on(redis_url, lease_s=0.5, renew_s=0.1) as relay, audience(relay):
        record = await http_job(relay, policy)

        assert await ended(relay, record) == "disconnect"
        await until(lambda: nothing_is_watched(relay))


async def test_a_short_lease_leaves_a_slow_client_its_time(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.5, renew_s=0.1) as relay, audience(relay):
        record = await http_job(relay, "cancel")
        due = await relay.connection.command("ZSCORE", redis_keys.FOLLOWED, record.id)

        assert 14 < float(due) - record.created_at < 16


async def test_a_first_follower_in_time_stops_that_clock(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.admission.new_job.FIRST_FOLLOW_S", 0.0)
    async with relay_on(redis_url, lease_s=0.5, renew_s=0.1) as relay, audience(relay) as others:
        record = await http_job(relay, "cancel")
        async with others.follow(record):
            await asyncio.sleep(1.2)

            assert (await relay.records.get(record.id)).status == "queued"


async def followed_job(relay: Relay, process: str) -> JobRecord:
    request = chat(on_disconnect="cancel")
    record, _ = await relay.queue.enqueue(
        request, queue=QUEUE, expects_follower=True, first_follower=process
    )
    return record


async def test_a_job_has_its_first_follower_from_the_start(redis_url: str) -> None:
    async with relay_on(redis_url) as relay, audience(relay) as followers:
        record = await followed_job(relay, followers.process)
        assert await is_followed(relay, record)
        before = await scripts_run(relay)
        async with followers.follow(record, grace_s=0, is_registered=True):
            assert await scripts_run(relay) == before

        assert await ended(relay, record) == "disconnect"


async def test_a_first_follower_that_never_comes_loses_its_lease(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.3, renew_s=0.1) as relay, audience(relay):
        record = await followed_job(relay, "a process that died")

        assert await ended(relay, record) == "disconnect"


async def test_a_first_follower_renews_its_lease(redis_url: str) -> None:
    async with (
        relay_on(redis_url, lease_s=0.6, renew_s=0.1) as relay,
        audience(relay) as followers,
    ):
        record = await followed_job(relay, followers.process)
        async with followers.follow(record, is_registered=True):
            await asyncio.sleep(1.5)
            assert (await relay.records.get(record.id)).status == "queued"


async def test_a_job_that_outlives_its_followers_registers_none(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        record, _ = await relay.queue.enqueue(
            chat(on_disconnect="continue"), queue=QUEUE, expects_follower=True, first_follower="p"
        )

        assert not await is_followed(relay, record)
        assert await nothing_is_watched(relay)
