"""Writes and reads the output of the processes of `fleet up`, in files of the data folder.

    <data folder>/logs/<process>.log     the newest lines; then .log.1, .log.2, .log.3

Each line is `<UTC time> <text>`. Invariant: the files of a process have at most `FILES` times
`FILE_BYTES`, and there are files of at most `PROCESSES` processes; the oldest are deleted.
"""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from honcho.printer import Message, Printer
from typing_extensions import override

from fleet.local.supervisor import OWN_NAME
from fleet.visible import visible

FILES: Final = 4
FILE_BYTES: Final = 4 * 2**20
PROCESSES: Final = 128
_LONGEST_LINE: Final = 16 * 1024
_SUFFIX: Final = ".log"
_LINE: Final = re.compile(rb"(\d{4}-\d\d-\d\dT\S+) ?(.*)")


def log_folder(data_folder: Path) -> Path:
    """The folder of the log files."""
    return data_folder / "logs"


class Line(NamedTuple):
    """One line that a process printed."""

    at: datetime
    process: str
    text: str


class _File(RotatingFileHandler):
    """The files of one process; calls `on_error` if a line could not be written."""

    def __init__(self, path: Path, on_error: Callable[[Exception], None]) -> None:
        super().__init__(
            path, maxBytes=FILE_BYTES, backupCount=FILES - 1, encoding="utf-8", delay=True
        )
        self._on_error = on_error

    def add(self, line: str) -> None:
        try:
            self.emit(logging.makeLogRecord({"msg": line}))
        except OSError as error:
            self._on_error(error)

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        # `emit` calls this in its `except` block: raise what it caught, for `add`.
        raise  # noqa: PLE0704


class Journal(Printer):  # type: ignore[misc] # honcho ships no types
    """A honcho printer that writes every line to files, and shows only the lines of `fleet up`."""

    def __init__(
        self, show: Callable[[str], object], data_folder: Path, *, verbose: bool = False
    ) -> None:
        """Write to `logs` in the data folder; with `verbose`, show the lines of processes, too."""
        super().__init__(sys.stderr)
        self._show = show
        self.folder = log_folder(data_folder)
        self.is_quiet = not verbose
        self._open: dict[str, _File] = {}
        self._has_failed = False

    @override
    def write(self, message: Message) -> None:
        """Write a message to its file, and show it if it is to be shown."""
        text = self._write_file(message)
        if not self.is_quiet:
            super().write(message._replace(data=text))
        elif message.name == OWN_NAME:
            self._show(f"{message.time:%H:%M:%S} {text}")

    def log(self, text: str) -> None:
        """Write a line of `fleet up` to its file only; with `verbose`, show it, too."""
        message = Message("line", text, datetime.now().astimezone(), OWN_NAME, None)
        self._write_file(message)
        if not self.is_quiet:
            super().write(message)

    def _write_file(self, message: Message) -> str:
        data = message.data
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data)
        # Some of it is not from our loggers: a library's own output, a server's.
        text = "\n".join(visible(line, "\t") for line in text.splitlines())
        at = message.time.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        for line in text.split("\n"):
            self._file(message.name).add(f"{at}Z {line[:_LONGEST_LINE]}")
        return text

    def _file(self, process: str) -> _File:
        found = self._open.get(process)
        if found is None:
            if len(self._open) >= PROCESSES:
                self.close()  # a file is opened again with its next line
            try:
                self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.folder.mkdir(mode=0o700, exist_ok=True)
                _delete_oldest(self.folder)
            except OSError as error:
                self._on_error(error)
            found = self._open[process] = _File(self.folder / f"{process}{_SUFFIX}", self._on_error)
        return found

    def _on_error(self, error: Exception) -> None:
        """Report once that lines are lost; the fleet continues without them."""
        if not self._has_failed:
            self._has_failed = True
            self._show(f"logs cannot be written to {self.folder}: {error}")

    def close(self) -> None:
        """Close every file; lines that a full disk does not take are lost."""
        for each in self._open.values():
            with suppress(OSError):
                each.close()
        self._open.clear()


def _delete_oldest(folder: Path) -> None:
    """Delete the files of the oldest processes, until there is room for one more process."""
    newest_first = sorted(folder.glob(f"*{_SUFFIX}"), key=_written_at, reverse=True)
    for path in newest_first[PROCESSES - 1 :]:
        for each in _files_of(folder, path.name.removesuffix(_SUFFIX)):
            each.unlink(missing_ok=True)


def _written_at(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _files_of(folder: Path, process: str) -> list[Path]:
    """The files of a process, oldest first."""
    newest = folder / f"{process}{_SUFFIX}"
    older = [newest.with_name(f"{newest.name}.{number}") for number in range(FILES - 1, 0, -1)]
    return [*older, newest]


def processes(folder: Path) -> list[str]:
    """Names of the processes that have log files, sorted."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}"))


class LogReader:
    """Reads the lines of some processes in the order of their times, then follows new ones."""

    def __init__(self, folder: Path, wants: Callable[[str], bool]) -> None:
        """Read the files of each process for which `wants` is true, also if it starts later."""
        self._folder = folder
        self._wants = wants
        self._ends: dict[str, _LogTail] = {}

    def last(self, count: int) -> Sequence[Line]:
        """The newest lines over all processes; `new` continues after them."""
        found: list[Line] = []
        for process in self._processes():
            end = self._ends[process] = _LogTail(self._folder / f"{process}{_SUFFIX}", process)
            lines = end.lines()
            for path in reversed(_files_of(self._folder, process)[:-1]):
                if len(lines) >= count:
                    break
                with suppress(FileNotFoundError):
                    lines = [*_read(path.read_bytes().splitlines(), process), *lines]
            found += lines[-count:]
        return sorted(found, key=lambda line: line.at)[-count:]

    def new(self) -> Sequence[Line]:
        """The lines written since the last call."""
        found: list[Line] = []
        for process in self._processes():
            if process not in self._ends:
                self._ends[process] = _LogTail(self._folder / f"{process}{_SUFFIX}", process)
            found += self._ends[process].lines()
        return sorted(found, key=lambda line: line.at)

    def close(self) -> None:
        """Close every file."""
        for end in self._ends.values():
            end.close()

    def _processes(self) -> list[str]:
        return [process for process in processes(self._folder) if self._wants(process)]


class _LogTail:
    """Reads the end of a process's newest file, and follows its rotation."""

    def __init__(self, path: Path, process: str) -> None:
        self._path = path
        self._process = process
        self._file: BinaryIO | None = None
        self._rest = b""

    def lines(self) -> list[Line]:
        """Complete lines that were not read before."""
        found = self._read()
        if self._was_rotated():
            found += self._read()  # what was written before the rotation
            self.close()
            found += self._read()
        return found

    def _read(self) -> list[Line]:
        if self._file is None:
            with suppress(FileNotFoundError):
                self._file = self._path.open("rb")
        if self._file is None:
            return []
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        return list(_read(whole, self._process))

    def _was_rotated(self) -> bool:
        """Whether the open file is not the newest one any more."""
        if self._file is None:
            return False
        with suppress(FileNotFoundError):
            return not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        return False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._rest = None, b""


def _read(lines: Iterable[bytes], process: str) -> Iterator[Line]:
    """Parse lines; incomplete ones, as after a full disk, are left out."""
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is not None:
            with suppress(ValueError):
                at = datetime.fromisoformat(match[1].decode())
                yield Line(at, process, match[2].decode("utf-8", "replace"))
