"""Output of the demo: live text during a scene, and a table of the results at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from contract.errors import FleetError
from fleet.visible import visible


class PromiseBroken(FleetError):
    """The fleet did not do what the demo promises."""

    code = "promise_broken"


class ShownClaim(NamedTuple):
    """A row of the table at the end."""

    what: str
    measured: str


class Narrator:
    """Prints to stdout; also without a terminal."""

    def __init__(self) -> None:
        """Start the clock."""
        self.console = Console(highlight=False)
        self._began_at = time.monotonic()
        self._shown: list[ShownClaim] = []

    def scene(self, title: str, promise: str) -> None:
        """Print the title of a scene, and what it will show."""
        self.console.print()
        self.console.rule(f"[bold]{escape(title)}", align="left")
        self.console.print(f"[dim]{escape(promise)}")

    def say(self, text: str, style: str = "yellow") -> None:
        """Print a line."""
        self.console.print(f"[{style}]» {escape(visible(text))}")

    def words(self, text: str, style: str) -> None:
        """Print text of an answer, without a line break."""
        self.console.print(escape(visible(text)), style=style, end="", soft_wrap=True)
        self.console.file.flush()

    def end_words(self) -> None:
        """End the line of an answer."""
        self.console.print()

    def measured(self, what: str, measured: str) -> None:
        """Add a row to the table."""
        self._shown.append(ShownClaim(what, measured))

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show a spinner, and how long it took at the end."""
        began_at = time.monotonic()
        with self.console.status(what):
            yield
        self.say(f"{what}: {time.monotonic() - began_at:.1f} s", "dim")

    def finish(self, next_steps: str) -> None:
        """Print the table and `next_steps`."""
        table = Table(title="What you saw", title_justify="left", title_style="bold")
        table.add_column("promise")
        table.add_column("measured")
        for row in self._shown:
            measured = escape(visible(row.measured))
            table.add_row(f"[green]✓[/] {escape(visible(row.what))}", measured)
        table.add_row("everything, from the start", f"{time.monotonic() - self._began_at:.1f} s")
        self.console.print()
        self.console.print(table)
        self.console.print(Panel(next_steps, title="Next steps", title_align="left"))


def promise(kept: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence at the call
    """Raises PromiseBroken unless `kept`."""
    if not kept:
        raise PromiseBroken(f"promise broken: {what}")
