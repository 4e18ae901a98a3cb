"""The one model that a worker has in memory: who uses it, how it comes and how it goes.

Invariants: a model is loaded, used and freed in one thread, one job at a time; it is in memory
only while the lease (a lease in Redis, where there is one) says that this worker may hold it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from contract.errors import (
    BackendBusy,
)
from workers.backends.protocols import ModelLease

_log = logging.getLogger(__name__)

MOST_WAITING: Final = 64
"""Jobs that may wait for their turn; slots are what keeps the number small."""

Answer = TypeVar("Answer")


class Closes(Protocol):
    """A model in memory."""

    def close(self) -> None:
        """Free the memory; called in the model's thread."""
        ...


Model = TypeVar("Model", bound=Closes)


class Role(NamedTuple):
    """What is in memory: a model, and what it was loaded for."""

    model: str
    purpose: str


class Resident(Generic[Model]):
    """Keeps one model, brings another when it is asked for, and lets go when it has to."""

    def __init__(self, name: str) -> None:
        """Nothing is loaded yet; `name` is the backend's."""
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self.lease: ModelLease | None = None
        self.role: Role | None = None
        self._name = name
        self._model: Model | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._must_leave = False
        self._going: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Be the only one to use or change what is in memory; raises BackendBusy."""
        if self._waiting >= MOST_WAITING:
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
                if self._must_leave:
                    await self.drop()
            finally:
                self._turn.release()

    async def hold(self, role: Role, load: Callable[[], Model]) -> Model:
        """Within a turn: the model in this role, loaded now if it is not the one in memory.

        Waits for as long as another worker holds it. Raises what `load` raises.
        """
        if self._model is not None and self.role == role:
            return self._model
        await self.drop()
        if self.lease is not None:
            await self.lease.claim(role.model, self.leave)
        self.role = role
        try:
            self._model = await self.run(load, self._keep)
        except BaseException:
            if self._model is None:
                await self.drop()
            raise
        return self._model

    async def drop(self) -> None:
        """Within a turn: free the memory, then the lease."""
        self._must_leave = False
        if self.role is None:
            return
        # A task of its own: half a departure would keep the lease for a model that is gone.
        self._going = asyncio.create_task(self._go(self.role))
        await asyncio.shield(self._going)

    async def _go(self, role: Role) -> None:
        model, self._model, self.role = self._model, None, None
        try:
            if model is not None:
                await self.run(model.close)
        finally:
            if self.lease is not None:
                await self.lease.release(role.model)

    def leave(self) -> None:
        """Let go as soon as no job uses the model: another worker waits for it."""
        self._must_leave = True
        if not self._turn.locked():
            self._going = asyncio.create_task(self._leave_in_turn())

    async def _leave_in_turn(self) -> None:
        async with self.turn():
            _log.info("backend %s gives its model to another worker", self._name)

    async def run(
        self, work: Callable[[], Answer], keep: Callable[[Answer], None] | None = None
    ) -> Answer:
        """Do work in the model's thread. A cancelled caller waits for its end, too.

        `keep` is given what a cancelled caller cannot take any more.
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
        """A model whose job was cancelled while it loaded: the next job is glad of it."""
        self._model = model

    async def aclose(self) -> None:
        """Free everything, when the job that runs has ended."""
        async with self.turn():
            await self.drop()
        await asyncio.to_thread(self.thread.shutdown)
