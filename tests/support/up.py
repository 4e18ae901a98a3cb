"""`fleet up` as a process of a test: started, awaited, ended."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

ROOT = Path(__file__).parents[2]
DEADLINE_S = 40.0


class Said(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Said]
"""Runs the `fleet` command."""


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
    folder: Path
    lines: list[str] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return ",".join(self.status["urls"])

    def pids(self) -> list[int]:
        return [self.process.pid, *self.status["processes"].values()]

    def living(self) -> list[int]:
        return [pid for pid in self.pids() if lives(pid)]

    def said(self, words: str) -> bool:
        return any(words in line for line in list(self.lines))


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_up(
    folder: Path,
    *options: str,
    program: Sequence[str] = (sys.executable, "-m", "fleet"),
    cwd: Path = ROOT,
) -> Up:
    """Start it on a free port with the scripted backend; wait until it says that it is ready."""
    command = [*program, "up", "--json", "--data-dir", str(folder)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--backend", "scripted=scripted://", *options],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    up = Up(process, folder)
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
