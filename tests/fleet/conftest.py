"""A whole fleet, started once for the tests that ask it things, and the `fleet` command."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
DEADLINE_S = 40.0


def wait_until(true: Callable[[], Any], within_s: float = DEADLINE_S) -> Any:
    """The first truthy answer; fails the test when none comes in time."""
    give_up_at = time.monotonic() + within_s
    while not (answer := true()):
        assert time.monotonic() < give_up_at, f"never happened within {within_s} s"
        time.sleep(0.02)
    return answer


def environment(**more: str) -> dict[str, str]:
    """Ours without anything that configures a fleet."""
    ours = ("FLEET_", "LLM_", "OLLAMA_URL", "LLAMACPP_URL", "LMSTUDIO_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, **more}


@dataclass
class Up:
    """A `fleet up` that was started by a test."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return ",".join(self.status["urls"])

    def pids(self) -> list[int]:
        return [self.process.pid, *self.status["processes"].values()]

    def living(self) -> list[int]:
        return [pid for pid in self.pids() if _lives(pid)]

    def said(self, words: str) -> bool:
        return any(words in line for line in list(self.lines))


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_up(folder: Path, *options: str) -> Up:
    """Start it on a free port with the scripted backend; wait until it says that it is ready."""
    command = [sys.executable, "-m", "fleet", "up", "--json", "--data-dir", str(folder)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--backend", "scripted=scripted://", *options],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    up = Up(process)
    assert process.stdout
    assert process.stderr
    threading.Thread(target=lambda: up.lines.extend(process.stderr or ()), daemon=True).start()
    first = process.stdout.readline()
    assert first, "".join(up.lines)
    up.status = json.loads(first)
    return up


def stop(up: Up) -> None:
    """End it, and let go of its pipes."""
    if up.process.poll() is None:
        up.process.send_signal(signal.SIGTERM)
    up.process.wait(DEADLINE_S)
    for pipe in (up.process.stdout, up.process.stderr):
        assert pipe
        pipe.close()


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A fleet with two shims and a scripted backend, for tests that leave it as it is."""
    started = start_up(tmp_path_factory.mktemp("up"), "--shims", "2")
    yield started
    stop(started)


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def fleet(up: Up) -> Command:
    """Run the `fleet` command against it."""

    def run(*words: str, stdin: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "fleet", *words],
            cwd=ROOT,
            env=environment(**{"FLEET_URL": up.url, **variables}),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    return run
