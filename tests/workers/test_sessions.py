"""A session: the task of a ticket stays while jobs of its queue are assigned to the worker."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from support.relay import QUEUE, Relay, relay_on

from contract import redis_keys
from workers import sessions
from workers.sessions import Sessions
from workers.slots import Slots


@asynccontextmanager
async def sessions_on(url: str) -> AsyncGenerator[tuple[Relay, Sessions, Slots]]:
    async with relay_on(url) as relay:
        slots = Slots({QUEUE: 3})
        yield relay, Sessions("w1", relay.claims, slots), slots


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_IDLE_S", 0.1)
    monkeypatch.setattr(sessions, "_CHECK_S", 0.05)


async def is_recorded(relay: Relay) -> bool:
    return bool(await relay.connection.command("EXISTS", redis_keys.idle(QUEUE)))


async def record(relay: Relay, here: Sessions) -> None:
    """What a claim that found nothing does."""
    await relay.claims.claim(QUEUE, "w1", idle_slots=here.free_slots(QUEUE))


async def test_slots_are_recorded_only_while_a_session_is_open(redis_url: str) -> None:
    async with sessions_on(redis_url) as (relay, here, slots):
        assert here.free_slots(QUEUE) == 0
        async with here.open(QUEUE) as session:
            assert session is not None
            with slots.one(QUEUE):
                assert here.free_slots(QUEUE) == 3
                await record(relay, here)
            assert await is_recorded(relay)
            async with here.open(QUEUE) as second:
                assert second is None
            await here.until_idle(session)
            assert not await is_recorded(relay)

        assert here.of(QUEUE) is None


async def test_a_session_outlives_its_runs(redis_url: str) -> None:
    async with sessions_on(redis_url) as (_, here, _), here.open(QUEUE) as session:
        assert session is not None
        goes_on = asyncio.Event()
        session.start(wait_for(goes_on))
        ending = asyncio.create_task(here.until_idle(session))
        await asyncio.sleep(0.3)
        assert not ending.done()
        assert here.of(QUEUE) is session

        goes_on.set()
        await asyncio.wait_for(ending, 5)


async def test_at_a_stop_runs_end_and_none_begins(redis_url: str) -> None:
    async with sessions_on(redis_url) as (relay, here, slots), here.open(QUEUE) as session:
        assert session is not None
        with slots.one(QUEUE):
            await record(relay, here)
        goes_on = asyncio.Event()
        session.start(wait_for(goes_on))
        ending = asyncio.create_task(here.until_idle(session))
        here.close()
        async with asyncio.timeout(5):
            while await is_recorded(relay):
                await asyncio.sleep(0.01)
        assert here.of(QUEUE) is None
        assert not ending.done()
        async with here.open("scripted.embed") as other:
            assert other is None

        goes_on.set()
        await asyncio.wait_for(ending, 5)


async def test_the_runs_of_a_terminated_task_are_cancelled(redis_url: str) -> None:
    async with sessions_on(redis_url) as (_, here, _):
        cancelled = asyncio.Event()

        async def run() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                assert here.has(asyncio.current_task())
                cancelled.set()
                raise

        async def task() -> None:
            async with here.open(QUEUE) as session:
                assert session is not None
                session.start(run())
                await here.until_idle(session)

        running = asyncio.create_task(task())
        await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        assert cancelled.is_set()


async def test_a_run_that_fails_is_logged_and_forgotten(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with sessions_on(redis_url) as (_, here, _), here.open(QUEUE) as session:
        assert session is not None

        async def run() -> None:
            raise ValueError("broken")

        session.start(run())
        await asyncio.wait_for(here.until_idle(session), 5)

        assert not session.runs
        assert "jobs of scripted.chat stop: broken" in caplog.text


async def wait_for(event: asyncio.Event) -> None:
    await event.wait()
