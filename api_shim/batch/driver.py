"""What keeps the batches of a shim going: takes those that nobody drives, and clears the storage.

Any shim does this for all tenants. It drives some batches at once, those of the tenants first of
which it drives fewest; a tenant that has none is not kept waiting behind another one's many.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, Never

from starlette.types import Message

from api_shim.batch.batch_run import BatchRun
from api_shim.dependencies import Dependencies
from contract.batches import Batch
from contract.errors import FleetError, RelayUnavailable
from relay.batches import BatchLease

_log = logging.getLogger(__name__)

_LOOK_S: Final = 2.0
_SWEEP_S: Final = 30.0
_LOOKED_AT: Final = 200
_FREE_WITHIN_S: Final = 2.0
_BACKOFF_S: Final = (2.0, 300.0)
"""After the first failure of a batch here, and the longest after many."""


class BatchDriver:
    """Drives batches until it is cancelled, and then lets go of them at once."""

    def __init__(self, dependencies: Dependencies) -> None:
        """Drive nothing yet."""
        self._dependencies = dependencies
        self._batches = dependencies.batches
        self._driving: dict[str, tuple[Batch, asyncio.Task[None]]] = {}
        self._failures: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}

    async def keep(self) -> None:
        """Drive until this process is told to stop."""
        await self._dependencies.open_calls.attend(self._keep(), _never)

    async def _keep(self) -> None:
        looking, sweeping = (
            asyncio.create_task(_again(work)) for work in (self._look_on, self._sweep)
        )
        try:
            await asyncio.gather(looking, sweeping)
        finally:
            tasks = [looking, sweeping, *(task for _, task in self._driving.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_on(self) -> Never:
        is_failing = False
        while True:
            self._dependencies.batches_changed.clear()
            try:
                await self._look()
                is_failing = False
            except RelayUnavailable as error:
                # One line an outage.
                level = logging.DEBUG if is_failing else logging.WARNING
                _log.log(level, "cannot look for batches: %s", error)
                is_failing = True
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._dependencies.batches_changed.wait()

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        found = await self._batches.waiting(_LOOKED_AT)
        waiting = {
            batch.id: batch
            for batch in sorted(found, key=lambda batch: batch.created_at)
            if batch.id not in self._driving and self._not_before.get(batch.id, 0.0) <= now
        }
        while waiting:
            share = self._share()
            batch = min(waiting.values(), key=lambda batch: share[batch.tenant.name])
            del waiting[batch.id]
            if len(self._driving) >= self._dependencies.settings.batches_at_once:
                self._make_room(share, batch.tenant.name)
                return
            task = asyncio.create_task(self._drive(batch))
            self._driving[batch.id] = (batch, task)
            task.add_done_callback(partial(self._over, batch))

    def _share(self) -> Counter[str]:
        return Counter(batch.tenant.name for batch, _ in self._driving.values())

    def _make_room(self, share: Counter[str], tenant: str) -> None:
        """Let go of the newest batch of whoever has most, if that is fair to both."""
        most, count = share.most_common(1)[0]
        if share[tenant] + 1 < count:
            own = [(b, task) for b, task in self._driving.values() if b.tenant.name == most]
            newest, task = max(own, key=lambda pair: pair[0].created_at)
            _log.info("batch %s waits: tenant %s has its turn", newest.id, tenant)
            self._not_before[newest.id] = asyncio.get_running_loop().time() + _LOOK_S
            task.cancel()

    async def _drive(self, batch: Batch) -> None:
        lease = await self._batches.take(batch)
        if lease is None:
            return
        try:
            await BatchRun(self._dependencies, self._batches, lease).to_the_end()
            _log.info("batch %s has ended", batch.id)
            self._failures.pop(batch.id, None)
            self._not_before.pop(batch.id, None)
        finally:
            await self._free(lease)

    async def _free(self, lease: BatchLease) -> None:
        with suppress(RelayUnavailable, TimeoutError):
            async with asyncio.timeout(_FREE_WITHIN_S):
                await self._batches.free(lease)

    def _over(self, batch: Batch, task: asyncio.Task[None]) -> None:
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
            "batch %s waits %.0f s: %s", batch.id, pause_s, known or type(error).__name__,
            exc_info=None if known else error,
        )  # fmt: skip

    async def _sweep(self) -> Never:
        """Delete what is due from the storage."""
        while True:
            try:
                for name in await self._dependencies.files.due():
                    await self._dependencies.storage.delete(name)
                    await self._dependencies.files.forget(name)
            except FleetError as error:
                _log.warning("cannot clear the storage of files: %s", error)
            await asyncio.sleep(_SWEEP_S)


async def _again(work: Callable[[], Coroutine[Any, Any, Never]]) -> Never:
    """Do it, and again after a defect of ours: the shim's other calls must not end with it."""
    while True:
        doing = asyncio.create_task(work())
        try:
            await asyncio.wait({doing})
        finally:
            doing.cancel()
            await asyncio.wait({doing})
        _log.error("the driver of batches broke", exc_info=doing.exception())
        await asyncio.sleep(_BACKOFF_S[0])


async def _never() -> Message:
    await asyncio.get_running_loop().create_future()
    return {"type": "never"}


@asynccontextmanager
async def running_driver(dependencies: Dependencies) -> AsyncGenerator[None]:
    """Drive batches beside whatever runs in this context."""
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(BatchDriver(dependencies).keep())
        try:
            yield
        finally:
            keeping.cancel()
