"""The asyncio pool in a real worker process on a real server: tasks, limits, remote control."""

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

from workers.celery_pool.greenlet_bridge import async_task

from .conftest import ROOT, Broker, Worker, eventually, free_port

pytestmark = pytest.mark.usefixtures("shared_worker")


@pytest.fixture
def name() -> str:
    return uuid4().hex


def answer(server: Broker, question: str) -> Any:
    """What the one worker answers to an inspection."""
    inspect = getattr(server.client.control.inspect(limit=1, timeout=1), question)
    # An inspection before the worker has subscribed is lost, so it is repeated.
    (only,) = eventually(inspect).values()
    return only


def test_a_coroutine_task_returns_its_result(server: Broker) -> None:
    # celery #3884, #6552, PR #10634: Celery runs no `async def`.
    assert server.send("echo", "hello").get(timeout=5) == "hello"


def test_an_ordinary_task_runs_too(server: Broker) -> None:
    assert server.send("plain", "hello").get(timeout=5) == "hello"


def test_an_exception_of_the_coroutine_is_the_failure_of_the_task(server: Broker) -> None:
    with pytest.raises(ValueError, match="failed as fail"):
        server.send("fail").get(timeout=5)


def test_a_coroutine_can_ask_for_its_own_retry(server: Broker, name: str) -> None:
    result = server.send("try_again", name)

    assert result.get(timeout=5) == 2
    assert server.items(name) == [f"attempt {number} of {result.id}" for number in range(3)]


def test_signals_and_hooks_surround_a_success(server: Broker, name: str) -> None:
    result = server.send("hooked", name, kwargs={"good": True})

    assert [server.pop(name) for _ in range(4)] == [
        "prerun",
        f"body of {result.id}",
        "on_success",
        "postrun SUCCESS",
    ]


def test_signals_and_hooks_surround_a_failure(server: Broker, name: str) -> None:
    result = server.send("hooked", name, kwargs={"good": False})

    assert [server.pop(name) for _ in range(5)] == [
        "prerun",
        f"body of {result.id}",
        "on_failure",
        "failure",
        "postrun FAILURE",
    ]


def test_a_call_with_wrong_arguments_is_refused_by_the_caller() -> None:
    app = Celery("arguments", set_as_current=False)

    @async_task(app, name="two")
    async def two(first: int, second: int) -> None: ...

    with pytest.raises(TypeError, match="second"):
        two.apply_async((1,))


def test_a_thousand_coroutines_meet_in_one_process(server: Broker, name: str) -> None:
    # ray asynchronous-inference.md: its tasks on Celery refuse `async def`, ...
    for _ in range(1000):
        server.send("meet", name, 1000, ignore_result=True)

    assert eventually(lambda: server.redis.get(f"{name}:met") == "1000")


def test_a_revoked_task_is_cancelled(server: Broker, name: str) -> None:
    # celery concurrency/thread.py: the pool of threads cannot end a task.
    result = server.send("wait", name)
    assert server.pop(name) == "started"

    server.client.control.revoke(result.id, terminate=True)

    assert [server.pop(name), server.pop(name)] == ["cancelled", "finally"]
    with pytest.raises(TaskRevokedError):
        result.get(timeout=5)
    eventually(lambda: answer(server, "stats")["pool"]["running"] == 0)


def test_a_task_revoked_before_it_starts_never_starts(server: Broker, name: str) -> None:
    task_id = uuid4().hex
    server.client.control.revoke(task_id, reply=True, timeout=0.2)

    result = server.send("wait", name, task_id=task_id)

    with pytest.raises(TaskRevokedError):
        result.get(timeout=5)
    assert server.items(name) == []


def test_a_coroutine_cancelled_from_inside_is_reported_revoked(server: Broker) -> None:
    with pytest.raises(TaskRevokedError):
        server.send("cancel_itself").get(timeout=5)


def test_the_soft_time_limit_is_raised_in_the_coroutine(server: Broker, name: str) -> None:
    # celery concurrency/thread.py: time limits are for prefork and gevent only.
    result = server.send("wait", name, soft_time_limit=0.2)

    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=5)
    assert server.items(name) == ["started", "soft limit", "finally"]


def test_the_soft_time_limit_leaves_no_child_behind(server: Broker, name: str) -> None:
    result = server.send("wait_in_group", name, soft_time_limit=0.2)

    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=5)
    assert server.items(name) == ["started", "child ended"]


def test_the_hard_time_limit_cancels_the_coroutine(server: Broker, name: str) -> None:
    result = server.send("wait", name, time_limit=0.2)

    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=5)
    assert [server.pop(name) for _ in range(3)] == ["started", "cancelled", "finally"]


def test_a_task_that_exits_does_not_take_the_loop_along(server: Broker) -> None:
    with pytest.raises(Exception, match="SystemExit"):
        server.send("exit").get(timeout=5)
    assert server.send("echo", "alive").get(timeout=5) == "alive"


def test_the_worker_answers_inspections(server: Broker, name: str) -> None:
    result = server.send("wait_for_word", name)
    assert server.pop(name) == "started"

    (active,) = answer(server, "active")
    assert active["id"] == result.id
    assert [reserved["id"] for reserved in answer(server, "reserved")] == []
    assert answer(server, "ping") == {"ok": "pong"}
    assert answer(server, "stats")["pool"] == {
        "implementation": "workers.celery_pool.pool:AsyncioPool",
        "max-concurrency": 1000,
        "running": 1,
    }
    server.redis.rpush(f"{name}:end", "now")
    result.get(timeout=5)


def test_a_running_task_survives_a_lost_connection(
    server: Broker, shared_worker: Worker, name: str
) -> None:
    result = server.send("wait_for_word", name)
    assert server.pop(name) == "started"
    # A message that is not acknowledged yet would be delivered again: kombu's way, not the pool's.
    eventually(lambda: not server.redis.exists("unacked"))

    consuming = [each for each in server.redis.client_list() if each["cmd"] == "brpop"]
    for each in consuming:
        server.redis.client_kill_filter(_id=each["id"])
    eventually(lambda: "Connection to broker lost" in shared_worker.log)
    server.redis.rpush(f"{name}:end", "now")

    assert consuming
    assert server.pop(name) == "finished"
    eventually(lambda: server.client.AsyncResult(result.id).state == "SUCCESS")
    assert server.send("echo", "alive").get(timeout=10) == "alive"


def test_a_blocked_loop_is_named_in_the_log(
    server: Broker, shared_worker: Worker, name: str
) -> None:
    server.send("block", name, 2).get(timeout=5)

    assert re.search(r"the asyncio loop has been blocked for 1\.\d s", shared_worker.log)
    assert "time.sleep(seconds)" in shared_worker.log


@contextmanager
def flower(server: Broker) -> Iterator[str]:
    """Flower's address, once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "celery", f"--broker={server.url}", "flower"]
    with subprocess.Popen(
        [*command, "--address=127.0.0.1", f"--port={port}"],
        cwd=ROOT,
        env={**os.environ, "FLOWER_UNAUTHENTICATED_API": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def fetch(url: str) -> str:
    """The body, or None while no server listens."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return str(response.read(), "utf-8")
    except OSError:
        return ""


def test_flower_sees_the_worker_and_its_tasks(server: Broker) -> None:
    with flower(server) as address:
        eventually(lambda: "celery@" in fetch(f"{address}/api/workers?refresh=1"))
        result = server.send("echo", "seen")

        eventually(
            lambda: re.search(
                f'"{result.id}".*"state": "SUCCESS"', fetch(f"{address}/api/tasks"), re.DOTALL
            )
        )
