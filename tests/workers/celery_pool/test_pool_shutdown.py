"""How a worker on the asyncio pool ends, in real processes: warm, cold, stuck and crashed."""

from collections.abc import Callable
from signal import SIGINT, SIGQUIT, SIGTERM

import pytest

from .conftest import Broker, Worker, eventually

Start = Callable[..., Worker]


def test_a_warm_shutdown_waits_for_tasks_and_then_for_the_lifespan(
    server: Broker, start: Start
) -> None:
    worker = start("-c", "4")
    result = server.send("wait_for_word", "lifespan")
    eventually(lambda: server.items("lifespan") == ["entered", "started"])

    worker.signal(SIGTERM)
    eventually(lambda: server.items("lifespan")[-1] == "draining")
    server.redis.rpush("lifespan:end", "now")

    assert worker.exit_code() == 0
    assert server.items("lifespan")[2:] == ["draining", "finished", "left"]
    assert result.state == "SUCCESS"


def test_a_shutdown_by_remote_control_is_announced_too(server: Broker, start: Start) -> None:
    worker = start("-c", "4")
    # Celery sends `worker_ready` before it subscribes to remote control.
    eventually(server.redis.pubsub_numpat)

    server.client.control.shutdown()

    assert worker.exit_code() == 0
    assert server.items("lifespan") == ["entered", "draining", "left"]


def test_acknowledgements_continue_while_tasks_end(server: Broker, start: Start) -> None:
    worker = start("-c", "4")
    server.send("wait_for_word", "first")
    server.send("late", "second")
    assert [server.pop("first"), server.pop("second")] == ["started", "started"]
    assert server.redis.hlen("unacked") == 1

    worker.signal(SIGTERM)
    server.redis.rpush("second:end", "now")

    eventually(lambda: server.redis.hlen("unacked") == 0)
    assert worker.process.poll() is None
    server.redis.rpush("first:end", "now")
    assert worker.exit_code() == 0


def test_a_draining_worker_returns_late_messages(server: Broker, start: Start) -> None:
    worker = start("-c", "4")
    server.send("wait_for_word", "task")
    assert server.pop("task") == "started"
    worker.signal(SIGTERM)
    eventually(lambda: server.items("lifespan")[-1] == "draining")
    eventually(lambda: "Warm shutdown" in worker.log)

    # One message may be taken in the turn in which the signal arrives.
    for _ in range(20):
        server.send("echo", "late")
    eventually(lambda: server.redis.llen("main") >= 19)

    assert server.redis.hlen("unacked") == 0
    server.redis.rpush("task:end", "now")
    assert worker.exit_code() == 0


@pytest.mark.parametrize("signals", [[SIGQUIT], [SIGTERM, SIGQUIT], [SIGINT, SIGINT]])
def test_a_cold_shutdown_cancels_running_tasks(
    server: Broker, start: Start, signals: list[int]
) -> None:
    worker = start("-c", "4")
    server.send("wait", "task")
    assert [server.pop("task"), server.pop("lifespan")] == ["started", "entered"]

    for number, one in enumerate(signals):
        if number:
            assert server.pop("lifespan") == "draining"
        worker.signal(one)

    worker.exit_code()
    assert server.items("task") == ["cancelled", "finally"]
    assert server.items("lifespan")[-1] == "left"


def test_tasks_that_outlast_the_drain_are_cancelled(server: Broker, start: Start) -> None:
    worker = start("-c", "4", POOL_TEST_DRAIN_TIMEOUT_S="0.2")
    server.send("wait", "task")
    assert server.pop("task") == "started"

    worker.signal(SIGTERM)

    assert worker.exit_code() == 0
    assert server.items("task") == ["cancelled", "finally"]


def test_a_blocked_loop_does_not_prevent_the_shutdown(server: Broker, start: Start) -> None:
    worker = start(
        "-c",
        "4",
        POOL_TEST_DRAIN_TIMEOUT_S="2",
        CELERY_CUSTOM_WORKER_POOL="tests.workers.pool_app:HurriedPool",
    )
    server.send("block", "task", 3600)
    assert server.pop("task") == "started"

    worker.signal(SIGTERM)

    assert worker.exit_code() == 0
    assert "the asyncio loop has been blocked for" in worker.log
    assert "the asyncio loop did not stop" in worker.log
    assert "time.sleep(seconds)" in worker.log


def test_a_lifespan_that_refuses_to_end_is_cancelled(server: Broker, start: Start) -> None:
    worker = start(
        "-c",
        "4",
        POOL_TEST_LIFESPAN="stuck_lifespan",
        CELERY_CUSTOM_WORKER_POOL="tests.workers.pool_app:HurriedPool",
    )

    worker.signal(SIGTERM)

    assert worker.exit_code() == 0
    assert "the application's lifespan did not end" in worker.log


def test_a_lifespan_that_cannot_begin_ends_the_worker(start: Start) -> None:
    worker = start(ready=False, POOL_TEST_LIFESPAN="failing_lifespan")

    assert worker.exit_code() == 1
    assert "no backend" in worker.log


@pytest.mark.parametrize("lifespan", ["crashing_lifespan", "exiting_lifespan"])
def test_a_crash_of_the_lifespan_ends_the_worker(
    server: Broker, start: Start, lifespan: str
) -> None:
    worker = start(
        "-c",
        "4",
        POOL_TEST_LIFESPAN=lifespan,
        CELERY_CUSTOM_WORKER_POOL="tests.workers.pool_app:HurriedPool",
    )
    server.send("wait", "task")
    assert server.pop("task") == "started"

    server.redis.rpush("crash", "now")

    assert worker.exit_code() == 1
    assert "CRITICAL" in worker.log


def test_a_crash_ends_the_worker_even_if_its_main_thread_is_blocked(
    server: Broker, start: Start
) -> None:
    worker = start(
        "-c",
        "4",
        POOL_TEST_LIFESPAN="crashing_lifespan_of_a_stuck_worker",
        CELERY_CUSTOM_WORKER_POOL="tests.workers.pool_app:HurriedPool",
    )
    assert server.pop("main") == "stuck"

    server.redis.rpush("crash", "now")

    assert worker.exit_code() == 1
    assert "the main thread did not exit in 3 s" in worker.log
    assert "wait_for_nothing" in worker.log


def test_the_pool_can_be_chosen_in_the_configuration(server: Broker, start: Start) -> None:
    start("-c", "2", POOL_TEST_POOL="workers.celery_pool.pool:AsyncioPool")

    # An inspection before the worker has subscribed is lost, so it is repeated.
    replies = eventually(lambda: server.client.control.inspect(limit=1, timeout=1).stats())
    (stats,) = replies.values()
    assert stats["pool"]["implementation"] == "workers.celery_pool.pool:AsyncioPool"
