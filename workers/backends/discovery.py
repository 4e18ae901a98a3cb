"""Discovery of model servers on the default ports of this machine, by their responses."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from contract.errors import BackendError
from workers.backends.dsn import BackendConfig, BackendType

if TYPE_CHECKING:
    from workers.backends.http.client import BackendClient

PORTS: Final = (11434, 8080, 1234, 8000, 7860)
"""Defaults of Ollama, llama-server and llama-swap, LM Studio and sd-server, vLLM, A1111. Any
server may be configured to use the port of another."""
LIMIT_S: Final = 0.9
"""Seconds in which a server has to send its first response; all requests are sent at once."""
PATIENCE_S: Final = 4.0
"""Seconds more for the other responses, without which a busy server would pass for another type."""
_AT_ROOT: Final = frozenset({"ollama", "sd", "a1111"})
"""Types whose address has no /v1."""
_OWNERS: Final[dict[str, BackendType]] = {
    "llamacpp": "llamacpp",
    "llama-swap": "llamaswap",
    "vllm": "vllm",
}
"""By `owned_by` of the models in the list."""
_PATHS: Final = ("/api/v1/models", "/v1/models", "/api/tags", "/sdapi/v1/sd-models", "/props")


async def discover(ports: Sequence[int] = PORTS, host: str = "127.0.0.1") -> list[BackendConfig]:
    """Configurations of the servers that respond, in the order of the ports.

    Probes all ports at once: `LIMIT_S` at most to connect, `LIMIT_S` where nothing responds,
    `PATIENCE_S` more where only some requests are answered. A second server of a type is named
    `<type>-2`.
    """
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
    if not await _listens(root):
        return None
    from workers.backends.http.client import BackendClient  # noqa: PLC0415 - imports aiohttp

    client = BackendClient(root)
    try:
        responses = await _responses(client)
    finally:
        await client.aclose()
    return identified(*responses)


async def _responses(client: "BackendClient") -> list[dict[str, Any]]:
    probes = [asyncio.create_task(_get(client, path)) for path in _PATHS]
    try:
        responded, pending = await asyncio.wait(probes, timeout=LIMIT_S)
        if responded and pending:
            await asyncio.wait(pending, timeout=PATIENCE_S)
        return [probe.result() if probe.done() else {} for probe in probes]
    finally:
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)


def identified(
    native: dict[str, Any],
    listing: dict[str, Any],
    tags: dict[str, Any],
    checkpoints: dict[str, Any],
    props: dict[str, Any] | None = None,
) -> BackendType | None:
    """The type of the server with these responses, None if unknown; {} is no response.

    The arguments are the JSON of GET /api/v1/models, /v1/models, /api/tags, /sdapi/v1/sd-models
    and /props. llama-server serves /api/tags too, so `owned_by` is checked first.
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


async def _listens(root: str) -> bool:
    address = urlsplit(root)
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(LIMIT_S):
            _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.close()
        return True
    return False


async def _get(client: "BackendClient", path: str) -> dict[str, Any]:
    try:
        return await client.json("GET", path, limit_s=LIMIT_S + PATIENCE_S)
    except BackendError:
        return {}
