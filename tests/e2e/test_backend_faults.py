"""Backends that are down, slow, truncating or wrong, through the whole fleet over real sockets."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from support.processes import Process, WorkerProcess, worker
from support.redis_server import RedisServer, free_port
from support.relay import Relay, relay_on

from contract.chat import ChatRequest, Message
from contract.events import (
    Failed,
    Frame,
)
from contract.result import fold

BACKENDS = ("ollama", "generic", "llamacpp", "vllm")


@dataclass
class Fleet:
    """Workers of four types, all next to one scripted server."""

    redis_url: str
    server: str
    workers: list[WorkerProcess]

    async def ready(self, relay: Relay) -> None:
        await asyncio.gather(*(one.ready(relay) for one in self.workers))

    def seen(self) -> dict[str, int]:
        return dict(httpx.get(f"{self.server}/_seen").json())


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, nobody: str) -> Iterator[Fleet]:
    folder, port = tmp_path_factory.mktemp("fleet"), free_port()
    with ExitStack() as stack:
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        module = ["-m", "workers.scripted.server", "--port", str(port)]
        server = Process([sys.executable, *module], {}, folder / "server.log")
        stack.callback(server.end)
        workers = [start(stack, redis.url, folder, type, port) for type in BACKENDS]
        down = {"LLM_DOWN": f"ollama://{nobody}", "FLEET_RETRY_PATIENCE": "0"}
        workers.append(stack.enter_context(worker(redis.url, folder, "down", **down)))
        yield Fleet(redis.url, f"http://127.0.0.1:{port}", workers)


def start(stack: ExitStack, redis_url: str, folder: Path, type: str, port: int) -> WorkerProcess:
    protocol = "+http" if type == "generic" else ""
    dsn = f"{type}{protocol}://127.0.0.1:{port}?idle_s=1"
    env = {f"LLM_{type.upper()}": dsn, "FLEET_RETRY_PATIENCE": "0"}
    return stack.enter_context(worker(redis_url, folder, type, **env))


async def run(fleet: Fleet, backend: str, model: str, **fields: object) -> list[Frame]:
    async with relay_on(fleet.redis_url) as relay:
        await fleet.ready(relay)
        once = {"max_attempts": 1, **fields}
        request = ChatRequest(model=model, messages=(Message(role="user", content="tell"),), **once)
        record, _ = await relay.queue.enqueue(request, queue=f"{backend}.chat")
        async with asyncio.timeout(20):
            return await relay.frames(record.id)


def failure(frames: list[Frame]) -> Failed:
    event = frames[-1].event
    assert isinstance(event, Failed), frames[-1]
    return event


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wire", ["", "trickle", "crlf", "split"])
async def test_the_answer_is_whole_however_it_is_cut(fleet: Fleet, backend: str, wire: str) -> None:
    model = "scripted-story:chunks=40" + (f",wire={wire}" if wire else "")
    result = fold(frame.event for frame in await run(fleet, backend, model))
    plain = fold(f.event for f in await run(fleet, "generic", "scripted-story:chunks=40"))

    assert ("done", plain.content) == (result.status, result.content)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("fault", "codes"),
    [
        ("html", {"bad_endpoint"}),
        ("body", {"bad_endpoint", "backend_error", "backend_rejected", "server_fault"}),
        ("busy", {"backend_busy"}),
        ("loading", {"model_loading", "backend_busy"}),
        ("missing", {"model_missing"}),
        ("context", {"context_exceeded"}),
        ("auth", {"authentication_refused"}),
        ("crash", {"server_fault"}),
        ("drop", {"backend_unreachable"}),
    ],
)
async def test_a_fault_before_the_first_word_has_its_own_code(
    fleet: Fleet, backend: str, fault: str, codes: set[str]
) -> None:
    frames = await run(fleet, backend, f"scripted-story:chunks=20,fail={fault}")

    assert failure(frames).code in codes
    assert [frame.type for frame in frames] == ["queued", "started", "failed"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("fault", "codes"),
    [
        ("after", {"truncated_stream"}),
        ("cut", {"truncated_stream"}),
        ("reset", {"truncated_stream"}),
        ("stall", {"backend_stalled"}),
        ("error", {"server_fault", "backend_error", "backend_rejected", "truncated_stream"}),
    ],
)
async def test_a_fault_in_mid_stream_keeps_the_output_and_is_no_success(
    fleet: Fleet, backend: str, fault: str, codes: set[str]
) -> None:
    # AutoGPT #11877: no last word after an error, and subscribers wait for ever.
    frames = await run(fleet, backend, f"scripted-story:chunks=20,fail={fault}:5")

    assert failure(frames).code in codes
    assert fold(frame.event for frame in frames).content
    assert sum(frame.is_last for frame in frames) == 1


async def test_a_job_for_a_backend_that_is_down_waits_and_the_roster_knows_why(
    fleet: Fleet,
) -> None:
    frames = await run(fleet, "down", "any", deadline_s=1.0)
    async with relay_on(fleet.redis_url) as relay:
        report = next(
            b for w in await relay.roster.workers() for b in w.backends if b.name == "down"
        )

    assert [frame.type for frame in frames] == ["queued", "failed"]
    assert failure(frames).code == "deadline_exceeded"
    assert not report.healthy
    assert "cannot be reached" in (report.error or "")
    assert report.endpoints[0].circuit_open_until


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_slow_first_word_is_waited_for(fleet: Fleet, backend: str) -> None:
    # ollama #7408, LocalAI #10719: a timeout while a model loads aborts the load.
    frames = await run(fleet, backend, "scripted-story:chunks=3,first=2.5")

    assert frames[-1].type == "done"


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_cancel_closes_the_backends_socket(fleet: Fleet, backend: str) -> None:
    async with relay_on(fleet.redis_url) as relay:
        await fleet.ready(relay)
        before = fleet.seen()["aborted"]
        request = ChatRequest(
            model="scripted-story:chunks=5000,rate=20",
            messages=(Message(role="user", content="tell"),),
        )
        record, _ = await relay.queue.enqueue(request, queue=f"{backend}.chat")
        async with asyncio.timeout(10), aclosing(relay.log.follow(record.id)) as pages:
            async for frames in pages:
                if frames and frames[-1].type == "delta":
                    break
        await relay.queue.cancel(record.id, by="caller")
        async with asyncio.timeout(2):
            while fleet.seen()["aborted"] == before:
                await asyncio.sleep(0.01)

        assert before + 1 == fleet.seen()["aborted"]


async def test_a_cancel_while_the_model_loads_closes_the_socket_too(fleet: Fleet) -> None:
    async with relay_on(fleet.redis_url) as relay:
        await fleet.ready(relay)
        before = fleet.seen()["aborted"]
        request = ChatRequest(
            model="scripted-story:first=60", messages=(Message(role="user", content="tell"),)
        )
        record, _ = await relay.queue.enqueue(request, queue="ollama.chat")
        async with asyncio.timeout(10):
            while not fleet.seen()["open"]:
                await asyncio.sleep(0.01)
        await relay.queue.cancel(record.id, by="caller")
        async with asyncio.timeout(2):
            while fleet.seen()["aborted"] == before:
                await asyncio.sleep(0.01)

        assert (await relay.records.get(record.id)).status == "cancelled"


async def test_no_secret_of_a_backend_gets_out(fleet: Fleet, tmp_path: Path) -> None:
    key = "sk-very-secret-key"
    dsn = f"generic+http://{key}@{fleet.server.removeprefix('http://')}/v1"
    with worker(fleet.redis_url, tmp_path, "safe", LLM_SAFE=dsn) as safe:
        async with relay_on(fleet.redis_url) as relay:
            await safe.ready(relay)
            frames = await run(fleet, "safe", "scripted-story:fail=auth")
            report = [w.model_dump_json() for w in await relay.roster.workers()]

        assert failure(frames).code == "authentication_refused"
        assert key not in "".join([*report, *(frame.body.decode() for frame in frames)])
        assert key not in safe.text()
