"""Finds model servers on this machine's default ports, in about a second, by what they answer."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from contract.errors import BackendError
from workers.backends.dsn import BackendConfig, BackendType
from workers.backends.http import Client

PORTS: Final = (11434, 8080, 1234, 8000)
"""Ollama, llama-server, LM Studio, vLLM; any of them may have been told to use another's."""
LIMIT_S: Final = 0.9


async def discover(ports: Sequence[int] = PORTS, host: str = "127.0.0.1") -> list[BackendConfig]:
    """The servers that answer on loopback, in the order of the ports; asks all at once."""
    roots = [f"http://{host}:{port}" for port in ports]
    types = await asyncio.gather(*(_identify(root) for root in roots))
    found: list[BackendConfig] = []
    for root, type in zip(roots, types, strict=True):
        if type is None:
            continue
        twins = sum(config.type == type for config in found)
        name = f"{type}-{twins + 1}" if twins else type
        url = root if type == "ollama" else root + "/v1"
        found.append(BackendConfig(name=name, type=type, url=url))
    return found


async def _identify(root: str) -> BackendType | None:
    client = Client(root)
    try:
        native, listing, tags = await asyncio.gather(
            _ask(client, "/api/v1/models"), _ask(client, "/v1/models"), _ask(client, "/api/tags")
        )
    finally:
        await client.aclose()
    return identified(native, listing, tags)


def identified(
    native: dict[str, Any], listing: dict[str, Any], tags: dict[str, Any]
) -> BackendType | None:
    """The type of the server that gave these answers; empty ones mean that it gave none.

    llama-server answers /api/tags, too, so its `owned_by` is looked at before.
    """
    if isinstance(native.get("models"), list):
        return "lmstudio"
    items = listing.get("data")
    owners = {item.get("owned_by") for item in items or () if isinstance(item, dict)}
    if "llamacpp" in owners:
        return "llamacpp"
    if "vllm" in owners:
        return "vllm"
    if isinstance(tags.get("models"), list):
        return "ollama"
    # sd-server shares LM Studio's port, lists one id and can only make images.
    ids = {item.get("id") for item in items or () if isinstance(item, dict)}
    return "generic" if isinstance(items, list) and ids != {"sd-cpp-local"} else None


async def _ask(client: Client, path: str) -> dict[str, Any]:
    try:
        return await client.json("GET", path, limit_s=LIMIT_S)
    except BackendError:
        return {}
