"""The processes that are measured: started, watched (CPU seconds, memory), stopped by their pid."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.targets import Fleet, OpenAiShaped
from fleet.local.process import commands
from fleet.local.redis_server import Embedded, choose, free_port, write_configuration
from relay.settings import RelaySettings

BACKEND = "bench"
SLOTS = 2000
_PR_SET_PDEATHSIG = 1
_READY_WITHIN_S = 60.0
_STOPS_WITHIN_S = 10.0


@dataclass(frozen=True)
class Usage:
    """What a process has used so far, with its children."""

    cpu_s: float
    rss_bytes: int


def _dies_with_us() -> None:
    """Ask Linux to kill this process if the benchmark itself is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Running:
    """A process of ours."""

    def __init__(self, name: str, command: str, environment: Mapping[str, str], log: Path) -> None:
        """Start it through a shell that it replaces; what it prints goes to `log`."""
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_dies_with_us,  # noqa: PLW1509 - no threads here
            )
        self._watched = psutil.Process(self._process.pid)

    def usage(self) -> Usage:
        """Now."""
        cpu_s, rss_bytes = 0.0, 0
        for each in (self._watched, *self._watched.children(recursive=True)):
            times = each.cpu_times()
            cpu_s += times.user + times.system
            rss_bytes += each.memory_info().rss
        return Usage(cpu_s, rss_bytes)

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def pause(self) -> None:
        """Let it rest, with its children, while others are measured."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.is_alive():
            for each in (*self._watched.children(recursive=True), self._watched):
                each.send_signal(number)

    def stop(self) -> None:
        """SIGTERM, a bounded wait, SIGKILL; its children go with it."""
        self.resume()
        family = self._watched.children(recursive=True) if self.is_alive() else []
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for each in family:
            if each.is_running():
                each.kill()


def environment(**more: str) -> dict[str, str]:
    """Ours without any setting of a fleet, with this interpreter first on PATH."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLEET_", "LLM_", "CELERY_"))
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return kept | {"PATH": path, "PYTHONUNBUFFERED": "1"} | more


def wait_for(process: Running, port: int, path: str) -> None:
    """Wait until GET answers 200; raises TimeoutError with the process's last lines."""
    deadline = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < deadline and process.is_alive():
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
                line.sendall(
                    b"GET %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path.encode()
                )
                if b" 200 " in line.recv(100):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    lines = process.log.read_text(errors="replace").splitlines()[-15:]
    raise TimeoutError("\n".join([f"{process.name} is not ready:", *lines]))


@contextmanager
def started(
    name: str, command: str, variables: Mapping[str, str], folder: Path
) -> Generator[Running]:
    """A process that is stopped at the end."""
    process = Running(name, command, variables, folder / f"{name}.log")
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def backend(folder: Path) -> Generator[tuple[OpenAiShaped, Running]]:
    """The scripted server, which speaks OpenAI's wire format."""
    port = free_port()
    command = f"python -m workers.scripted.server --port {port}"
    with started("backend", command, environment(), folder) as process:
        wait_for(process, port, "/v1/models")
        yield OpenAiShaped("direct", port), process


@contextmanager
def redis(folder: Path) -> Generator[tuple[str, Running]]:
    """A server of our own, by the Procfile's line, on a port as between machines: its URL."""
    folder.mkdir(exist_ok=True)
    # model_construct: a server that FLEET_REDIS_URL names must not be measured by accident.
    choice = choose(RelaySettings.model_construct())
    port = free_port()
    listens = Embedded(f"redis://127.0.0.1:{port}/0", f"port {port}\n")
    variables = environment(
        FLEET_REDIS_SERVER=str(choice.binary),
        FLEET_REDIS_CONF=str(write_configuration(folder, listens)),
        FLEET_DATA_DIR=str(folder.resolve()),
    )
    with started("redis", commands()["redis"], variables, folder) as process:
        yield listens.url, process


@contextmanager
def fleet(
    folder: Path, backend_port: int, *, dsn: str = "", **more: str
) -> Generator[tuple[Fleet, dict[str, Running]]]:
    """Redis, one worker, one shim; `more` are settings."""
    port = free_port()
    with ExitStack() as stack:
        url, server = stack.enter_context(redis(folder / "redis"))
        variables = environment(
            FLEET_REDIS_URL=url,
            FLEET_WORKER_BACKEND=BACKEND,
            FLEET_WORKER_NAME=f"bench-{os.getpid()}-{time.monotonic_ns()}",
            FLEET_PORT=str(port),
            LLM_BENCH=dsn or f"generic+http://127.0.0.1:{backend_port}/v1?slots={SLOTS}",
            **more,
        )
        shim = stack.enter_context(started("shim", commands()["shim"], variables, folder))
        worker = stack.enter_context(started("worker", commands()["worker"], variables, folder))
        wait_for(worker if not worker.is_alive() else shim, port, "/readyz?workers=1")
        yield Fleet(port, BACKEND, url), {"worker": worker, "shim": shim, "redis": server}
