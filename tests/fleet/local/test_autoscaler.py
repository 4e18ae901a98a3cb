"""`fleet up --scale`: workers come with the jobs and go after them, from zero and back."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from support.up import DEADLINE_S, Up, lives, start_up, stop, wait_until

SCALE = ("--backend", "box=scripted://?slots=2", "--scale", "box=0..2", "--scale-down-after", "1")
STORY = "scripted-story:chunks={},rate=20"


def get(up: Up, path: str) -> Any:
    return httpx.get(f"{up.url}/api/v1/{path}", timeout=10).json()


def enqueue(up: Up, kind: str, **body: object) -> Any:
    answer = httpx.post(f"{up.url}/api/v1/jobs/{kind}", json={"backend": "box", **body})
    assert answer.status_code == 202, answer.text
    return answer.json()


def chat(up: Up, chunks: int = 20) -> Any:
    messages = [{"role": "user", "content": "tell"}]
    return enqueue(up, "chat", model=STORY.format(chunks), messages=messages)


def status(up: Up, job: Any) -> str:
    return str(get(up, f"jobs/{job['id']}?wait_s=20")["status"])


def workers(up: Up) -> list[Any]:
    return [each for each in get(up, "workers")["workers"] if each["name"].startswith("box-")]


def until_zero(up: Up) -> None:
    wait_until(lambda: not workers(up))


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A fleet whose backend has no worker: the first one has reported it and was ended."""
    started = start_up(tmp_path_factory.mktemp("scaled"), *SCALE)
    until_zero(started)
    yield started
    stop(started)


def test_jobs_of_several_queues_start_a_worker_that_ends_after_them(scaled: Up) -> None:
    until_zero(scaled)
    first = chat(scaled)
    second = enqueue(scaled, "embed", model="scripted-embed", input=["one", "two"])
    ended = [status(scaled, job) for job in (first, second)]
    until_zero(scaled)

    assert first["reason"] == "waiting for a worker to start"
    assert ended == ["done", "done"]
    assert get(scaled, "scale")["workers"] == 0
    assert scaled.said("0 → 1 workers")


def test_a_busy_worker_is_not_ended_though_others_are(scaled: Up) -> None:
    long = chat(scaled, 200)
    for _ in range(3):
        chat(scaled)
    wait_until(lambda: len(workers(scaled)) == 2)
    wait_until(lambda: len(workers(scaled)) == 1)
    during = get(scaled, f"jobs/{long['id']}")["status"]

    assert during == "running"
    assert status(scaled, long) == "done"
    assert get(scaled, f"jobs/{long['id']}")["tries"] == 1


def test_a_worker_that_is_killed_is_started_again_for_its_job(scaled: Up) -> None:
    job = chat(scaled, 60)
    wait_until(lambda: get(scaled, f"jobs/{job['id']}")["status"] == "running")
    (worker,) = wait_until(lambda: workers(scaled))
    psutil.Process(worker["pid"]).kill()

    assert status(scaled, job) == "done"
    assert get(scaled, f"jobs/{job['id']}")["tries"] == 2
    until_zero(scaled)


def test_a_stop_while_workers_start_leaves_nothing(tmp_path: Path) -> None:
    up = start_up(tmp_path / "data", *SCALE)
    until_zero(up)
    for _ in range(40):
        chat(up, 1000)
    wait_until(lambda: up.said("workers, "))
    time.sleep(0.3)
    pids = [each.pid for each in psutil.Process(up.process.pid).children(recursive=True)]
    up.process.send_signal(signal.SIGINT)
    code = up.process.wait(DEADLINE_S)
    stop(up)

    assert code == 130
    assert [pid for pid in pids if lives(pid)] == []


def test_a_fleet_that_is_started_again_knows_its_backend_and_starts_no_worker(
    tmp_path: Path,
) -> None:
    up = start_up(tmp_path / "data", *SCALE)
    until_zero(up)
    stop(up)
    again = start_up(tmp_path / "data", *SCALE)
    names = list(again.status["processes"])
    ended = status(again, chat(again))
    stop(again)

    assert not any("worker-box" in name for name in names)
    assert ended == "done"
