"""Programs of the fleet as forks of one process that has imported them, so that none imports again.

A worker's imports cost 1 to 2 s of CPU, and tests start hundreds. What is forked runs `__main__` as
`python -m` does, in a process of its own, with its own environment, output and exit code.

    FLEET_TEST_FORKS=0 make test    a new interpreter for every process
"""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from support.up import environment

PROGRAMS: Final = ("workers", "api_shim", "workers.scripted.server")
"""What can be forked."""
_SERVER: Final = Path(__file__).with_name("fork_server.py")
_INTERPRETER: Final = ("PYTHON", "LD_")
"""Variables with these prefixes are read when an interpreter starts."""


def can_fork(words: Sequence[str], env: dict[str, str]) -> bool:
    """Whether this is a program of ours that a new interpreter would run no differently."""
    return (
        hasattr(os, "pidfd_open")
        and os.environ.get("FLEET_TEST_FORKS") != "0"
        and [*words[:2]] == [sys.executable, "-m"]
        and words[2] in PROGRAMS
        and not any(name.startswith(_INTERPRETER) for name in env)
    )


class Forked:
    """A forked program, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, words: Sequence[str], env: dict[str, str], log: Path) -> None:
        """Start `python -m ...` with this whole environment; its output is added to `log`."""
        self.args = [*words]
        self.returncode: int | None = None
        self._parent = _parent()
        self.pid: int = self._parent.call("start", [words[2], [*words[3:]], env, str(log)])
        self._pidfd = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative after a signal.

        Raises:
            TimeoutExpired: The process still runs.
        """
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, within_s: float | None) -> int | None:
        if self.returncode is None and _is_readable(self._pidfd, within_s):
            with self._parent.lock:
                if self.returncode is None:
                    self.returncode = self._parent.call("reap", self.pid)
                    os.close(self._pidfd)
        return self.returncode


def _is_readable(descriptor: int, within_s: float | None) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(None if within_s is None else within_s * 1000))


class _Parent:
    """The process that forks: one line of JSON for each call, one for its answer."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        # -P: modules beside the program have names that the fleet has, too.
        self._process = subprocess.Popen(
            [sys.executable, "-P", _SERVER],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.end)

    def call(self, method: str, arguments: Any) -> int:
        with self.lock:
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.write(json.dumps([method, arguments]) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()
        self._process.wait(10)


@cache
def _parent() -> _Parent:
    return _Parent()
