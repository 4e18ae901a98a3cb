"""Sessions: while a ticket's task stays, jobs of its queue are assigned to this worker directly.

The first task of a queue opens a session. While it is open and the worker takes any job, its free
slots are recorded in Redis, and an enqueue into an empty queue leases the job to the worker and
publishes it to its wake channel: no ticket, no claim (docs/adr/0037). The jobs run as tasks of the
session. It ends some seconds after the last of them; a worker that stops lets them end first.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from contract.errors import RelayUnavailable
from relay.claims import Claims
from telemetry.repeated_warnings import RepeatedWarnings
from workers.slots import Slots

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_IDLE_S: Final = 10.0
"""Seconds for which a session without a job stays open."""
_CHECK_S: Final = 1.0


class Session:
    """The runs of one queue that no ticket began."""

    def __init__(self, queue: str) -> None:
        """Open, without a run."""
        self.queue = queue
        self.runs: set[asyncio.Task[None]] = set()
        self.used_at = asyncio.get_running_loop().time()
        self.ending = asyncio.Event()
        """Set when no run begins any more."""

    def start(self, run: Coroutine[Any, Any, None]) -> None:
        """Run it as a task of this session."""
        task = asyncio.create_task(run)
        self.runs.add(task)
        task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self.runs.discard(task)
        self.used_at = asyncio.get_running_loop().time()
        if not task.cancelled() and (error := task.exception()) is not None:
            level = logging.WARNING if isinstance(error, RelayUnavailable) else logging.ERROR
            _log.log(level, "jobs of %s stop: %s", self.queue, error, exc_info=error)


class Sessions:
    """The sessions of one worker: one a queue at most."""

    def __init__(self, worker: str, claims: Claims, slots: Slots) -> None:
        """Start without a session."""
        self._member = claims.idle_member(worker, takes_any=True)
        self._claims = claims
        self._slots = slots
        self._open: dict[str, Session] = {}
        self._is_closed = False

    def of(self, queue: str) -> Session | None:
        """Return the session of a queue, if runs may begin in it."""
        session = self._open.get(queue)
        return None if session is None or session.ending.is_set() else session

    def free_slots(self, queue: str) -> int:
        """Return how many jobs of a queue may be assigned once the calling run has ended."""
        if self.of(queue) is None or not self._slots.is_served(queue):
            return 0
        return self._slots.capacity[queue] - self._slots.taken[queue] + 1

    def has(self, task: asyncio.Task[Any] | None) -> bool:
        """Return whether a task is a run of a session."""
        return any(task in session.runs for session in self._open.values())

    @asynccontextmanager
    async def open(self, queue: str) -> AsyncGenerator[Session | None]:
        """Open a session for the block; None if the queue has one, or if the worker stops.

        What still runs when the block ends, because its task was terminated, is cancelled.
        """
        if self._is_closed or queue in self._open:
            yield None
            return
        session = self._open[queue] = Session(queue)
        try:
            yield session
        finally:
            session.ending.set()
            runs = list(session.runs)
            for run in runs:
                run.cancel()
            try:
                await asyncio.gather(*runs, return_exceptions=True)
                await self.withdraw(queue)
            finally:
                del self._open[queue]

    async def until_idle(self, session: Session) -> None:
        """Return when no job was assigned for some seconds, or the worker stops; no run is left."""
        loop = asyncio.get_running_loop()
        while not session.ending.is_set():
            if not session.runs and loop.time() - session.used_at >= _IDLE_S:
                session.ending.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_S):
                    await session.ending.wait()
        await self.withdraw(session.queue)
        while session.runs:
            await asyncio.wait(session.runs)

    async def withdraw(self, queue: str) -> None:
        """Have no more jobs assigned; raises nothing."""
        try:
            await self._claims.set_idle_slots(queue, self._member, 0)
        except RelayUnavailable as error:
            _repeated.warn("idle slots of %s are not withdrawn: %s", queue, error)

    def close(self) -> None:
        """End every session when its runs have ended, and open no more: the worker stops."""
        self._is_closed = True
        for session in self._open.values():
            session.ending.set()
