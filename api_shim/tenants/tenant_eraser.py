"""Carries out deletions of tenants, in one shim at a time, until nothing is left.

The tenant's keys are revoked first, again before each sweep. Clients go on for a moment, until
every shim has heard of it (FLEET_KEY_MAX_AGE_S): a deletion ends with a sweep that began after that
and found nothing. What a killed shim leaves, another one goes on with; it begins its sweep anew.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Final, Never

from api_shim.dependencies import Dependencies
from api_shim.following.background_work import restart_on_defect
from contract import redis_keys
from contract.errors import LastAdmin, RelayUnavailable, UnknownKey, UnknownTenant
from contract.webhooks.webhook_models import CALLBACKS
from relay.connection import DamagedKey
from relay.deletion.tenant_deletions import TenantDeletions
from relay.deletion.tenant_sweep import TenantSweep

_log = logging.getLogger(__name__)

_EVERY_S: Final = 2.0
"""Between two looks for deletions, and between two sweeps."""
_SPARE_S: Final = 5.0
"""Seconds after which what a revoked key has begun is over, besides FLEET_KEY_MAX_AGE_S."""
_LONGEST_S: Final = 900.0
"""Seconds after which a deletion gives up that still finds something in each sweep."""
_PAUSE_S: Final = 0.002
"""After each page, for what else Redis and this shim do."""


class TenantEraser:
    """Competes for the lease, and deletes tenants while it has it, until cancelled."""

    def __init__(self, dependencies: Dependencies) -> None:
        """Nothing is held yet."""
        self._dependencies = dependencies
        self._deletions = TenantDeletions(dependencies.connection)
        self._process = dependencies.followers.process
        self._quiet_s = dependencies.settings.key_max_age_s + _SPARE_S

    async def run(self) -> None:
        """Delete until this process shuts down."""
        await self._dependencies.open_calls.complete(restart_on_defect(self._watch))

    async def _watch(self) -> Never:
        while True:
            with suppress(RelayUnavailable):
                for tenant in await self._deletions.under_way():
                    if await self._deletions.hold(self._process):
                        await self._go_on(tenant)
            await asyncio.sleep(_EVERY_S)

    async def _go_on(self, tenant: str) -> None:
        """Delete, unless what is damaged prevents it: the other tenants' deletions go on."""
        with self._dependencies.connection.passing_over(f"the deletion of tenant {tenant}"):
            await self._delete(tenant)

    async def _delete(self, tenant: str) -> None:
        """One sweep, and the end of the deletion if it has found nothing.

        Raises RelayUnavailable.
        """
        now = self._dependencies.connection.now
        try:
            receipt = await self._deletions.receipt(tenant)
        except UnknownTenant:  # its request was never answered
            await self._deletions.end(tenant, reason="its request was lost")
            return
        except DamagedKey:  # whether usage is to be kept is not known
            reason = "its receipt was damaged in Redis: delete the tenant again"
            await self._deletions.end(tenant, reason=reason)
            return
        begun_at = now()
        left = await self._revoke(tenant) + await self._remove_webhooks(tenant)
        left += await self._sweep(tenant, usage=receipt.usage == "delete")
        left += await self._objects(tenant)
        if not left and begun_at >= receipt.requested_at + self._quiet_s:
            await self._deletions.end(tenant)
            _log.info("tenant %s is deleted", tenant)
        elif begun_at > receipt.requested_at + _LONGEST_S:
            reason = "each pass still finds something: its clients send, or files cannot be deleted"
            await self._deletions.end(tenant, reason=reason)
            _log.warning("the deletion of tenant %s has ended incomplete: %s", tenant, reason)

    async def _sweep(self, tenant: str, *, usage: bool) -> int:
        connection, queue = self._dependencies.connection, self._dependencies.queue
        sweep = TenantSweep(connection, queue, tenant, usage=usage)
        cursor, found, renewed_at = "0", 0, asyncio.get_running_loop().time()
        while True:
            cursor, done = await sweep.page(cursor)
            found += done
            if cursor == "0":
                return found
            await asyncio.sleep(_PAUSE_S)
            if asyncio.get_running_loop().time() - renewed_at > _EVERY_S:
                renewed_at = asyncio.get_running_loop().time()
                if not await self._deletions.hold(self._process):
                    return found + 1  # another shim goes on

    async def _revoke(self, tenant: str) -> int:
        """Revoke the tenant's keys, those of admins last. Returns how many there were."""
        keys = [k for k in await self._dependencies.authenticator.keys() if k.tenant == tenant]
        for key in sorted(keys, key=lambda key: key.admin):
            with suppress(UnknownKey, LastAdmin):
                await self._dependencies.api_keys.revoke(key.id)
                await self._deletions.count(tenant, "api_keys")
        if keys:
            await self._dependencies.authenticator.refresh()
        return len(keys)

    async def _remove_webhooks(self, tenant: str) -> int:
        store, connection = self._dependencies.webhooks, self._dependencies.connection
        await store.refresh()
        webhooks = list(store.of(tenant).values())
        for webhook in webhooks:
            await store.remove(webhook)
        await self._deletions.count(
            tenant, "webhooks", sum(webhook.id != CALLBACKS for webhook in webhooks)
        )
        lanes = (f"{tenant}/webhooks", f"{tenant}/callbacks")
        await connection.command("ZREM", redis_keys.WEBHOOKS_DUE, *lanes)
        await connection.command("HDEL", redis_keys.WEBHOOKS_WAITING, tenant)
        return len(webhooks)

    async def _objects(self, tenant: str) -> int:
        sweep = TenantSweep(
            self._dependencies.connection, self._dependencies.queue, tenant, usage=False
        )
        left = await sweep.objects()
        self._dependencies.files_deleted.set()
        return left
