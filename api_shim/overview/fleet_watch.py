"""Watches the fleet for any number of clients: one read a second, while somebody watches.

Invariant: the number of Redis commands depends on neither the number of watchers nor the number of
jobs. A watcher that is slow gets the newest state next, not those it has missed.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from api_shim.overview.fleet_reader import FleetReader, Reading
from api_shim.overview.fleet_state import FleetState
from contract import sse
from contract.errors import RelayUnavailable
from contract.json_lines import json_line
from contract.tenants import Tenant

_EVERY_S: Final = 1.0
_RETRY_MS: Final = b"retry: 1000\n\n"


class FleetWatch:
    """Reads the fleet while it has watchers, and encodes each state once for those who see it."""

    def __init__(self, reader: FleetReader) -> None:
        """Nobody watches yet."""
        self._reader = reader
        self._watchers = 0
        self._task: asyncio.Task[None] | None = None
        self._latest: Reading | RelayUnavailable | None = None
        self._frames: dict[object, bytes] = {}
        """By what the tenant sees."""
        self._changed = asyncio.Event()

    async def state(self, tenant: Tenant) -> FleetState:
        """The state of the fleet now, as this tenant sees it; raises RelayUnavailable."""
        return self._reader.state(await self._reader.read(), tenant)

    async def frames(self, tenant: Tenant) -> AsyncGenerator[bytes]:
        """Server-sent events for one tenant, the first at once, until the caller closes it.

        `overview` has a state; `unavailable` says that Redis does not answer.
        """
        yield _RETRY_MS
        self._watchers += 1
        try:
            if self._task is None:
                self._latest = None
                self._task = asyncio.create_task(self._read_on(), name="watch the fleet")
            if self._latest is not None:
                yield self._frame(tenant)
            while True:
                await self._changed.wait()
                yield self._frame(tenant)
        finally:
            self._watchers -= 1
            if not self._watchers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _read_on(self) -> None:
        while True:
            try:
                self._latest = await self._reader.read(max_age_s=_EVERY_S / 2)
            except RelayUnavailable as error:
                self._latest = error
            self._frames.clear()
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
            await asyncio.sleep(_EVERY_S)

    def _frame(self, tenant: Tenant) -> bytes:
        """The latest state for a tenant, encoded once for all who see the same."""
        latest = self._latest
        if not isinstance(latest, Reading):
            message = latest.message if latest else "not read yet"
            return sse.encode(json_line({"message": message}), b"unavailable", b"")
        key = None if tenant.admin else (tenant.name, tenant.models, tenant.backends)
        frame = self._frames.get(key)
        if frame is None:
            state = self._reader.state(latest, tenant)
            frame = self._frames[key] = sse.encode(json_line(state), b"overview", b"")
        return frame
