"""A whole fleet for tests of clients: shim, workers, and a server of scripted models."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from support.processes import Process, worker
from support.redis_server import RedisServer
from support.shim import serving

READY_WITHIN_S = 30.0


@dataclass(frozen=True)
class Fleet:
    """Where the shim and the scripted server are."""

    url: str
    server_url: str
    redis_url: str
    backends: tuple[str, ...]
    workers: tuple[Process, ...] = ()

    def seen(self) -> dict[str, Any]:
        """What the scripted server saw of its clients, the workers."""
        told: dict[str, Any] = httpx.get(f"{self.server_url}/_seen").json()
        return told

    def job(self, job_id: str) -> dict[str, Any]:
        told: dict[str, Any] = httpx.get(f"{self.url}/api/v1/jobs/{job_id}").json()
        return told


@contextmanager
def scripted_server(models: Sequence[str] = ()) -> Iterator[str]:
    """A process that serves scripted models in the words of every server; yields its address."""
    words = [sys.executable, "-m", "workers.scripted.server", "--port", "0"]
    words += [word for model in models for word in ("--model", model)]
    with TemporaryDirectory() as folder:
        process = Process(words, {}, Path(folder) / "server.log")
        try:
            yield _first_line(process)
        finally:
            process.end()


def _first_line(process: Process) -> str:
    give_up_at = time.monotonic() + READY_WITHIN_S
    while not process.text().endswith("\n"):
        assert process.popen.poll() is None, process.text()
        assert time.monotonic() < give_up_at, process.text()
        time.sleep(0.01)
    return process.text().splitlines()[0]


@contextmanager
def fleet(
    folder: Path, *backends: str, models: Sequence[str] = (), **settings: Any
) -> Iterator[Fleet]:
    """A fleet with a worker for each of these types of backends, named like their type.

    `models` are listed beside the scripted forms; `settings` are the shim's.
    """
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        server = stack.enter_context(scripted_server(models))
        url = stack.enter_context(serving(redis.url, **{"data_dir": folder / "data", **settings}))
        workers: list[Process] = []
        for backend in backends:
            dsn = _dsn(backend, server)
            env = {f"LLM_{backend.upper()}": dsn}
            workers.append(stack.enter_context(worker(redis.url, folder, backend, **env)))
        _wait_for(url, set(backends))
        yield Fleet(url, server, redis.url, backends, tuple(workers))


def _dsn(backend: str, server: str) -> str:
    if backend == "scripted":
        return "scripted://"
    address = server.removeprefix("http://")
    if backend == "openai":
        return f"openai+http://k3y@{address}/v1"
    path = "" if backend == "ollama" else "/v1"
    return f"{backend}://{address}{path}"


def _wait_for(url: str, backends: set[str]) -> None:
    give_up_at = time.monotonic() + READY_WITHIN_S
    while True:
        told = httpx.get(f"{url}/api/v1/backends").json()["backends"]
        if {each["name"] for each in told if each["healthy"]} == backends:
            return
        assert time.monotonic() < give_up_at, told
        time.sleep(0.05)
