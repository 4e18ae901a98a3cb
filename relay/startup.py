"""Waits for Redis when a process is started before it."""

import asyncio
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from contract.errors import RelayUnavailable
from relay.connection import Connection
from relay.settings import RelaySettings

_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 5.0


def address(settings: RelaySettings) -> str:
    """Where Redis is, without user and password: `host:port`, or the path of a unix socket."""
    parts = urlsplit(settings.redis_url.get_secret_value())
    if parts.scheme == "unix":
        return parts.path
    return f"{parts.hostname or '127.0.0.1'}:{parts.port or 6379}"


async def until_redis_answers(settings: RelaySettings, report: Callable[[str], None]) -> None:
    """Return once Redis answers a PING; retries for as long as it does not, with growing pauses.

    `report` gets one sentence after the first failure, and one when Redis answers after all.
    Pauses between two attempts grow from 0.25 s to 5 s; an attempt itself is bounded by
    `FLEET_COMMAND_TIMEOUT_S`.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        async with Connection.open(settings) as connection:
            try:
                await connection.ping()
            except RelayUnavailable as error:
                if pause_s == _FIRST_PAUSE_S:
                    report(f"{error} at {address(settings)}: waiting for it (FLEET_REDIS_URL)")
            else:
                if pause_s > _FIRST_PAUSE_S:
                    report(f"Redis answers at {address(settings)}")
                return
        await asyncio.sleep(pause_s)
        pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
