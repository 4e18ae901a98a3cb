"""The adapter that is built for its capabilities alone is closed again."""

from collections.abc import Callable
from typing import Any

import pytest

from contract.redis_keys import queue_name
from workers.app import capacity
from workers.backend_registry import FACTORIES, build
from workers.backends.dsn import BackendConfig
from workers.backends.http.connections import Connections
from workers.backends.protocols import Backend
from workers.settings import WorkerSettings

SERVERS = ("ollama", "llamacpp", "llamacpp-router", "llamaswap", "lmstudio", "vllm", "openai",
           "gemini", "sd", "a1111")  # fmt: skip


def recorded(made: list[Backend], factory: Callable[[BackendConfig], Backend]) -> Any:
    def make(config: BackendConfig) -> Backend:
        made.append(factory(config))
        return made[-1]

    return make


def clients_of(thing: object, seen: set[int]) -> list[Any]:
    """The connections of every HTTP client that an adapter holds, however deep."""
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    if isinstance(thing, Connections):
        return [thing]
    within = thing if isinstance(thing, tuple) else getattr(thing, "__dict__", {}).values()
    return [found for each in within for found in clients_of(each, seen)]


@pytest.mark.parametrize("kind", SERVERS)
def test_an_adapter_that_is_built_for_its_capabilities_is_closed(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Backend] = []
    monkeypatch.setitem(FACTORIES, kind, recorded(made, FACTORIES[kind]))
    config = BackendConfig(name="box", type=kind, url="http://127.0.0.1:1")
    slots = capacity(config, WorkerSettings())
    clients = [client for each in made for client in clients_of(each, set())]

    assert queue_name("box", "list") in slots
    assert clients
    assert all(client.is_closed for client in clients)
    assert not any(client.is_closed for client in clients_of(build(config), set()))
