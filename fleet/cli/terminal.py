"""Output of a command: data on stdout, messages on stderr; with --json one JSON object a line."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from contract.json_lines import json_line, one_line
from contract.wire import WireModel, encode
from fleet.cli.tables import lines
from fleet.visible import visible, visible_json

_LINE_EVERY_S = 30.0
DEFAULT_ROWS = 20
"""Rows of a table on a terminal without --limit and --all."""


class Terminal:
    """The output streams of one command."""

    def __init__(self, *, json: bool = False, raw: bool = False) -> None:
        """With `json`, tables are printed as JSON; with `raw`, text is written as it is."""
        self.json = json
        self.raw = raw
        self.is_interactive = sys.stdout.isatty()
        self.stderr = Console(stderr=True)
        self._stdout = Console()

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None if stdout is not a terminal."""
        return self._stdout.width if self.is_interactive else None

    def message(self, text: str, style: str = "dim") -> None:
        """Print a line on stderr."""
        self.stderr.print(Text(visible(text)), style=style, soft_wrap=True)

    def notice(self, text: str) -> None:
        """Print a line on stderr, not dimmed."""
        self.message(text, style="none")

    def write(self, text: str) -> None:
        """Write text to stdout and flush it; on a terminal, control characters are escaped."""
        is_escaped = self.is_interactive and not self.raw
        sys.stdout.write(visible(text.replace("\r", "")) if is_escaped else text)
        sys.stdout.flush()

    def write_line(self, text: str) -> None:
        """Write a line to stdout, with control characters escaped."""
        self.write(f"{visible(text)}\n")

    def write_json(self, body: bytes) -> None:
        """Write a JSON document to stdout as one line."""
        sys.stdout.write(visible_json(one_line(body).decode()) + "\n")
        sys.stdout.flush()

    def write_json_object(self, fields: dict[str, object]) -> None:
        """Write a JSON object of these fields to stdout as one line."""
        self.write_json(json_line(fields))

    def row_limit(self, limit: int | None, *, all_: bool) -> int | None:
        """Number of rows to show, None: all. Without options: 20 on a terminal, else all."""
        if limit is not None or all_:
            return None if all_ else limit
        return DEFAULT_ROWS if self.is_interactive and not self.json else None

    def print_rows(
        self,
        nouns: Sequence[WireModel],
        columns: Sequence[str],
        cells: Iterable[Sequence[object]],
        most: int | None = None,
    ) -> None:
        """Print the first `most` nouns: a table of their cells, or with --json an object each."""
        shown = nouns[:most]
        if self.json:
            for noun in shown:
                self.write_json(encode(noun))
            return
        self.print_table(columns, islice(cells, most))
        if len(shown) < len(nouns):
            self.message(f"{len(shown)} of {len(nouns)}: --all shows all of them")

    def print_table(self, columns: Sequence[str], cells: Iterable[Sequence[object]]) -> None:
        """Print a table, numbers right-aligned. In a pipe a row is a line, and nothing is cut."""
        header, *rows = lines(columns, cells, time.time(), self.width)
        if self.is_interactive:
            self._stdout.print(Text(header, "bold"), no_wrap=True, crop=False)
        else:
            self.write(f"{header}\n")
        self.write("".join(f"{row}\n" for row in rows))

    def count_bar(self, what: str) -> Progress:
        """A progress bar for counted things, with their rate and the time left."""
        return Progress(
            TextColumn(f"{what} {{task.description}}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.stderr,
        )

    @contextmanager
    def step_bar(
        self, what: str, name: str, total: int, done: int = 0
    ) -> Iterator[Callable[[int], None]]:
        """Count steps with a bar, or with a line every 30 s if stderr is not a terminal."""
        with self.count_bar(what) as bar:
            task = bar.add_task(visible(name), total=total, completed=done, rate="")
            printed_at = time.monotonic()

            def advance(count: int) -> None:
                nonlocal printed_at
                bar.advance(task, count)
                at = bar.tasks[task]
                rate = f"{at.speed:.0f}/s" if at.speed else ""
                bar.update(task, rate=rate)
                if not self.stderr.is_terminal and time.monotonic() - printed_at >= _LINE_EVERY_S:
                    printed_at = time.monotonic()
                    left_s = (at.time_remaining or 0) if rate else 0
                    self.message(
                        f"{what} {at.completed:.0f} of {total}, {rate}, {left_s:.0f} s left"
                    )

            yield advance

    def share_bar(self) -> Progress:
        """A progress bar in percent."""
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self.stderr,
        )

    def bytes_bar(self) -> Progress:
        """A progress bar for bytes."""
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self.stderr,
        )
