"""How far something is as a person sees it: a bar a layer of a download, or one for a phase."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.progress import Progress as Bars
from rich.progress import TaskID

from contract.events import Phase, Progress
from fleet.cli.terminal import Terminal

_SHOWN = 12
"""Characters of a digest, as servers themselves show it."""


class ProgressBars:
    """The bars; none is drawn before there is something to tell."""

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
        bars = self._drawn(self._terminal.downloading)
        name = progress.digest.rpartition(":")[2][:_SHOWN]
        if progress.overall_total_bytes:
            overall = progress.overall_completed_bytes
            self._move(bars, "total", overall, progress.overall_total_bytes)
        self._move(bars, name, progress.completed_bytes, progress.total_bytes)
        return True

    def enter(self, phase: Phase) -> bool:
        """Draw how far the way to the answer is; False if that is not known, or behind us."""
        if phase.progress is None or phase.phase == "generating":  # the answer has a bar itself
            return False
        self._move(self._drawn(self._terminal.nearing), phase.phase, phase.progress, 1.0)
        return True

    def _drawn(self, make: Callable[[], Bars]) -> Bars:
        if self._bars is None:
            self._bars = make()
            self._bars.start()
        return self._bars

    def _move(self, bars: Bars, name: str, completed: float | None, total: float) -> None:
        if name not in self._tasks:
            self._tasks[name] = bars.add_task(name, total=total)
        bars.update(self._tasks[name], total=total, completed=completed or 0)

    def close(self, *, is_whole: bool = False) -> None:
        """Stop drawing; a later layer begins new bars.

        `is_whole`: what they showed is there, also if nobody told of its last part.
        """
        if self._bars is not None:
            for task in self._bars.tasks if is_whole else ():
                self._bars.update(task.id, completed=task.total)
            self._bars.stop()
        self._bars, self._tasks = None, {}
