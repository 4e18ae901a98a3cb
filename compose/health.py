"""Tells Docker whether a container's process is well: `python health.py shim` or `... worker`.

The shim is well when it answers; a worker when the roster knows it, because its report expires
soon after it has lost Redis or hangs. Exits 0 or 1, with a sentence.
"""  # noqa: INP001 - a script of the image

import asyncio
import socket
import sys
import urllib.error
import urllib.request

from api_shim.settings import ShimSettings
from contract.errors import RelayUnavailable
from relay.connection import Connection
from relay.roster import RosterStore
from relay.settings import RelaySettings

_PATIENCE_S = 4.0


def shim(port: int) -> str | None:
    """What is wrong with the shim on this machine, if anything is."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=_PATIENCE_S):
            return None
    except (urllib.error.URLError, TimeoutError) as error:
        return f"the shim does not answer: {error}"


async def worker(settings: RelaySettings, host: str) -> str | None:
    """What is wrong with the worker of this host, if anything is."""
    try:
        async with asyncio.timeout(_PATIENCE_S), Connection.open(settings) as connection:
            reports = await RosterStore(connection).workers()
    except (RelayUnavailable, TimeoutError) as error:
        return f"the roster cannot be read: {error}"
    return (
        None
        if any(report.host == host for report in reports)
        else f"no worker of {host} is on the roster"
    )


def main(what: str) -> str | None:
    """Check one process."""
    if what == "shim":
        return shim(ShimSettings().port)
    return asyncio.run(worker(RelaySettings(), socket.gethostname()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
