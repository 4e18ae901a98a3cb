"""A shim maintains the fleet while no worker does, and only then."""

import asyncio
import time

from support.keys import keyed
from support.redis_server import RedisServer
from support.relay import Relay, relay_on, words
from support.shim import CHAT, problem, serving, stage

from api_shim.queue_upkeep import StandIn
from api_shim.submission.roster_cache import RosterCache
from contract import redis_keys
from relay.reconciler import Maintainer
from relay.room.room_state import RoomState, tell, write_state


async def holder(relay: Relay) -> bytes | None:
    found: bytes | None = await relay.connection.command("GET", redis_keys.MAINTAINER)
    return found


async def test_a_job_that_waits_for_a_worker_in_vain_ends_at_its_deadline(redis_url: str) -> None:
    with serving(redis_url, reap_s=0.1) as shim:
        async with stage(shim, redis_url) as at:
            report = await at.announce()
            await at.relay.roster.leave(report.name)
            body = {**CHAT, "deadline_s": 0.3}
            job = (await at.http.post("/api/v1/jobs/chat", json=body)).json()["id"]
            *_, last = await at.heard(job)

    assert (last["type"], last["code"]) == ("failed", "deadline_exceeded")


async def test_a_job_whose_only_worker_died_waits_again(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.1) as relay:
        job = await relay.enqueue()
        await relay.claim()
        shim = stand_in(relay)
        async with asyncio.timeout(10):
            # The process of an earlier test may have renewed its lease with its last words.
            while (await relay.records.get(job)).status == "running":
                await asyncio.sleep(0.05)
                await shim.check()
        place = await relay.queue.positions.place(await relay.records.get(job))

    assert place.position == 1


async def test_a_shim_refuses_whom_the_maintainer_refuses_and_tells_how_much_they_keep(
    own_redis: RedisServer,
) -> None:
    state = RoomState(mark_bytes=100, tenants={"a": 90, "b": 1}, refused=("a",))
    with keyed(own_redis.url, reap_s=0.1) as shim:
        async with stage(shim.url, own_redis.url) as at, shim.caller("a") as a, asyncio.timeout(20):
            await at.announce()
            await at.relay.connection.call(tell(state, 60_000))
            while (refused := await a.post("/api/v1/jobs/chat", json=CHAT)).status_code == 202:
                await asyncio.sleep(0.05)
            async with shim.caller("b") as b, shim.admin as admin:
                taken = await b.post("/api/v1/jobs/chat", json=CHAT)
                limits = (await admin.get("/api/v1/limits")).json()["limits"]
            await write_state(at.relay.connection, None)
            while (await a.post("/api/v1/jobs/chat", json=CHAT)).status_code == 429:
                await asyncio.sleep(0.05)

    assert problem(refused, 429, "queue_full")["scope"] == "tenant"
    assert int(refused.headers["retry-after"]) >= 1
    assert taken.status_code == 202
    assert [
        (each["what"], each["held"], each["limit"])
        for each in limits
        if each["setting"] == "FLEET_MEMORY_HIGH_WATER"
    ] == [("jobs of tenant a (refused)", 90, 100), ("jobs of tenant b", 1, 100)]


async def test_what_another_program_has_written_refuses_nobody(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.connection.command("SET", redis_keys.ROOM, "{")
        await stand_in(relay).check()

        assert relay.connection.crowding == frozenset()


def stand_in(relay: Relay) -> StandIn:
    return StandIn(relay.connection, RosterCache(relay.roster, max_age_s=0), "shim-1")


async def test_a_maintainer_is_left_alone(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await Maintainer(relay.connection, "w1").acquire()
        await stand_in(relay).check()

        assert await holder(relay) == b"w1"


async def test_the_first_worker_gets_the_lease(redis_url: str) -> None:
    with serving(redis_url, reap_s=0.05) as shim:
        async with stage(shim, redis_url) as at, asyncio.timeout(10):
            while await holder(at.relay) is None:
                await asyncio.sleep(0.01)
            await at.announce()
            while await holder(at.relay) is not None:
                await asyncio.sleep(0.01)
            worker = Maintainer(at.relay.connection, "scripted-1")

            assert await worker.acquire()


async def ended(relay: Relay) -> str:
    job = await relay.enqueue("x" * 500)
    await relay.run(await relay.claim(), *words(40))
    return job


async def is_compacted(relay: Relay, job: str) -> bool:
    return bool(await relay.connection.command("HEXISTS", redis_keys.record(job), "compacted"))


async def test_without_workers_a_shim_compacts_what_has_ended_also_in_a_full_redis(
    own_redis: RedisServer,
) -> None:
    async with relay_on(own_redis.url) as relay, asyncio.timeout(30):
        job = await ended(relay)
        own_redis.say("CONFIG", "SET", "maxmemory", "1mb")
        assert own_redis.say("SET", "more", "1").startswith(b"-OOM")
        with serving(own_redis.url, reap_s=0.1, compact_after_s=0.2):
            while not await is_compacted(relay, job):
                await asyncio.sleep(0.02)

        assert (await relay.result(job)).content.startswith("w0 w1 ")


async def test_a_shim_compacts_nothing_while_a_worker_maintains(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        job = await ended(relay)
        with serving(redis_url, reap_s=0.05, compact_after_s=0.01) as shim:
            async with stage(shim, redis_url) as at:
                await at.announce()
                await Maintainer(relay.connection, "w1").acquire()
                await asyncio.sleep(0.5)

        assert not await is_compacted(relay, job)


async def test_what_waits_for_later_cannot_fill_redis_and_others_get_in(
    own_redis: RedisServer,
) -> None:
    own_redis.say("CONFIG", "SET", "maxmemory", str(40 * 2**20))
    later = {**CHAT, "not_before": time.time() + 86_400}
    large = {**later, "messages": [{"role": "user", "content": "x" * 2**20}]}
    with keyed(own_redis.url, reap_s=0.1) as shim:
        async with stage(shim.url, own_redis.url) as at, shim.caller("a") as a, asyncio.timeout(60):
            await at.announce()
            await asyncio.sleep(0.3)
            answers = [await a.post("/api/v1/jobs/chat", json=large) for _ in range(8)]
            small = [await a.post("/api/v1/jobs/chat", json=later) for _ in range(2)]
            async with shim.caller("b") as b, shim.admin as admin:
                taken = await b.post("/api/v1/jobs/chat", json={**large, "not_before": None})
                limits = (await admin.get("/api/v1/limits")).json()["limits"]

    assert [answer.status_code for answer in answers] == [202] * 4 + [429] * 4
    assert "a quarter of Redis's maxmemory" in problem(answers[-1], 429, "queue_full")["detail"]
    assert (small[0].status_code, taken.status_code) == (202, 202)
    assert [each["limit"] for each in limits if "requests" in each["what"]] == [10 * 2**20]
