"""Drives the batches of a shim: leases those that no driver has, and clears the file storage.

Any shim does this for all tenants. It runs a bounded number of batches at once, and next one of the
tenant with the fewest here, so that one tenant's many batches do not delay another's.
"""

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Final, Never

from api_shim.batch.batch_run import BatchRun
from api_shim.dependencies import Dependencies
from api_shim.following.background_work import cancelled, restart_on_defect
from contract.batches import Batch
from contract.errors import FleetError, RelayUnavailable
from relay.batches import BatchLease
from telemetry.repeated_warnings import RepeatedWarnings

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_POLL_S: Final = 2.0
_SWEEP_S: Final = 30.0
_MOST_READ: Final = 200
_RELEASE_TIMEOUT_S: Final = 2.0
_BACKOFF_S: Final = (2.0, 300.0)
"""Seconds before the next attempt, after the first failure of a batch in this process and at most.
"""


class BatchDriver:
    """Drives batches until it is cancelled; then it releases all leases at once."""

    def __init__(self, dependencies: Dependencies) -> None:
        """No batch is driven yet."""
        self._dependencies = dependencies
        self._batches = dependencies.batches
        self._driving: dict[str, tuple[Batch, asyncio.Task[None]]] = {}
        self._failures: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}

    async def run(self) -> None:
        """Drive batches until this process shuts down."""
        await self._dependencies.open_calls.complete(self._run())

    async def _run(self) -> None:
        driving, sweeping = (
            asyncio.create_task(restart_on_defect(work))
            for work in (self._drive_batches, self._sweep)
        )
        try:
            await asyncio.gather(driving, sweeping)
        finally:
            await cancelled([driving, sweeping, *(task for _, task in self._driving.values())])

    async def _drive_batches(self) -> Never:
        is_failing = False
        while True:
            self._dependencies.batches_changed.clear()
            try:
                await self._start_waiting()
                is_failing = False
            except RelayUnavailable as error:
                # One warning an outage.
                level = logging.DEBUG if is_failing else logging.WARNING
                _log.log(level, "cannot read the list of batches: %s", error)
                is_failing = True
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._dependencies.batches_changed.wait()

    async def _start_waiting(self) -> None:
        now = asyncio.get_running_loop().time()
        found = await self._batches.waiting(_MOST_READ)
        waiting = {
            batch.id: batch
            for batch in sorted(found, key=lambda batch: batch.created_at)
            if batch.id not in self._driving and self._not_before.get(batch.id, 0.0) <= now
        }
        while waiting:
            share = self._batches_by_tenant()
            batch = min(waiting.values(), key=lambda batch: share[batch.tenant.name])
            del waiting[batch.id]
            if len(self._driving) >= self._dependencies.settings.batches_at_once:
                self._make_room(share, batch.tenant.name)
                return
            task = asyncio.create_task(self._drive(batch))
            self._driving[batch.id] = (batch, task)
            task.add_done_callback(partial(self._on_done, batch))

    def _batches_by_tenant(self) -> Counter[str]:
        return Counter(batch.tenant.name for batch, _ in self._driving.values())

    def _make_room(self, share: Counter[str], tenant: str) -> None:
        """Stop the newest batch of the tenant with most, if that evens out the two tenants."""
        most, count = share.most_common(1)[0]
        if share[tenant] + 1 < count:
            own = [(b, task) for b, task in self._driving.values() if b.tenant.name == most]
            newest, task = max(own, key=lambda pair: pair[0].created_at)
            _log.info("batch %s pauses for a batch of tenant %s", newest.id, tenant)
            self._not_before[newest.id] = asyncio.get_running_loop().time() + _POLL_S
            task.cancel()

    async def _drive(self, batch: Batch) -> None:
        lease = await self._batches.take(batch)
        if lease is None:
            return
        try:
            await BatchRun(self._dependencies, self._batches, lease).run()
            _log.info("batch %s has ended, or waits for its time", batch.id)
            self._failures.pop(batch.id, None)
            self._not_before.pop(batch.id, None)
        finally:
            await self._release(lease)

    async def _release(self, lease: BatchLease) -> None:
        with suppress(RelayUnavailable, TimeoutError):
            async with asyncio.timeout(_RELEASE_TIMEOUT_S):
                await self._batches.free(lease)

    def _on_done(self, batch: Batch, task: asyncio.Task[None]) -> None:
        del self._driving[batch.id]
        self._dependencies.batches_changed.set()
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        self._failures[batch.id] += 1
        first_s, last_s = _BACKOFF_S
        pause_s = min(last_s, first_s * 2 ** (self._failures[batch.id] - 1))
        self._not_before[batch.id] = asyncio.get_running_loop().time() + pause_s
        known = error if isinstance(error, FleetError) else None
        _log.warning(
            "batch %s is retried in %.0f s: %s", batch.id, pause_s, known or type(error).__name__,
            exc_info=None if known else error,
        )  # fmt: skip

    async def _sweep(self) -> Never:
        """Delete files from the storage whose time has come, or that were deleted."""
        deleted = self._dependencies.files_deleted
        while True:
            try:
                while names := await self._dependencies.files.due():
                    for name in names:
                        await self._dependencies.storage.delete(name)
                    # After all of them: a Redis that cannot write refuses this.
                    for name in names:
                        await self._dependencies.files.forget(name)
            except FleetError as error:
                _repeated.warn("cannot delete expired files: %s", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP_S):
                    await deleted.wait()
            deleted.clear()
