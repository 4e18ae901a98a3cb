"""Finds model servers on this machine's default ports, in about a second, by what they answer."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from contract.errors import (
    BackendError,
)
from workers.backends.dsn import BackendConfig, BackendType
from workers.backends.http.client import BackendClient

PORTS: Final = (11434, 8080, 1234, 8000, 7860)
"""Ollama, llama-server or llama-swap, LM Studio or sd-server, vLLM, A1111; any of them may have
been told to use another's."""
LIMIT_S: Final = 0.9
_AT_ROOT: Final = frozenset({"ollama", "sd", "a1111"})
"""Types whose address has no /v1."""
_OWNERS: Final[dict[str, BackendType]] = {
    "llamacpp": "llamacpp",
    "llama-swap": "llamaswap",
    "vllm": "vllm",
}
"""By `owned_by` of the models in the list."""
_QUESTIONS: Final = ("/api/v1/models", "/v1/models", "/api/tags", "/sdapi/v1/sd-models", "/props")


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
        url = root if type in _AT_ROOT else root + "/v1"
        found.append(BackendConfig(name=name, type=type, url=url))
    return found


async def _identify(root: str) -> BackendType | None:
    client = BackendClient(root)
    try:
        native, listing, tags, checkpoints, props = await asyncio.gather(
            *(_ask(client, path) for path in _QUESTIONS)
        )
    finally:
        await client.aclose()
    return identified(native, listing, tags, checkpoints, props)


def identified(
    native: dict[str, Any],
    listing: dict[str, Any],
    tags: dict[str, Any],
    checkpoints: dict[str, Any],
    props: dict[str, Any] | None = None,
) -> BackendType | None:
    """The type of the server that gave these answers; empty ones mean that it gave none.

    llama-server answers /api/tags, too, so its `owned_by` is looked at before.
    """
    if isinstance(native.get("models"), list):
        return "lmstudio"
    items = listing.get("data")
    owners = {item.get("owned_by") for item in items or () if isinstance(item, dict)}
    if (props or {}).get("role") == "router":  # it is a llama-server, perhaps without models yet
        return "llamacpp-router"
    for owner, type in _OWNERS.items():
        if owner in owners:
            return type
    if isinstance(tags.get("models"), list):
        return "ollama"
    # sd-server shares LM Studio's port, lists one id and can only make images.
    ids = {item.get("id") for item in items or () if isinstance(item, dict)}
    if ids == {"sd-cpp-local"}:
        return "sd"
    if isinstance(items, list):
        return "generic"
    return "a1111" if isinstance(checkpoints.get("data"), list) else None


async def _ask(client: BackendClient, path: str) -> dict[str, Any]:
    try:
        return await client.json("GET", path, limit_s=LIMIT_S)
    except BackendError:
        return {}
