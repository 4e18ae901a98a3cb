"""One process of the fleet, from start to end, with its lines on their way to the printer.

Built on honcho's Process, which reads a child's lines in a thread and tells of them as messages.
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

_TETHER = Path(__file__).with_name("parent_watch.py")
_COULD_NOT_START = 127


class _Tethered(Process):  # type: ignore[misc] # honcho ships no types
    """A honcho process without a shell between, that ends when we do."""

    def __init__(self, command: str, inherited: Sequence[int], **options: Any) -> None:
        tether = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid())]
        super().__init__([*tether, "/bin/sh", "-c", f"exec {command}"], **options)
        self._child_ctor = partial(
            Popen, shell=False, stdin=subprocess.DEVNULL, pass_fds=tuple(inherited)
        )

    @override
    def run(self, events: Any = None, ignore_signals: bool = False) -> None:
        try:
            super().run(events, ignore_signals)
        except OSError as error:
            now = datetime.now().astimezone()
            events.put(Message("line", f"{error}\n", now, self.name, self.colour))
            events.put(Message("stop", {"returncode": _COULD_NOT_START}, now, self.name, None))


class _Inbox:
    """Where honcho's thread puts its messages, and the loop finds them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()

    def put(self, message: Message) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._messages.put_nowait, message)

    async def get(self) -> Message:
        return await self._messages.get()


class Child:
    """A command that was started; `pid` leads a process group of its own."""

    def __init__(
        self,
        name: str,
        command: str,
        environment: dict[str, str],
        *,
        colour: str = "",
        inherited: Sequence[int] = (),
    ) -> None:
        """Start it; `inherited` are file descriptors that it keeps."""
        process = _Tethered(command, inherited, name=name, colour=colour, env=environment)
        self.pid: int | None = None
        self._owed: signal.Signals | None = None
        self._inbox = _Inbox()
        # The thread must live as long as the child: a parent "dies" for the kernel when the
        # thread that forked does (prctl(2)). honcho's run returns only when the child has ended.
        threading.Thread(target=process.run, args=(self._inbox,), name=name, daemon=True).start()

    async def ended(self, write: Callable[[Message], None]) -> int:
        """Hand every line to `write`; returns the exit code, negative if a signal ended it."""
        while True:
            message = await self._inbox.get()
            if message.type == "start":
                self.pid = message.data["pid"]
                if self._owed is not None:
                    self.signal(self._owed)
            elif message.type == "line":
                write(message)
            else:
                self.pid = None
                return int(message.data["returncode"])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and whatever it started, as soon as it has a pid."""
        if self.pid is None:
            self._owed = number
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


_PLACES = tuple(Path(__file__).parents[up] / "Procfile" for up in (1, 2))
"""Inside an installed wheel; at the top of a source tree."""


def commands() -> dict[str, str]:
    """Command lines by name, as in `shim`; each is one simple command for a shell."""
    for place in _PLACES:
        if place.is_file():
            return dict(parse_procfile(place.read_text(encoding="utf-8")).processes)
    raise CannotStart("the Procfile is missing from this installation: install llm-fleet again")


def worker_command(backend: str) -> str:
    """The line of a backend's workers: its own, else the one for any backend."""
    lines = commands()
    return lines.get(f"worker-{backend}") or lines["worker"]
