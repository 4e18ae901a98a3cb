"""Leases: a worker that stops renewing loses the job, and cannot append to its log."""

import asyncio
import json
from typing import Any

import pytest
from support.redis_server import RedisServer
from support.relay import QUEUE, Relay, relay_on, words

from contract.errors import DeadlineExceeded, LeaseLost
from contract.events import Delta, Done, EventId, Failed
from contract.jobs import JobRecord


async def until_moved(relay: Relay) -> None:
    """Reap until a lease has expired."""
    async with asyncio.timeout(10):
        while not await relay.leases.reap():
            await asyncio.sleep(0.02)


async def test_an_expired_lease_is_handed_over_to_the_next_worker(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.05) as relay:
        job = await relay.enqueue()
        await relay.claim("w1")
        await until_moved(relay)
        claim = await relay.claim("w2")

        assert (job, 2, "w2") == (claim.record.id, claim.attempt, claim.record.worker)


async def test_a_renewed_lease_is_not_handed_over(redis_url: str) -> None:
    # taskiq-redis #101: a task of 35 minutes ran twice.
    async with relay_on(redis_url, lease_s=0.3) as relay:
        job = await relay.enqueue()
        claim = await relay.claim("w1")
        for _ in range(8):
            await asyncio.sleep(0.05)
            assert set() == await relay.leases.renew("w1", {QUEUE: [(job, claim.attempt)]})
            assert await relay.leases.reap() == 0


async def test_a_worker_that_wakes_up_late_cannot_append(redis_url: str) -> None:
    # llm-d-async PR #412: the fencing token.
    async with relay_on(redis_url, lease_s=0.05) as relay:
        job = await relay.enqueue()
        zombie = relay.attempt_log(await relay.claim("w1"))
        zombie.append(Delta(content="from the first"))
        await zombie.flush()
        await until_moved(relay)
        zombie.append(Delta(content="from the dead"))

        with pytest.raises(LeaseLost):
            await zombie.flush()
        with pytest.raises(LeaseLost):
            zombie.append(Delta(content="again"))
        assert (await relay.result(job)).content == "from the first"


async def test_a_former_holder_is_refused_before_the_next_attempt_appends(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.05) as relay:
        job = await relay.enqueue()
        zombie = relay.attempt_log(await relay.claim("w1"))
        await until_moved(relay)
        zombie.append(Done())

        with pytest.raises(LeaseLost):
            await zombie.flush()
        assert (await relay.records.get(job)).status == "queued"


async def test_a_lost_lease_is_reported_at_renewal(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.05) as relay:
        job = await relay.enqueue()
        await relay.claim("w1")
        await until_moved(relay)

        assert {job} == await relay.leases.renew("w1", {QUEUE: [(job, 1)]})


async def test_a_handed_over_job_keeps_its_place(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.05) as relay:
        first, second = await relay.enqueue(), await relay.enqueue()
        await relay.claim("w1")
        await until_moved(relay)

        assert [first, second] == [(await relay.claim()).record.id for _ in range(2)]


async def test_a_job_whose_workers_always_die_fails_after_its_attempts(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.03) as relay:
        job = await relay.enqueue(max_attempts=2)
        for worker in ("w1", "w2"):
            await relay.claim(worker)
            async with asyncio.timeout(10):
                while (await relay.records.get(job)).status == "running":
                    await relay.leases.reap()
        frames = await relay.frames(job)

        assert frames[-1].type == "failed"
        assert frames[-1].event.code == "worker_lost"
        assert [str(frame.id) for frame in frames] == ["1-0", "1-1", "2-0", "2-1", "3-0"]


