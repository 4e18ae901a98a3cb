"""Whether a shim may listen on its address: only on loopback while no client needs a key or token.

A shim may make the first key itself, as in a container, where nobody is on its loopback. Apart from
authentication.py, because `fleet up` checks it too, and does not import FastAPI.
"""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

from pydantic import SecretStr

from api_shim.settings import ShimSettings
from contract.tenants import NewKey
from relay.api_keys import ApiKeys, ApiKeyTable
from relay.connection import Connection

LONGEST_HOST: Final = 255
"""Characters of a host (RFC 1035); a longer one is none, and is not remembered."""


def is_loopback(host: str) -> bool:
    """Whether an address or host name is a loopback one."""
    return len(host) <= LONGEST_HOST and _is_loopback(host)


@lru_cache(maxsize=1024)
def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


async def first_key(settings: ShimSettings) -> SecretStr | None:
    """A new admin's key if the setting asks for one and there is no key; raises RelayUnavailable.

    Of several shims that start at once, one makes it.
    """
    if not settings.first_key:
        return None
    async with Connection.open(settings) as connection:
        new = NewKey(tenant="admin", admin=True, name="made at the first start")
        issued = await ApiKeys(connection).issue_first(new)
    return None if issued is None else issued.key


async def reason_not_to_start(settings: ShimSettings) -> str | None:
    """Why a shim must not listen on its address, else None; raises RelayUnavailable."""
    if is_loopback(settings.host) or settings.insecure or settings.oidc_issuer is not None:
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
