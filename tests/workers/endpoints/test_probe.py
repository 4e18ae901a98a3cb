"""A probe of an endpoint: without an answer it is down, with a slow list of models it is not."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from support.answers import answering, words

from workers.backend_registry import build
from workers.backends.dsn import BackendConfig
from workers.backends.http import client
from workers.backends.http.connections import CONNECT_S
from workers.endpoints import probe
from workers.endpoints.circuit_breaker import CircuitBreaker
from workers.endpoints.endpoints import Endpoint


def server(port: int) -> tuple[Endpoint, BackendConfig]:
    config = BackendConfig(name="box", type="ollama", url=f"http://127.0.0.1:{port}")
    breaker = partial(CircuitBreaker, failures=5, open_s=5.0, clock=asyncio.get_running_loop().time)
    made = Endpoint(build(config), "", lambda verdict: breaker(verdict=verdict), {"box.chat": 1})
    return made, config


@asynccontextmanager
async def silent() -> AsyncGenerator[int]:
    """A server that accepts and never answers."""
    over = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    listener = await asyncio.start_server(hang, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        over.set()
        listener.close()


def test_the_bounds_of_a_probe_are_shorter_than_those_of_the_client() -> None:
    assert min(client.QUICK_S, CONNECT_S) > probe.CHECK_S
    assert client.QUICK_S > probe.MODELS_S


async def test_a_server_that_accepts_and_never_answers_is_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "CHECK_S", 0.2)
    async with silent() as port:
        one, config = server(port)
        await probe.probe(one, config)
        await one.adapter.aclose()

    assert one.breaker.open_until is not None
    assert not one.takes("box.chat")
    assert one.error == "it did not answer within 0.2 s"


async def test_a_list_that_takes_long_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "MODELS_S", 0.1)
    async with answering(m=lambda _: words("hi")) as there:
        there.list_delay_s = 60.0
        one, config = server(there.port)
        await probe.probe(one, config)
        await one.adapter.aclose()

    assert one.takes("box.chat")
    assert "did not list its models" in (one.error or "")
