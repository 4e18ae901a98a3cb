"""A process started before Redis logs it in one line, waits, and serves once Redis is there."""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from support.processes import Process, until_logged, worker
from support.redis_server import RedisServer
from support.relay import relay_on

from contract.chat import ChatRequest, Message
from relay.settings import RelaySettings, address

WAITING = "waiting for it (FLEET_REDIS_URL)"


@contextmanager
def silent() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


@contextmanager
def refusing() -> Iterator[int]:
    """A port on which no process listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.mark.parametrize("port", [silent, refusing], ids=["silent", "refusing"])
async def test_a_worker_waits_in_one_line_and_leaves_on_sigterm(
    port: Callable[[], AbstractContextManager[int]], tmp_path: Path
) -> None:
    with (
        port() as at,
        worker(
            f"redis://:secret@127.0.0.1:{at}/0", tmp_path, FLEET_COMMAND_TIMEOUT_S="1"
        ) as process,
    ):
        await until_logged(process, WAITING, 30)
        process.popen.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(process.popen.wait, 20)

        assert code == 0
        assert process.text().count("\n") == 1
        assert f"127.0.0.1:{at}" in process.text()
        assert "secret" not in process.text()


async def test_a_worker_serves_once_redis_is_there(own_redis: RedisServer, tmp_path: Path) -> None:
    own_redis.stop()
    with worker(own_redis.url, tmp_path) as process:
        await until_logged(process, WAITING, 30)
        own_redis.start()
        await until_logged(process, "Redis answers at", 30)
        async with relay_on(own_redis.url) as relay:
            await process.ready(relay)
            request = ChatRequest(
                model="scripted-echo", messages=(Message(role="user", content="hi"),)
            )
            record, _ = await relay.queue.enqueue(request, queue="scripted.chat")
            async with asyncio.timeout(30):
                frames = await relay.frames(record.id)

    assert frames[-1].type == "done"


async def test_celerys_own_command_waits_as_well(own_redis: RedisServer, tmp_path: Path) -> None:
    own_redis.stop()
    process = Process(
        [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-l", "INFO"],
        {"FLEET_REDIS_URL": own_redis.url, "FLEET_WORKER_BACKEND": "scripted"},
        tmp_path / "celery.log",
    )
    try:
        await until_logged(process, WAITING, 30)
        own_redis.start()
        await until_logged(process, "ready.", 30)
    finally:
        process.end()

    assert "Traceback" not in process.text()


async def test_a_shim_logs_once_that_redis_is_missing(tmp_path: Path) -> None:
    with refusing() as at:
        process = Process(
            [sys.executable, "-m", "api_shim", "--port", "0"],
            {"FLEET_REDIS_URL": f"redis://127.0.0.1:{at}/0"},
            tmp_path / "shim.log",
        )
        try:
            await until_logged(process, "Uvicorn running", 30)
            await asyncio.sleep(5)
        finally:
            process.end()

    assert "Traceback" not in process.text()
    assert process.text().count("the subscriber lost Redis") <= 2
    assert process.text().count("cannot read the list of batches") <= 1


def test_an_address_has_no_password() -> None:
    settings = RelaySettings(redis_url="redis://user:secret@example.test:7000/3")

    assert address(settings) == "example.test:7000"