async def test_a_supervisor_releases_a_dead_workers_jobs_at_once(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        jobs = {await relay.enqueue() for _ in range(3)}
        for worker in ("dead", "alive", "dead"):
            await relay.claim(worker)

        assert await relay.leases.release_worker("dead") == 2
        assert len([c for _ in range(3) if (c := await relay.start_next(QUEUE, "w2"))]) == 2
        assert len(jobs) == 3


async def test_a_drained_job_does_not_use_up_an_attempt(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await relay.enqueue(max_attempts=1)
        for attempt in range(1, 4):
            claim = await relay.claim()
            moved = await relay.leases.hand_over(
                QUEUE, job, claim.attempt, reason="drained", counts=False
            )
            assert (True, attempt) == (moved, claim.attempt)


async def test_a_reaper_that_dies_half_way_is_finished_by_the_next(redis_url: str) -> None:
    # taskiq-redis #131: a killed worker held the lock of recovery, and nothing was recovered.
    async with relay_on(redis_url, lease_s=0.05) as relay:
        job = await relay.enqueue()
        await relay.claim("w1")

        async def die(*_: object, **__: object) -> bool:
            return False

        whole = relay.leases.give_back
        relay.leases.give_back = die  # type: ignore[method-assign, assignment]
        await asyncio.sleep(0.06)
        await relay.leases.reap()
        assert (await relay.records.get(job)).status == "queued"
        assert None is await relay.start_next(QUEUE, "w2")
        relay.leases.give_back = whole  # type: ignore[method-assign]
        await until_moved(relay)

        assert (job, 2) == ((claim := await relay.claim("w2")).record.id, claim.attempt)


async def test_lost_tickets_are_sent_again(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for _ in range(3):
            await relay.enqueue()
        await relay.connection.command("DEL", QUEUE)
        await relay.leases.reap()
        bodies = await relay.connection.command("LRANGE", QUEUE, 0, -1)

        assert len(bodies) == 3
        assert json.loads(bodies[0])["headers"]["task"] == "fleet.ticket"


async def test_leases_survive_a_restart_of_redis(own_redis: RedisServer) -> None:
    async with relay_on(own_redis.url) as relay:
        job = await relay.enqueue()
        claim = await relay.claim("w1")
        await asyncio.to_thread(own_redis.restart)
        lost = await relay.leases.renew("w1", {QUEUE: [(job, claim.attempt)]})
        await relay.run(claim, *words(2))
        record: JobRecord = await relay.records.get(job)

        assert set() == lost
        assert record.status == "done"


@pytest.mark.parametrize("dead", [False, True])
async def test_who_fails_a_job_that_runs_takes_it_away_first(redis_url: str, *, dead: bool) -> None:
    async with relay_on(redis_url) as relay:
        job_id = await relay.enqueue()
        claim = await relay.claim()
        attempt_log = relay.attempt_log(claim)
        attempt_log.append(Delta(content="one"))
        await attempt_log.flush()
        await relay.leases.end(QUEUE, job_id, DeadlineExceeded("too late"), dead=dead)
        attempt_log.append(Failed(code="internal_error", message="mine", retryable=False))
        async with asyncio.timeout(5):
            await attempt_log.until_lost
        frames = await relay.frames(job_id)

        assert [frame.type for frame in frames][-2:] == ["delta", "failed"]
        assert frames[-1].id == EventId(claim.attempt + 1, 0)
        assert b"too late" in frames[-1].body


async def test_jobs_of_a_silent_worker_are_handed_over_together(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []
    async with relay_on(redis_url, lease_s=0.05) as relay:
        for _ in range(20):
            await relay.enqueue()
        for _ in range(20):
            await relay.claim()
        hand_over, forget, running, forgotten = relay.leases.hand_over, relay.leases._forget, 0, []

        async def counted(*args: Any, **fields: Any) -> bool:
            nonlocal running
            running += 1
            together.append(running)
            moved = await hand_over(*args, **fields)
            running -= 1
            return moved

        async def noted(queue: str, worker: str) -> None:
            forgotten.append(worker)
            await forget(queue, worker)

        monkeypatch.setattr(relay.leases, "hand_over", counted)
        monkeypatch.setattr(relay.leases, "_forget", noted)
        await asyncio.sleep(0.1)
        moved = await relay.leases.reap()

    assert (moved, max(together), forgotten) == (20, 16, ["w1"])
