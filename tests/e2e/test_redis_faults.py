"""Redis restarts, dies, forgets, is slow, full or unreachable, with real workers and a real shim.

Every socket timeout that these tests wait for is set on purpose: docs/adr/0015 has the table.
"""

import asyncio
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from subprocess import TimeoutExpired

import pytest
from support.processes import WorkerProcess, until_logged, worker
from support.proxy import Proxy, proxy_to
from support.redis_server import RedisServer
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from contract.events import Frame
from contract.result import fold
from workers.app import create_app

SLOW = "scripted-story:chunks=60,rate=30"
QUICK = {"FLEET_COMMAND_TIMEOUT_S": "2", "FLEET_LEASE_S": "6", "FLEET_RENEW_S": "1"}


def ask(model: str = SLOW, **fields: object) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message(role="user", content="tell"),), **fields)


async def enqueue(relay: Relay, request: ChatRequest) -> str:
    record, _ = await relay.queue.enqueue(request, queue="scripted.chat")
    return record.id


async def heard(relay: Relay, job: str, within_s: float = 40.0) -> list[Frame]:
    async with asyncio.timeout(within_s):
        return await relay.frames(job)


async def until_delta(relay: Relay, job: str, count: int = 5) -> None:
    seen = 0
    async with asyncio.timeout(20), aclosing(relay.log.follow(job)) as pages:
        async for frames in pages:
            seen += sum(frame.type == "delta" for frame in frames)
            if seen >= count:
                return


async def until_phase(relay: Relay, job: str) -> None:
    async with asyncio.timeout(20), aclosing(relay.log.follow(job)) as pages:
        async for frames in pages:
            if any(frame.type == "phase" for frame in frames):
                return


def text(frames: list[Frame]) -> str:
    return fold(frame.event for frame in frames).content


