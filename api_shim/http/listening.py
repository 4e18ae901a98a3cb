"""Whether a shim may listen on its address: only on loopback while no API key is configured.

Apart from authentication.py, because `fleet up` checks it too, and does not import FastAPI.
"""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from api_shim.settings import ShimSettings
from relay.api_keys import ApiKeys, ApiKeyTable
from relay.connection import Connection


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether an address or host name is a loopback one."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


async def reason_not_to_start(settings: ShimSettings) -> str | None:
    """Why a shim must not listen on its address, else None; raises RelayUnavailable."""
    if is_loopback(settings.host) or settings.insecure:
        return None
    async with Connection.open(settings) as connection:
        table = await ApiKeys(connection).refresh(ApiKeyTable())
    if table.count:
        return None
    return (
        f"no API key is configured, so every client that reaches {settings.host} would have full "
        "access: start on 127.0.0.1, run `fleet keys create --tenant NAME --admin`, and start "
        "again; or, if something else keeps others out, start with --insecure (FLEET_INSECURE=1)"
    )
