"""A download as a person sees it: a bar for each layer, and one for the whole."""

from types import TracebackType
from typing import Self

from rich.progress import Progress as Bars
from rich.progress import TaskID

from contract.events import Progress
from fleet.terminal import Terminal

_SHOWN = 12
"""Characters of a digest, as servers themselves show it."""


class Layers:
    """The bars; none is drawn before the first layer is heard of."""

    def __init__(self, terminal: Terminal) -> None:
        """Draw there."""
        self._terminal = terminal
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Nothing to draw yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bars as they stand."""
        self.close()

    def add(self, progress: Progress) -> bool:
        """Draw what this says; False if it says nothing of a layer."""
        if not (progress.digest and progress.total_bytes):
            return False
        if self._bars is None:
            self._bars = self._terminal.downloading()
            self._bars.start()
        name = progress.digest.rpartition(":")[2][:_SHOWN]
        self._move(self._bars, name, progress.completed_bytes, progress.total_bytes)
        if progress.overall_total_bytes:
            overall = progress.overall_completed_bytes
            self._move(self._bars, "total", overall, progress.overall_total_bytes)
        return True

    def _move(self, bars: Bars, name: str, completed: int | None, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = bars.add_task(name, total=total)
        bars.update(self._tasks[name], total=total, completed=completed or 0)

    def close(self) -> None:
        """Stop drawing; a later layer begins new bars."""
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._tasks = None, {}
