"""`fleet up` as a person runs it: it gets ready, mends itself, and leaves nothing behind."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from support.up import DEADLINE_S, ROOT, Up, environment, start_up, stop, wait_until

from contract.errors import FleetError
from fleet import Client

UP = (sys.executable, "-m", "fleet", "up", "--port", "0")


def run_up(*options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "fleet", "up", "--backend", "scripted=scripted://", *options],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Up]:
    """A fleet of this test's own, which it may break."""
    started = start_up(tmp_path / "data")
    yield started
    stop(started)


@pytest.fixture(scope="module")
def mending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A fleet in which each test may kill another process, once."""
    started = start_up(tmp_path_factory.mktemp("mending"))
    yield started
    stop(started)


def test_sigterm_leaves_no_process_behind(own: Up) -> None:
    own.process.send_signal(signal.SIGTERM)

    assert own.process.wait(DEADLINE_S) == 0
    assert own.living() == []


def test_a_signal_that_comes_twice_at_once_is_an_orderly_end(own: Up) -> None:
    # coreutils' timeout signals its child, and then the child's whole group.
    own.process.send_signal(signal.SIGTERM)
    wait_until(lambda: own.said("stops: "))
    own.process.send_signal(signal.SIGTERM)

    assert own.process.wait(DEADLINE_S) == 0
    assert not own.said("SIGKILL")
    assert own.living() == []


def test_a_later_second_signal_ends_everything_at_once(own: Up) -> None:
    with Client(own.url) as fleet:
        job = fleet.enqueue(
            "chat",
            model="scripted-story:chunks=5000,rate=20",
            backend="scripted",
            messages=[{"role": "user", "content": "go on"}],
        )
        wait_until(lambda: job.view().status == "running")  # else its worker has nothing to end
    own.process.send_signal(signal.SIGTERM)
    asked_at = time.monotonic()
    wait_until(lambda: time.monotonic() - asked_at > 1.5)
    own.process.send_signal(signal.SIGTERM)

    assert own.process.wait(DEADLINE_S) == 0
    assert own.said("was killed by SIGKILL")
    assert own.living() == []


def test_a_stream_that_runs_when_the_fleet_stops_is_read_to_its_end(own: Up) -> None:
    model = "scripted-story:chunks=20,rate=10"
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "backend": "scripted"}
    job = httpx.post(f"{own.url}/api/v1/jobs/chat", json=body).json()
    with httpx.stream("GET", f"{own.url}{job['events_url']}", timeout=DEADLINE_S) as events:
        lines = events.iter_lines()
        next(line for line in lines if line == "event: delta")
        own.process.send_signal(signal.SIGTERM)
        types = [line for line in lines if line.startswith("event: ")]

    assert types[-1] == "event: done"
    own.process.wait(DEADLINE_S)


def test_kill_minus_nine_leaves_no_process_behind_and_the_folder_free(
    own: Up, tmp_path: Path
) -> None:
    with Client(own.url) as fleet:
        job = fleet.enqueue(
            "chat",
            model="scripted-echo",
            backend="scripted",
            messages=[{"role": "user", "content": "kept"}],
        )
        assert job.result().content == "kept"
    own.process.kill()
    own.process.wait(DEADLINE_S)

    wait_until(lambda: not own.living())
    again = start_up(tmp_path / "data")
    with Client(again.url) as fleet:
        assert fleet.job(job.id).result().content == "kept"
    stop(again)


def test_a_worker_that_is_killed_is_started_again_and_its_job_goes_on(mending: Up) -> None:
    with Client(mending.url) as fleet:
        job = fleet.enqueue(
            "chat",
            model="scripted-story:chunks=60,rate=40",
            backend="scripted",
            messages=[{"role": "user", "content": "go"}],
        )
        types = []
        for event in job.events():
            if event.type == "delta" and "delta" not in types:
                psutil.Process(mending.status["processes"]["worker-scripted.1"]).kill()
            types.append(event.type)
        whole = job.result()

    assert (whole.status, whole.attempt) == ("done", 2)
    assert len(whole.content.split()) == 60
    assert sum(kind in {"done", "failed", "cancelled"} for kind in types) == 1
    assert mending.said("requeued 1 job of scripted-")


def test_a_follower_outlives_the_only_shim(mending: Up) -> None:
    with Client(mending.url) as fleet:
        job = fleet.enqueue(
            "chat",
            model="scripted-story:chunks=60,rate=30",
            backend="scripted",
            messages=[{"role": "user", "content": "go"}],
        )
        heard = []
        for frame in job.frames():
            if frame.type == "delta" and not any(each.type == "delta" for each in heard):
                psutil.Process(mending.status["processes"]["shim.1"]).kill()
            heard.append(frame)
        log = [frame for frame in job.frames() if frame.id]

    assert mending.said("shim.1 was killed by SIGKILL")
    assert [frame for frame in heard if frame.id] == log


def test_the_fleet_goes_on_when_its_server_was_killed(mending: Up) -> None:
    psutil.Process(mending.status["processes"]["redis"]).kill()

    wait_until(lambda: mending.said("redis was killed by SIGKILL"))
    with Client(mending.url) as fleet:
        words = wait_until(lambda: echoed(fleet))

    assert words == "still here"


def echoed(fleet: Client) -> str:
    """What the fleet says; nothing while it cannot."""
    with suppress(FleetError):
        said = fleet.enqueue(
            "chat",
            model="scripted-echo",
            backend="scripted",
            messages=[{"role": "user", "content": "still here"}],
        )
        return said.result(10.0).content
    return ""


def test_a_second_fleet_on_the_same_folder_is_refused(up: Up) -> None:
    refused = run_up("--data-dir", str(up.folder), "--port", "0")

    assert refused.returncode == 1
    assert f"pid {up.process.pid}" in " ".join(refused.stderr.split())


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = run_up("--data-dir", str(tmp_path), "--port", port)
        by_setting = run_up("--data-dir", str(tmp_path), FLEET_PORT=port)

    for each in (refused, by_setting):
        assert each.returncode == 1
        assert "--port" in each.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_backend_that_makes_no_sense_is_said(tmp_path: Path) -> None:
    refused = run_up("--data-dir", str(tmp_path), "--backend", "nonsense")

    assert refused.returncode == 1
    assert "NAME=DSN" in refused.stderr


def test_a_configured_redis_that_is_down_is_said(tmp_path: Path) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "fleet", "up", "--port", "0", "--backend", "s=scripted://"],
        cwd=ROOT,
        env=environment(FLEET_REDIS_URL="redis://127.0.0.1:1"),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert refused.returncode == 1
    assert "FLEET_REDIS_URL" in refused.stderr


def test_ctrl_c_ends_it_with_130(own: Up) -> None:
    own.process.send_signal(signal.SIGINT)

    assert own.process.wait(DEADLINE_S) == 130
    assert own.living() == []


def test_it_is_ready_on_every_shim(up: Up) -> None:
    for url in up.status["urls"]:
        with Client(url) as fleet:
            assert [each.name for each in fleet.backends()] == ["scripted"]
            assert {worker.pid for worker in fleet.workers()} <= set(up.pids())


def test_it_prints_five_lines_and_then_only_what_changes(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*UP, "--data-dir", str(tmp_path), "--backend", "box=scripted://"],
        cwd=ROOT,
        env=environment(COLUMNS="80"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(5)]
    address = lines[0].split()[1]
    with Client(address) as fleet:
        (worker,) = fleet.workers()
        psutil.Process(worker.pid).kill()
        wait_until(lambda: {each.pid for each in fleet.workers()} - {worker.pid})
    process.send_signal(signal.SIGTERM)
    rest, changes = process.communicate(timeout=DEADLINE_S)
    words = [line.split(maxsplit=1)[1] for line in changes.splitlines()]

    assert [line.split()[0] for line in lines] == ["address", "page", "backends", "models", "try"]
    assert max(map(len, lines)) <= 81
    assert rest == ""
    assert words[0].startswith("worker-box.1 was killed by SIGKILL: restarting")
    assert words[1:] == ["stops: running streams may end; Ctrl-C again ends them now"]


def test_verbose_shows_what_processes_print(tmp_path: Path) -> None:
    loud = start_up(tmp_path, "--verbose")
    stop(loud)

    assert loud.said("worker-scripted.1 | [tasks]")
    assert loud.said("shim.1            | ")


def test_a_worker_that_does_not_start_is_said_with_its_own_words(tmp_path: Path) -> None:
    failed = subprocess.run(
        [*UP, "--data-dir", str(tmp_path), "--backend", "s=vllm://127.0.0.1:1"],
        cwd=ROOT,
        env=environment(FLEET_WORKER_KINDS="image"),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert failed.returncode == 1
    assert "worker-s.1 does not stay up" in failed.stderr
    assert "FLEET_WORKER_KINDS=image" in failed.stderr
    assert len(failed.stderr.splitlines()) <= 6


def test_a_kind_of_jobs_that_does_not_exist_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    failed = subprocess.run(
        [*UP, "--data-dir", str(tmp_path), "--backend", "s=scripted://"],
        cwd=ROOT,
        env=environment(FLEET_WORKER_KINDS="chat,foo"),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 1
    assert "FLEET_WORKER_KINDS" in failed.stderr
    assert "foo is no kind of jobs" in failed.stderr
    assert failed.stdout == ""


def test_what_it_prints_about_itself_is_json(up: Up) -> None:
    assert json.loads(json.dumps(up.status))["ready"] is True
    assert set(up.status["processes"]) == {"redis", "shim.1", "shim.2", "worker-scripted.1"}
