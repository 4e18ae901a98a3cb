"""Keeps processes running: restarts them when they die, and stops them all at its end.

Invariant: after `async with Supervisor(...)` none of its processes is running.
"""

import asyncio
import io
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self

from honcho.printer import Message, Printer

from fleet.client.reconnect import Backoff
from fleet.local.process import Child

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STABLE_S = 10.0
"""A process that ran this long is restarted without a pause."""
RETIRE = signal.SIGUSR2
"""The signal that retires a worker (workers/app.py)."""
OWN_NAME = "fleet"
"""Name of the supervisor's own lines, among those of the processes."""
_LONGEST_REASON = 200
_KILLED_WITHIN_S = 5.0


async def _nothing_to_do(_: dict[str, str]) -> None:
    pass


@dataclass(eq=False)
class SupervisedEntry:
    """A process that should always run."""

    name: str
    command: str
    environment: Callable[[], dict[str, str]] = field(repr=False)
    """Called at every start; may contain keys."""
    on_death: Callable[[dict[str, str]], Awaitable[None]] = _nothing_to_do
    """Called, with the environment of the run, when it died without being stopped."""
    colour: str = ""
    inherited: Sequence[int] = ()
    """File descriptors that the process inherits."""
    umask: int = -1
    """Permissions that the files it makes do not get; -1: as ours."""
    starts: int = field(default=0, init=False)
    exit_code: int | None = field(default=None, init=False)
    """Exit code of the last run; None during the first."""
    child: Child | None = field(default=None, init=False)
    started_with: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    """Environment of the current or last run."""
    last_line: str = field(default="", init=False)
    """The last line that it printed, which is the reason if it failed."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    """Set when it is not to be restarted."""

    @property
    def pid(self) -> int | None:
        """Process id; None if it does not run."""
        return self.child.pid if self.child else None


class Supervisor:
    """Runs a group of processes."""

    def __init__(self, printer: Printer, stop_within_s: float) -> None:
        """Give processes `stop_within_s` to end after SIGTERM; then they are killed."""
        self._printer = printer
        self._stop_within_s = stop_within_s
        self._is_stopping = False
        self._tasks: dict[SupervisedEntry, asyncio.Task[None]] = {}
        self.entries: list[SupervisedEntry] = []

    async def __aenter__(self) -> Self:
        """Return the supervisor; nothing is started yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop every process: SIGTERM, a bounded wait, SIGKILL."""
        try:
            self._end(signal.SIGTERM)
            await self._all_ended(self._stop_within_s)
        finally:
            self.kill()
            await self._all_ended(_KILLED_WITHIN_S)
        for task in self._tasks.values():
            if task.done():
                task.result()

    def supervise(self, entry: SupervisedEntry) -> None:
        """Start a process, and restart it when it ends."""
        self.entries.append(entry)
        self._printer.width = max(self._printer.width, len(entry.name))
        task = asyncio.create_task(self._keep(entry), name=entry.name)
        task.add_done_callback(self._on_task_end)
        self._tasks[entry] = task
        if self._is_stopping:
            entry.stopping.set()

    async def remove(self, entry: SupervisedEntry) -> None:
        """Stop one process: SIGTERM, a bounded wait, SIGKILL; the others continue.

        If this is cancelled, the process is stopped with all others.
        """
        task = self._tasks[entry]
        _end(entry, signal.SIGTERM)
        await asyncio.wait([task], timeout=self._stop_within_s)
        if not task.done():
            _end(entry, signal.SIGKILL)
            await asyncio.wait([task], timeout=_KILLED_WITHIN_S)
        if task.done():
            del self._tasks[entry]
            self.entries.remove(entry)
            task.result()

    async def retire(self, entry: SupervisedEntry) -> None:
        """Let a worker finish its jobs, however long they take, and end; the others continue.

        If this is cancelled, the process is stopped with all others.
        """
        task = self._tasks[entry]
        _end(entry, RETIRE)
        await asyncio.wait([task])
        del self._tasks[entry]
        self.entries.remove(entry)
        task.result()

    def kill(self) -> None:
        """Send SIGKILL to every process."""
        self._end(signal.SIGKILL)

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        """Report that a process is no longer supervised, because of an unexpected exception."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.say(f"{task.get_name()} is no longer supervised: {error!r}")

    def _end(self, number: signal.Signals) -> None:
        self._is_stopping = True
        for entry in self.entries:
            _end(entry, number)

    async def _all_ended(self, within_s: float) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=within_s)

    async def _keep(self, entry: SupervisedEntry) -> None:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while not entry.stopping.is_set():
            began_at = time.monotonic()
            entry.started_with = entry.environment()
            await self._run(entry)
            if entry.stopping.is_set():
                if entry.exit_code:
                    self.say(f"{entry.name} {exit_reason(entry)}")
                return
            is_stable = time.monotonic() - began_at >= STABLE_S
            if is_stable:
                backoff.reset()
            pause_s = 0.0 if is_stable else backoff.pause_s()
            when = f" in {pause_s:g} s" if pause_s else ""
            self.say(f"{entry.name} {exit_reason(entry)}: restarting{when or ' now'}")
            await entry.on_death(entry.started_with)
            if pause_s:
                with suppress(TimeoutError):
                    await asyncio.wait_for(entry.stopping.wait(), pause_s)

    async def _run(self, entry: SupervisedEntry) -> None:
        entry.child = Child(
            entry.name,
            entry.command,
            entry.started_with,
            colour=entry.colour,
            inherited=entry.inherited,
            umask=entry.umask,
        )
        entry.starts += 1
        entry.last_line = ""
        entry.exit_code = await entry.child.wait(partial(self._on_line, entry))
        entry.child = None

    def _on_line(self, entry: SupervisedEntry, message: Message) -> None:
        data = message.data
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data)
        entry.last_line = text.strip()[:_LONGEST_REASON] or entry.last_line
        self._write(message)

    def _write(self, message: Message) -> None:
        self._printer.write(message)

    def say(self, text: str) -> None:
        """Print a line of the supervisor."""
        now = datetime.now().astimezone()
        self._printer.write(Message("line", text, now, OWN_NAME, None))


def _end(entry: SupervisedEntry, number: signal.Signals) -> None:
    entry.stopping.set()
    if entry.child is not None:
        entry.child.signal(number)


def exit_reason(entry: SupervisedEntry) -> str:
    """How a process ended, as in `was killed by SIGKILL`; with its last line if it failed."""
    exit_code = entry.exit_code or 0
    if exit_code >= 0:
        why = f" ({entry.last_line})" if exit_code and entry.last_line else ""
        return f"ended with exit code {exit_code}{why}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"


def silent_printer() -> Printer:
    """A printer that discards everything."""
    return Printer(io.StringIO())
