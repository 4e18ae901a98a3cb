"""Where a command's words go: data to stdout, talk to stderr, and with --json one object a line."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from rich.console import Console
from rich.markup import escape
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

_LINE_EVERY_S = 30.0
FEW = 20
"""Rows of a table that a person sees without asking for more."""


class Terminal:
    """Both streams of one command."""

    def __init__(self, *, json: bool = False) -> None:
        """With `json`, tables and words become JSON."""
        self.json = json
        self.is_interactive = sys.stdout.isatty()
        self.talk = Console(stderr=True)
        self._out = Console()

    @property
    def width(self) -> int | None:
        """Columns that a person sees; None where nobody looks."""
        return self._out.width if self.is_interactive else None

    def say(self, text: str, style: str = "dim") -> None:
        """A line of talk."""
        self.talk.print(escape(text), style=style, highlight=False, soft_wrap=True)

    def tell(self, text: str) -> None:
        """A line of talk that is not beside the point."""
        self.say(text, style="none")

    def words(self, text: str) -> None:
        """A piece of an answer, shown at once."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def line(self, body: bytes) -> None:
        """A line of JSON."""
        sys.stdout.write(one_line(body).decode() + "\n")
        sys.stdout.flush()

    def mapping(self, fields: dict[str, object]) -> None:
        """A line of JSON made of these."""
        self.line(json_line(fields))

    def room(self, limit: int | None, *, all_: bool) -> int | None:
        """Rows to show: so many, or all (None); a person who says nothing sees the first few."""
        if limit is not None or all_:
            return None if all_ else limit
        return FEW if self.is_interactive and not self.json else None

    def rows(
        self,
        nouns: Sequence[WireModel],
        columns: Sequence[str],
        cells: Iterable[Sequence[object]],
        most: int | None = None,
    ) -> None:
        """A table of things, or one JSON object a line; the first `most` of them."""
        shown = nouns[:most]
        if self.json:
            for noun in shown:
                self.line(encode(noun))
            return
        self.table(columns, islice(cells, most))
        if len(shown) < len(nouns):
            self.say(f"{len(shown)} of {len(nouns)}: --all shows the others, too")

    def table(self, columns: Sequence[str], cells: Iterable[Sequence[object]]) -> None:
        """A table; numbers stand to the right. In a pipe a row is a line, and nothing is cut."""
        header, *rows = lines(columns, cells, time.time(), self.width)
        if self.is_interactive:
            self._out.print(Text(header, "bold"), no_wrap=True, crop=False)
        else:
            self.words(f"{header}\n")
        self.words("".join(f"{row}\n" for row in rows))

    def counting(self, what: str) -> Progress:
        """A bar for things that are counted, with rate and time left."""
        return Progress(
            TextColumn(f"{what} {{task.description}}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.talk,
        )

    @contextmanager
    def steps(
        self, what: str, name: str, total: int, done: int = 0
    ) -> Iterator[Callable[[int], None]]:
        """Count steps with a bar, or with a line now and then where nobody sees a bar."""
        with self.counting(what) as bar:
            task = bar.add_task(name, total=total, completed=done, rate="")
            told_at = time.monotonic()

            def advance(count: int) -> None:
                nonlocal told_at
                bar.advance(task, count)
                at = bar.tasks[task]
                rate = f"{at.speed:.0f}/s" if at.speed else ""
                bar.update(task, rate=rate)
                if not self.talk.is_terminal and time.monotonic() - told_at >= _LINE_EVERY_S:
                    told_at = time.monotonic()
                    left_s = (at.time_remaining or 0) if rate else 0
                    self.say(f"{what} {at.completed:.0f} of {total}, {rate}, {left_s:.0f} s left")

            yield advance

    def nearing(self) -> Progress:
        """A bar for a share of a whole that is not counted."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self.talk,
        )

    def downloading(self) -> Progress:
        """A bar for bytes."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self.talk,
        )
