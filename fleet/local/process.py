"""One process of the fleet, from start to end; passes its output lines to a printer.

Built on honcho's Process, which reads a child's output in a thread and puts it in a queue.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from honcho.environ import parse_procfile
from honcho.printer import Message
from honcho.process import Popen, Process
from typing_extensions import override

from fleet.client.errors import CannotStart

_PARENT_WATCH = Path(__file__).with_name("parent_watch.py")
_COULD_NOT_START = 127


class _ChildProcess(Process):  # type: ignore[misc] # honcho ships no types
    """A honcho process without a shell in between, that is killed when we die."""

    def __init__(self, command: str, inherited: Sequence[int], umask: int, **options: Any) -> None:
        tether = [sys.executable, "-I", "-S", str(_PARENT_WATCH), str(os.getpid())]
        super().__init__([*tether, "/bin/sh", "-c", f"exec {command}"], **options)
        self._child_ctor = partial(
            Popen,
            shell=False,
            stdin=subprocess.DEVNULL,
            pass_fds=tuple(inherited),
            umask=umask,
        )

    @override
    def run(self, events: Any = None, ignore_signals: bool = False) -> None:
        try:
            super().run(events, ignore_signals)
        except OSError as error:
            now = datetime.now().astimezone()
            events.put(Message("line", f"{error}\n", now, self.name, self.colour))
            events.put(Message("stop", {"returncode": _COULD_NOT_START}, now, self.name, None))


class _MessageQueue:
    """A queue from honcho's thread to the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()

    def put(self, message: Message) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._messages.put_nowait, message)

    async def get(self) -> Message:
        return await self._messages.get()


class Child:
    """A started command; `pid` is that of its process group, too."""

    def __init__(
        self,
        name: str,
        command: str,
        environment: dict[str, str],
        *,
        colour: str = "",
        inherited: Sequence[int] = (),
        umask: int = -1,
    ) -> None:
        """Start the command; it inherits the file descriptors in `inherited`, our umask if -1."""
        process = _ChildProcess(
            command, inherited, umask, name=name, colour=colour, env=environment
        )
        self.pid: int | None = None
        self._pending_signal: signal.Signals | None = None
        self._inbox = _MessageQueue()
        # The thread must live as long as the child: a parent "dies" for the kernel when the
        # thread that forked does (prctl(2)). honcho's run returns only when the child has ended.
        threading.Thread(target=process.run, args=(self._inbox,), name=name, daemon=True).start()

    async def wait(self, write: Callable[[Message], None]) -> int:
        """Pass every line to `write`; returns the exit code, negative if a signal ended it."""
        while True:
            message = await self._inbox.get()
            if message.type == "start":
                self.pid = message.data["pid"]
                if self._pending_signal is not None:
                    self.signal(self._pending_signal)
            elif message.type == "line":
                write(message)
            else:
                self.pid = None
                return int(message.data["returncode"])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process group, as soon as it has a pid."""
        if self.pid is None:
            self._pending_signal = number
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


_PLACES = tuple(Path(__file__).parents[up] / "Procfile" for up in (1, 2))
"""In an installed wheel, and at the top of a source tree."""


def commands() -> dict[str, str]:
    """Command lines of the Procfile by name, as in `shim`; raises CannotStart."""
    for place in _PLACES:
        if place.is_file():
            return dict(parse_procfile(place.read_text(encoding="utf-8")).processes)
    raise CannotStart("the Procfile is missing from this installation: install llm-fleet again")


def worker_command(backend: str) -> str:
    """The command line of a backend's workers: its own, else the one of all workers."""
    lines = commands()
    return lines.get(f"worker-{backend}") or lines["worker"]
