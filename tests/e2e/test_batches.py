"""Batches whose shims, workers and Redis die under them: every row answered, and once."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import OpenAI
from support.batches import begun, echo, ended, everything, lines, said, when
from support.processes import worker
from support.redis_server import RedisServer
from support.shims import ShimProcess, shim

ROWS = 60
SLOW = "scripted-story:chunks=2,rate=8"
QUICK_LEASES = {"FLEET_LEASE_S": "3", "FLEET_RENEW_S": "1", "FLEET_BATCH_WINDOW": "8"}


@contextmanager
def client(process: ShimProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{process.url}/v1", api_key="unused", max_retries=3) as ask:
        yield ask


@pytest.fixture
def shims(own_redis: RedisServer, tmp_path: Path) -> Iterator[tuple[ShimProcess, ShimProcess]]:
    """Two shims; the second one looks for batches only every two seconds."""
    with (
        worker(
            own_redis.url,
            tmp_path,
            FLEET_LEASE_S="3",
            FLEET_RENEW_S="1",
            LLM_SCRIPTED="scripted://?slots=8",
        ),
        shim(own_redis.url, tmp_path, **QUICK_LEASES) as first,
        shim(own_redis.url, tmp_path, **QUICK_LEASES) as second,
    ):
        yield first, second


# litellm-docs #1567: a restarted gateway fails all its running batches.
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_another_shim_continues_where_the_driver_died(
    shims: tuple[ShimProcess, ShimProcess], how: signal.Signals
) -> None:
    # batch-gateway #644: two replicas share one list of results, and results vanish.
    first, second = shims
    with client(first) as ask:
        batch = begun(ask, [echo(n, SLOW) for n in range(ROWS)])
        when(ask, batch, completed=5)
    first.send(how)
    first.wait()
    with client(second) as ask:
        done = ended(ask, batch, 60)

        assert done.status == "completed"
        assert everything(ask, done) == {f"r{n}": 1 for n in range(ROWS)}
        assert done.request_counts is not None
        assert done.request_counts.completed == ROWS


def test_a_driver_that_was_taken_for_dead_adds_nothing(
    shims: tuple[ShimProcess, ShimProcess],
) -> None:
    first, second = shims
    with client(first) as ask:
        batch = begun(ask, [echo(n, SLOW) for n in range(ROWS)])
        when(ask, batch, completed=5)
    first.send(signal.SIGSTOP)
    with client(second) as ask:
        when(ask, batch, completed=30)
        first.send(signal.SIGCONT)
        done = ended(ask, batch, 60)

        assert done.status == "completed"
        assert everything(ask, done) == {f"r{n}": 1 for n in range(ROWS)}


def test_a_cancelled_batch_ends_although_its_driver_died(
    shims: tuple[ShimProcess, ShimProcess],
) -> None:
    first, second = shims
    rows = [echo(n) for n in range(10)] + [
        echo(n, "scripted-story:chunks=900,rate=10") for n in range(10, 14)
    ]
    with client(first) as ask:
        batch = begun(ask, rows)
        when(ask, batch, completed=10)
    first.kill()
    with client(second) as ask:
        ask.batches.cancel(batch.id)
        done = ended(ask, batch)

        assert done.status == "cancelled"
        assert len(lines(ask, done.output_file_id)) == 10
        assert everything(ask, done) == {f"r{n}": 1 for n in range(14)}


def test_a_worker_that_dies_costs_no_row(own_redis: RedisServer, tmp_path: Path) -> None:
    # llm-d-async #404: a hard kill lost ten of 64 jobs.
    env = {
        "FLEET_LEASE_S": "2",
        "FLEET_RENEW_S": "0.6",
        "FLEET_REAP_S": "0.5",
        "LLM_SCRIPTED": "scripted://?slots=8",
    }
    with (
        shim(own_redis.url, tmp_path, **QUICK_LEASES) as front,
        client(front) as ask,
        worker(own_redis.url, tmp_path, **env) as doomed,
    ):
        batch = begun(ask, [echo(n, SLOW) for n in range(ROWS)])
        when(ask, batch, completed=5)
        doomed.send(signal.SIGKILL)
        with worker(own_redis.url, tmp_path, **env):
            done = ended(ask, batch, 60)

            assert done.status == "completed"
            assert everything(ask, done) == {f"r{n}": 1 for n in range(ROWS)}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_redis_that_restarts_costs_no_row(
    own_redis: RedisServer, tmp_path: Path, how: signal.Signals
) -> None:
    env = {
        "FLEET_LEASE_S": "3",
        "FLEET_RENEW_S": "1",
        "FLEET_REAP_S": "0.5",
        "LLM_SCRIPTED": "scripted://?slots=8",
    }
    with (
        shim(own_redis.url, tmp_path, **QUICK_LEASES) as front,
        client(front) as ask,
        worker(own_redis.url, tmp_path, **env),
    ):
        batch = begun(ask, [echo(n, SLOW) for n in range(ROWS)])
        when(ask, batch, completed=10)
        own_redis.stop(how)
        own_redis.start()
        done = ended(ask, batch, 90)

        assert done.status == "completed"
        assert everything(ask, done) == {f"r{n}": 1 for n in range(ROWS)}


def test_a_batch_waits_for_a_worker_that_is_not_there_yet(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    with shim(own_redis.url, tmp_path) as front, client(front) as ask:
        batch = begun(ask, [echo(n) for n in range(5)])
        with worker(own_redis.url, tmp_path):
            done = ended(ask, batch)

            assert done.status == "completed"
            assert sorted(map(said, lines(ask, done.output_file_id))) == [
                f"n {n}" for n in range(5)
            ]


async def test_rows_wait_in_a_bounded_window(
    shims: tuple[ShimProcess, ShimProcess], own_redis: RedisServer
) -> None:
    with client(shims[0]) as ask:
        batch = begun(ask, [echo(n, SLOW) for n in range(ROWS)])
        most = 0
        while ask.batches.retrieve(batch.id).status != "completed":
            most = max(most, int(own_redis.say("ZCARD", "fleet:live")[1:]))
            await asyncio.sleep(0.02)

        assert 4 <= most <= 8
