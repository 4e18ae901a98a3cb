"""Servers on default ports are found and identified."""

import asyncio
import socket
import time
from typing import Any

import pytest
from pydantic_core import from_json
from support.backends import WIRE

from workers.backends.discovery import LIMIT_S, PATIENCE_S, discover, identified
from workers.scripted.server import serve

LLAMACPP = from_json((WIRE / "llamacpp-models.json").read_bytes())


def owned(by: str, id: str = "m") -> dict[str, Any]:
    return {"data": [{"id": id, "owned_by": by}]}


@pytest.mark.parametrize(
    ("native", "listing", "tags", "type"),
    [
        ({"models": []}, owned("me"), {}, "lmstudio"),
        ({}, LLAMACPP, {"models": []}, "llamacpp"),
        ({}, owned("vllm"), {}, "vllm"),
        ({}, owned("library"), {"models": []}, "ollama"),
        ({}, owned("llama-swap"), {}, "llamaswap"),
        ({}, owned("unknown"), {}, "generic"),
        ({}, owned("x", "sd-cpp-local"), {}, "sd"),
        ({}, {}, {}, None),
    ],
)
def test_servers_are_identified_by_their_responses(
    native: dict[str, Any], listing: dict[str, Any], tags: dict[str, Any], type: str | None
) -> None:
    assert type == identified(native, listing, tags, {})


def test_a_list_of_checkpoints_alone_is_a1111() -> None:
    assert identified({}, {}, {}, {"data": []}) == "a1111"


async def test_a_server_is_found_and_an_empty_port_is_not() -> None:
    async with serve() as server:
        port = int(server.url.rpartition(":")[2])
        [config] = await discover((port, 1))

    assert ("ollama", server.url) == (config.name, config.url)


def test_a_router_without_models_is_known_by_its_role() -> None:
    assert identified({}, {"data": []}, {}, {}, {"role": "router"}) == "llamacpp-router"


@pytest.mark.parametrize("type", ["llamacpp-router", "llamaswap", "lmstudio", "vllm"])
async def test_each_server_is_known_by_its_own_answers(type: str) -> None:
    async with serve(imitate=type) as server:
        [config] = await discover((int(server.url.rpartition(":")[2]),))

    assert (type, f"{server.url}/v1") == (config.type, config.url)


async def test_a_busy_server_is_not_taken_for_another_type() -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        native = b" /api/v1/models " in request
        if native:
            await asyncio.sleep(LIMIT_S + 0.2)
        body = b'{"models": []}' if native else b'{"data": [{"id": "m"}]}'
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as listener:
        [config] = await discover((listener.sockets[0].getsockname()[1],))

    assert config.type == "lmstudio"


async def test_two_of_a_kind_have_two_names() -> None:
    async with serve() as server:
        port = int(server.url.rpartition(":")[2])
        configs = await discover((port, port))

    assert [config.name for config in configs] == ["ollama", "ollama-2"]


async def test_a_port_that_never_answers_costs_a_second_at_most() -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert await discover((listener.getsockname()[1],)) == []

    assert time.monotonic() - began < LIMIT_S + PATIENCE_S
