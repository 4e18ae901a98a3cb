"""What the demo tells: live words while a scene plays, and a table of what was shown at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from contract.errors import FleetError


class PromiseBroken(FleetError):
    """The fleet did not do what the demo says it does."""

    code = "promise_broken"


class ShownClaim(NamedTuple):
    """A row of the table at the end."""

    what: str
    measured: str


class Narrator:
    """Talks on stdout; fine without a terminal, too."""

    def __init__(self) -> None:
        """Begin."""
        self.console = Console(highlight=False)
        self._began_at = time.monotonic()
        self._shown: list[ShownClaim] = []

    def scene(self, title: str, promise: str) -> None:
        """Announce what will be seen."""
        self.console.print()
        self.console.rule(f"[bold]{escape(title)}", align="left")
        self.console.print(f"[dim]{escape(promise)}")

    def say(self, text: str, style: str = "yellow") -> None:
        """A line between the words of an answer."""
        self.console.print(f"[{style}]» {escape(text)}")

    def words(self, text: str, style: str) -> None:
        """Words of an answer as they come."""
        self.console.print(escape(text), style=style, end="", soft_wrap=True)
        self.console.file.flush()

    def end_words(self) -> None:
        """The answer is over, or interrupted."""
        self.console.print()

    def measured(self, what: str, measured: str) -> None:
        """Keep a row for the table."""
        self._shown.append(ShownClaim(what, measured))

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show that something takes a moment, and how long it took."""
        began_at = time.monotonic()
        with self.console.status(what):
            yield
        self.say(f"{what}: {time.monotonic() - began_at:.1f} s", "dim")

    def finish(self, how_to_go_on: str) -> None:
        """The table, and what to try next."""
        table = Table(title="What you saw", title_justify="left", title_style="bold")
        table.add_column("promise")
        table.add_column("measured")
        for row in self._shown:
            table.add_row(f"[green]✓[/] {escape(row.what)}", escape(row.measured))
        table.add_row("everything, from nothing", f"{time.monotonic() - self._began_at:.1f} s")
        self.console.print()
        self.console.print(table)
        self.console.print(Panel(how_to_go_on, title="How to go on", title_align="left"))


def promise(kept: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence at the call
    """Raise PromiseBroken unless it was kept."""
    if not kept:
        raise PromiseBroken(f"promise broken: {what}")
