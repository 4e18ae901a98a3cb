"""The one model in the memory of a worker: loading, use by one job at a time, unloading.

Invariants: a model is loaded, used and freed in one thread, one job at a time; it is in memory
only while this worker holds the `ModelLease` (a lease in Redis), if there is one.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from contract.errors import BackendBusy
from workers.backends.protocols import ModelLease

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 64
"""Jobs that may wait for the model; the slots of the backend are the usual limit."""

Answer = TypeVar("Answer")


class Closes(Protocol):
    """A model in memory."""

    def close(self) -> None:
        """Free the memory; called in the model's thread."""
        ...


Model = TypeVar("Model", bound=Closes)


class Role(NamedTuple):
    """A loaded model and its purpose, `chat` or `embed`."""

    model: str
    purpose: str


class Resident(Generic[Model]):
    """Holds one model, replaces it on request, and drops it when another worker needs the lease."""

    def __init__(self, name: str) -> None:
        """Nothing is loaded yet; `name` is the backend's."""
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self.lease: ModelLease | None = None
        self.role: Role | None = None
        self._name = name
        self._model: Model | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._should_drop = False
        self._dropping: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Exclusive use of the model; raises BackendBusy if `MAX_WAITING` jobs wait."""
        if self._waiting >= MAX_WAITING:
            raise BackendBusy(f"{self._waiting} jobs wait for the one model of {self._name!r}")
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            try:
                if self._should_drop:
                    await self.drop()
            finally:
                self._turn.release()

    async def hold(self, role: Role, load: Callable[[], Model]) -> Model:
        """Within a turn: the model in this role, loaded if it is not in memory.

        Waits while another worker holds the lease. Raises what `load` raises.
        """
        if self._model is not None and self.role == role:
            return self._model
        await self.drop()
        if self.lease is not None:
            await self.lease.claim(role.model, self.drop_soon)
        self.role = role
        try:
            self._model = await self.run(load, self._keep)
        except BaseException:
            if self._model is None:
                await self.drop()
            raise
        return self._model

    async def drop(self) -> None:
        """Within a turn: free the memory, then release the lease."""
        self._should_drop = False
        if self.role is None:
            return
        # A task, so that a cancel cannot free the memory without releasing the lease.
        self._dropping = asyncio.create_task(self._free(self.role))
        await asyncio.shield(self._dropping)

    async def _free(self, role: Role) -> None:
        model, self._model, self.role = self._model, None, None
        try:
            if model is not None:
                await self.run(model.close)
        finally:
            if self.lease is not None:
                await self.lease.release(role.model)

    def drop_soon(self) -> None:
        """Drop the model as soon as no job uses it: another worker waits for the lease."""
        self._should_drop = True
        if not self._turn.locked():
            self._dropping = asyncio.create_task(self._drop_in_turn())

    async def _drop_in_turn(self) -> None:
        async with self.turn():
            _log.info("backend %s unloads its model for another worker", self._name)

    async def run(
        self, work: Callable[[], Answer], keep: Callable[[Answer], None] | None = None
    ) -> Answer:
        """Run `work` in the model's thread; a cancelled caller still waits for its end.

        `keep` receives the result if the caller was cancelled.
        """
        future = asyncio.get_running_loop().run_in_executor(self.thread, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            if keep is not None and not future.cancelled() and future.exception() is None:
                keep(future.result())
            raise

    def _keep(self, model: Model) -> None:
        """Keep a model whose job was cancelled during the load, for the next job."""
        self._model = model

    async def aclose(self) -> None:
        """Free everything once the running job has ended."""
        async with self.turn():
            await self.drop()
        await asyncio.to_thread(self.thread.shutdown)
