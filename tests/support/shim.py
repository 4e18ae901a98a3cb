"""The shim as callers meet it: the real application behind a real server on a loopback port."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import Any
from uuid import uuid4

import httpx
import uvloop
from pydantic import SecretStr

from api_shim.__main__ import ShimServer, server_of
from api_shim.settings import ShimSettings
from contract.redis_keys import channel
from contract.roster import BackendReport, Capability, ModelReport, QueueReport, WorkerReport
from support.redis_server import RedisServer
from support.redis_users import SHIM, user_url
from support.relay import Relay, relay_on

EVERYTHING: tuple[Capability, ...] = (
    "chat", "embed", "pull", "image", "show", "delete", "copy", "create", "load", "unload",
    "count", "rerank",
)  # fmt: skip
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@contextmanager
def serving(url: str, **settings: Any) -> Iterator[str]:
    """A shim in a thread of its own, as a process of its own would be; yields its address."""
    chosen = ShimSettings(
        redis_url=SecretStr(user_url(url, SHIM)),
        **{
            "roster_max_age_s": 0,
            "place_every_s": 0.1,
            "shutdown_s": 1,
            "files_url": None if "data_dir" in settings else f"memory://{uuid4().hex}",
            **settings,
        },
    )
    server = server_of(chosen)
    line = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=_run, args=(server, line), daemon=True)
    thread.start()
    try:
        host, port = line.getsockname()
        _wait_for(f"http://{host}:{port}/healthz")
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(60)  # it may be making its document, which costs a second of an idle core
        assert not thread.is_alive()


def _run(server: ShimServer, line: socket.socket) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets=[line]))


def _wait_for(address: str) -> None:
    transport = httpx.HTTPTransport(retries=5)
    # The socket listens already, so this waits for the application, which loads beside busy tests.
    with httpx.Client(transport=transport, timeout=60) as http:
        assert http.get(address).status_code == 200


class Stage:
    """A caller's client, and the worker's end of the relay behind it."""

    def __init__(self, http: httpx.AsyncClient, relay: Relay) -> None:
        self.http = http
        self.relay = relay

    async def announce(
        self,
        backend: str = "scripted",
        *models: str | ModelReport,
        name: str | None = None,
        capabilities: tuple[Capability, ...] = EVERYTHING,
        draining: bool = False,
        healthy: bool = True,
    ) -> WorkerReport:
        """Put a worker for this backend on the roster."""
        reports = [ModelReport(name=m) if isinstance(m, str) else m for m in models or ("m",)]
        report = WorkerReport(
            v=1,
            name=name or f"{backend}-1",
            host="here",
            pid=1,
            started_at=0,
            draining=draining,
            backends=(
                BackendReport(
                    name=backend, type="scripted", endpoint="in-process", healthy=healthy,
                    capabilities=capabilities, models=tuple(reports),
                ),
            ),
            queues=tuple(
                QueueReport(name=f"{backend}.{kind}", kind=kind, slots=1, in_flight=0)
                for kind in capabilities
                if kind not in {"list", "running"}
            ),
        )  # fmt: skip
        await self.relay.roster.report(report)
        return report

    def events(self, job_id: str, **arguments: Any) -> Any:
        """An open stream of a job's events."""
        return self.http.stream("GET", f"/api/v1/jobs/{job_id}/events", **arguments)

    async def heard(self, job_id: str, **arguments: Any) -> list[dict[str, Any]]:
        """All events of a job that are in its log, over SSE."""
        async with self.events(job_id, **arguments) as response:
            assert response.status_code == 200, await response.aread()
            return [e async for e in sse(response) if "id" in e]


async def eventually(ask: Callable[[], bool]) -> None:
    """Wait until what another process knows has become true."""
    async with asyncio.timeout(5):
        for _ in count():
            if ask():
                return
            await asyncio.sleep(0.01)


def followers(redis: RedisServer, job: str) -> int:
    """How many processes listen to a job, as the server counts them."""
    return int(redis.say("PUBSUB", "NUMSUB", channel(job)).rsplit(b":", 1)[1])


@asynccontextmanager
async def stage(shim: str, redis: str) -> AsyncGenerator[Stage]:
    """A caller of this shim and a worker on this server."""
    async with relay_on(redis) as relay, httpx.AsyncClient(base_url=shim, timeout=10) as http:
        yield Stage(http, relay)


async def sse(response: httpx.Response) -> AsyncGenerator[dict[str, Any]]:
    """Events of a stream; what SSE says beside the data must agree with it."""
    fields: dict[str, str] = {}
    async for line in lines(response):
        name, _, value = line.partition(": ")
        if line and name:
            fields[name] = value
        elif "data" in fields:
            event = json.loads(fields["data"])
            assert (fields.get("id"), fields["event"]) == (event.get("id"), event["type"])
            yield event
            fields = {}
        else:
            fields = {}


async def lines(response: httpx.Response) -> AsyncGenerator[str]:
    """Lines as SSE and NDJSON have them; httpx's own also end at U+2028, inside of JSON."""
    rest = b""
    async for data in response.aiter_bytes():
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode()


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of an answer that must be one."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document: dict[str, Any] = response.json()
    assert (response.status_code, document["status"], document["code"]) == (status, status, code)
    assert document["type"] == f"urn:llm-fleet:problem:{code}"
    assert document["request_id"] == response.headers["x-request-id"]
    assert document["title"]
    assert document["detail"]
    return document
