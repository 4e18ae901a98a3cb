"""A paused queue starts no job, assigns none and sends no ticket, and loses none of them.

Subjects: relay/scheduling/pauses.py, relay/lua/queues/schedule.lua.
"""

import asyncio

from support.queues import nothing_waits
from support.relay import QUEUE, Relay, chat, relay_on, words

from contract import redis_keys
from contract.roster import QueuePause
from relay.claims import Claim
from relay.leases import Holder
from relay.scheduling.pauses import QueuePauses, Schedule, pause_at, schedule_in

OPEN = Schedule(windows=("00:00-24:00 UTC",)).text


def pauses(relay: Relay) -> QueuePauses:
    return QueuePauses(relay.connection)


async def tickets(relay: Relay) -> int:
    return int(await relay.connection.command("LLEN", QUEUE))


async def claimed(relay: Relay, **more: int) -> Claim | None:
    return await relay.claims.claim(QUEUE, "w1", **more)  # type: ignore[arg-type]


async def test_nothing_of_a_paused_queue_starts_until_it_is_resumed(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first = await relay.enqueue()
        paused = await pauses(relay).pause(QUEUE, reason="new cards")
        second, place = await relay.queue.enqueue(chat(), queue=QUEUE)

        assert paused == QueuePause(by="admin", reason="new cards", since=paused and paused.since)
        assert await claimed(relay) is None
        assert place.position == 2
        assert place.reason == "the queue is paused (new cards); 1 job before yours"
        assert (await relay.queue.positions.place(second)).reason == place.reason

        assert await pauses(relay).resume(QUEUE) is None
        claim = await relay.claim()
        assert claim.record.id == first
        await relay.run(claim, *words(1))
        await relay.run(await relay.claim())
        await nothing_waits(relay)


async def test_jobs_that_run_go_on_and_a_silent_workers_job_waits(redis_url: str) -> None:
    async with relay_on(redis_url, lease_s=0.1) as relay:
        await relay.enqueue("runs")
        running = await relay.claim()
        lost = await relay.enqueue("its worker dies")
        await relay.claim("w2")
        await pauses(relay).pause(QUEUE)
        await relay.leases.renew("w1", {QUEUE: [(running.record.id, 1)]})
        await relay.run(running, *words(2))
        await asyncio.sleep(0.15)

        assert (await relay.records.get(running.record.id)).status == "done"
        assert await relay.leases.reap() == 1
        assert (await relay.records.get(lost)).attempt == 2
        assert await claimed(relay) is None


async def test_no_slot_is_idle_and_no_ticket_is_sent_while_a_queue_is_paused(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        idle = redis_keys.idle(QUEUE)
        await claimed(relay, idle_slots=4)
        assert await relay.connection.command("ZCARD", idle) == 1
        await pauses(relay).pause(QUEUE)
        assert await relay.connection.command("ZCARD", idle) == 0
        await claimed(relay, idle_slots=4)
        await relay.enqueue()
        await relay.leases.reap()
        assert await relay.connection.command("ZCARD", idle) == 0
        assert await tickets(relay) == 0

        await pauses(relay).resume(QUEUE)
        await relay.queue.wake_after_pause(QUEUE)
        assert await tickets(relay) == 1


async def test_a_queue_that_runs_again_wakes_many_workers_at_once(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await pauses(relay).pause(QUEUE)
        for _ in range(200):
            await relay.enqueue()
        assert await tickets(relay) == 0

        await pauses(relay).resume(QUEUE)
        await relay.queue.wake_after_pause(QUEUE)
        assert await tickets(relay) == 200


async def test_redis_ends_a_pause_on_time_and_the_maintainer_wakes_workers(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        await relay.connection.command("DEL", QUEUE)
        await pauses(relay).pause(QUEUE, until=relay.connection.now() + 0.2)
        assert await claimed(relay) is None
        await asyncio.sleep(0.25)
        await relay.leases.reap()

        assert await tickets(relay) == 1
        assert await claimed(relay) is not None
        assert await relay.connection.command("EXISTS", redis_keys.schedule(QUEUE)) == 0


async def test_a_second_pause_replaces_the_first_and_keeps_its_beginning(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        first = await pauses(relay).pause(QUEUE, until=relay.connection.now() + 0.3)
        second = await pauses(relay).pause(QUEUE, reason="longer")
        await asyncio.sleep(0.35)

        assert first is not None
        assert second == QueuePause(by="admin", reason="longer", since=first.since)
        assert await claimed(relay, idle_slots=1) is None
        assert await relay.connection.command("TTL", redis_keys.paused(QUEUE)) == -1


async def test_waiting_jobs_of_a_paused_queue_end_as_ever(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await pauses(relay).pause(QUEUE)
        cancelled, late = await relay.enqueue(), await relay.enqueue(deadline_s=0.05)
        await relay.queue.cancel(cancelled, by="caller")
        await asyncio.sleep(0.1)
        await relay.reconciler.reconcile()

        assert (await relay.records.get(cancelled)).status == "cancelled"
        assert (await relay.records.get(late)).status == "failed"
        await pauses(relay).resume(QUEUE)
        await nothing_waits(relay)


async def test_a_paused_queue_is_listed_although_nothing_has_waited_for_long(
    redis_url: str,
) -> None:
    async with relay_on(redis_url, log_ttl_s=1) as relay:
        await pauses(relay).pause(QUEUE)
        await relay.connection.command("ZADD", redis_keys.QUEUES, 1, QUEUE)
        await relay.leases.reap()
        (view,) = await relay.queue.positions.views([])
        await pauses(relay).resume(QUEUE)
        await relay.connection.command("ZADD", redis_keys.QUEUES, 1, QUEUE)
        await relay.leases.reap()

        assert view.paused is not None
        assert await relay.queue.positions.views([]) == []


async def test_the_maintainer_closes_and_opens_a_queue_by_its_windows(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await relay.enqueue()
        assert await pauses(relay).set_windows(QUEUE, ["00:00-24:00 UTC"]) is None
        await relay.leases.reap()
        assert await pauses(relay).windows([QUEUE]) == {QUEUE: ("00:00-24:00 UTC",)}
        seconds, _ = await relay.connection.command("TIME")
        other = (int(seconds) // 86400 + 4 + 3) % 7  # unix time began on a Thursday
        closed = f"{['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'][other]} 12:00-13:00 UTC"

        schedule = redis_keys.schedule(QUEUE)
        await relay.connection.command("SET", schedule, Schedule(windows=(closed,)).text)
        await relay.leases.reap()  # the maintainer of another process changes nothing first
        assert await claimed(relay) is None
        (view,) = await relay.queue.positions.views([])
        assert view.paused is not None
        assert view.paused.by == "windows"
        assert view.paused.until is not None

        await relay.connection.command("SET", schedule, OPEN)
        await relay.leases.reap()
        assert await claimed(relay) is not None


async def test_a_change_of_a_schedule_that_was_changed_meanwhile_is_refused(
    redis_url: str,
) -> None:
    async with relay_on(redis_url) as relay:
        await pauses(relay).pause(QUEUE)

        assert not await pauses(relay).keep(QUEUE, "", '{"by":"admin"}')
        assert await relay.connection.command("EXISTS", redis_keys.paused(QUEUE)) == 1


async def test_many_changes_at_once_leave_one_of_them(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        for _ in range(3):
            await asyncio.gather(*(pauses(relay).pause(QUEUE, reason=f"{n}") for n in range(4)))
        await relay.enqueue()
        assert await claimed(relay) is None
        await pauses(relay).resume(QUEUE)
        assert await claimed(relay) is not None


async def test_a_pause_during_a_burst_loses_nothing_and_starts_nothing(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        await asyncio.gather(
            *(relay.enqueue() for _ in range(60)), pauses(relay).pause(QUEUE),
            *(relay.enqueue() for _ in range(60)),
        )  # fmt: skip
        assert await claimed(relay, idle_slots=3) is None
        await pauses(relay).resume(QUEUE)
        found = {claim.job_id for _ in range(120) if (claim := await claimed(relay))}

        assert len(found) == 120
        for job_id in found:
            await relay.leases.release(QUEUE, job_id, Holder(1, "w1"))


def test_a_pause_that_ends_outside_the_run_windows_lasts_until_they_open() -> None:
    night, noon, evening = ("22:00-06:00 UTC",), 1764331200.0, 1764367200.0  # 2025-11-28
    until: dict[str, float] = {"since": 1.0, "until": noon + 3600}

    def at_noon(**fields: object) -> QueuePause | None:
        return pause_at(Schedule.model_validate(fields), noon)

    assert at_noon(pause=until, windows=night) == QueuePause(by="admin", since=1.0, until=evening)
    assert at_noon(pause=until) == QueuePause(by="admin", since=1.0, until=noon + 3600)
    assert pause_at(Schedule(windows=night), evening) is None
    assert schedule_in('{"pause": {"of": "a newer version"}}') == Schedule()


async def test_a_configuration_sets_windows_once_and_an_admins_change_holds(redis_url: str) -> None:
    async with relay_on(redis_url) as relay:
        always, night = ("00:00-24:00 UTC",), ("22:00-06:00 UTC",)

        async def kept(windows: tuple[str, ...]) -> tuple[str, ...]:
            await pauses(relay).configure(QUEUE, windows)
            return (await pauses(relay).windows([QUEUE]))[QUEUE]

        assert await kept(always) == always
        await pauses(relay).set_windows(QUEUE, night)
        assert await kept(always) == night
        assert await kept(()) == ()
        assert await kept(always) == always