@pytest.fixture
def durable_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that has written down what it has answered."""
    server = RedisServer(tmp_path, "--appendfsync", "always")
    yield server
    server.stop()


@asynccontextmanager
async def running(redis: RedisServer, folder: Path, **env: str) -> AsyncGenerator[Relay]:
    """A worker on this server, and a relay beside it."""
    with worker(redis.url, folder, **env) as one:
        async with relay_on(redis.url) as relay:
            await one.ready(relay)
            yield relay


@asynccontextmanager
async def behind_a_proxy(
    redis: RedisServer, folder: Path, **env: str
) -> AsyncGenerator[tuple[Relay, Proxy, WorkerProcess]]:
    """A worker whose every connection to Redis goes through a proxy; a relay that goes around."""
    async with proxy_to(redis.port) as proxy, relay_on(redis.url) as relay:
        one = WorkerProcess(proxy.redis_url, folder, **{**QUICK, **env})
        try:
            await one.ready(relay)
            yield relay, proxy, one
        finally:
            proxy.heal()
            await asyncio.to_thread(one.end)


async def test_a_killed_redis_loses_nothing_that_it_has_answered(
    durable_redis: RedisServer, tmp_path: Path
) -> None:
    async with running(durable_redis, tmp_path) as relay:
        whole = text(await heard(relay, await enqueue(relay, ask(SLOW.replace("30", "0")))))
        job = await enqueue(relay, ask())
        await until_delta(relay, job)
        durable_redis.stop(signal.SIGKILL)
        durable_redis.start()
        frames = await heard(relay, job)

        assert whole == text(frames)
        assert {1} == {frame.id.attempt for frame in frames}


async def test_forgotten_scripts_are_loaded_again_in_mid_stream(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    async with running(own_redis, tmp_path) as relay:
        job = await enqueue(relay, ask())
        await until_delta(relay, job)
        for _ in range(20):
            own_redis.say("SCRIPT", "FLUSH")
            await asyncio.sleep(0.02)
        frames = await heard(relay, job)
        later = await heard(relay, await enqueue(relay, ask("scripted-story:chunks=3")))

        assert [frames[-1].type, later[-1].type] == ["done", "done"]
        assert {1} == {frame.id.attempt for frame in frames}


async def test_every_connection_may_be_killed_at_once_and_again(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    async with running(own_redis, tmp_path) as relay:
        whole = text(await heard(relay, await enqueue(relay, ask(SLOW.replace("30", "0")))))
        job = await enqueue(relay, ask())
        await until_delta(relay, job)
        for _ in range(5):
            own_redis.say("CLIENT", "KILL", "TYPE", "normal")
            own_redis.say("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.2)
        frames = await heard(relay, job)
        later = await heard(relay, await enqueue(relay, ask("scripted-story:chunks=3")))

        assert whole == text(frames)
        assert later[-1].type == "done"


async def test_a_worker_on_half_open_connections_continues_when_packets_pass_again(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    async with behind_a_proxy(own_redis, tmp_path) as (relay, proxy, _):
        whole = text(await heard(relay, await enqueue(relay, ask(SLOW.replace("30", "0")))))
        job = await enqueue(relay, ask())
        await until_delta(relay, job)
        proxy.swallow()
        await asyncio.sleep(3)
        proxy.heal()
        frames = await heard(relay, job, within_s=15)

        assert whole == text(frames)
        assert {1} == {frame.id.attempt for frame in frames}


async def test_a_run_that_redis_does_not_answer_is_given_back_and_not_failed(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    # A chat that follows the pull of its model has to read while it runs.
    env = {"FLEET_COMMAND_TIMEOUT_S": "1", "FLEET_LEASE_S": "10"}
    async with behind_a_proxy(own_redis, tmp_path, **env) as (relay, proxy, one):
        model = "scripted-story:fail=missing,times=1,rate=3,chunks=5"
        job = await enqueue(relay, ask(model, on_missing="pull"))
        await until_phase(relay, job)
        proxy.swallow()
        await until_logged(one, f"job {job}: Redis does not answer", 20)
        proxy.heal()
        frames = await heard(relay, job)

        assert frames[-1].type == "done"


async def test_half_open_broker_connections_are_noticed(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    # celery #8030, #8091, #10205: alive after a reconnect, and consuming nothing.
    async with behind_a_proxy(own_redis, tmp_path) as (relay, proxy, one):
        proxy.swallow()
        proxy.heal()
        frames = await heard(relay, await enqueue(relay, ask("scripted-story:chunks=3")), 25)

        assert frames[-1].type == "done"
        assert one.popen.poll() is None


async def test_a_worker_that_redis_never_answers_again_ends_for_its_supervisor(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    env = {**QUICK, "FLEET_WATCHDOG_S": "3"}
    async with proxy_to(own_redis.port) as proxy, relay_on(own_redis.url) as relay:
        one = WorkerProcess(proxy.redis_url, tmp_path, **env)
        try:
            await one.ready(relay)
            proxy.swallow()
            code = await asyncio.to_thread(one.wait, 60)
        except TimeoutExpired:
            raise AssertionError(one.text()) from None
        finally:
            one.popen.kill()
            one.wait()

        assert code == 1
        assert "Redis has not answered for too long" in one.text()


def test_celerys_lines_never_try_again_where_no_timeout_holds(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # redis-py's retry of a listener reconnects and reads on without a timeout, and one cut in a
    # hundred stopped the consumer for good: found by cutting all lines again and again.
    monkeypatch.setenv("FLEET_REDIS_URL", redis_url)
    with create_app().connection() as broker:
        line = broker.default_channel.client.connection_pool.make_connection()

        assert (line.retry.get_retries(), line.socket_timeout) == (0, 5)


async def test_a_slow_redis_is_only_slow(own_redis: RedisServer, tmp_path: Path) -> None:
    async with behind_a_proxy(own_redis, tmp_path) as (relay, proxy, _):
        proxy.delay_s = 0.2
        jobs = [await enqueue(relay, ask()) for _ in range(5)]
        answers = await asyncio.gather(*(heard(relay, job) for job in jobs))

        assert {"done"} == {frames[-1].type for frames in answers}
        assert {1} == {frame.id.attempt for frames in answers for frame in frames}
        assert len({text(frames) for frames in answers}) == 1
