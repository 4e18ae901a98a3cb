"""Progress bars for a job: one for each layer of a download, or one for a phase."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.progress import Progress as Bars
from rich.progress import TaskID

from contract.events import Phase, Progress
from fleet.cli.terminal import Terminal
from fleet.visible import visible

_DIGEST_LENGTH = 12
"""Characters of a digest that are shown, as Ollama does."""


class ProgressBars:
    """The bars of one job; nothing is drawn before the first progress."""

    def __init__(self, terminal: Terminal) -> None:
        """Draw on this terminal."""
        self._terminal = terminal
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Return the bars."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing; the bars keep their last state."""
        self.close()

    def add(self, progress: Progress) -> bool:
        """Update the bar of a layer; False if the event is not about a layer."""
        if not (progress.digest and progress.total_bytes):
            return False
        bars = self._started(self._terminal.bytes_bar)
        name = progress.digest.rpartition(":")[2][:_DIGEST_LENGTH]
        if progress.overall_total_bytes:
            overall = progress.overall_completed_bytes
            self._move(bars, "total", overall, progress.overall_total_bytes)
        self._move(bars, name, progress.completed_bytes, progress.total_bytes)
        return True

    def enter(self, phase: Phase) -> bool:
        """Update the bar of a phase before the answer; False if its progress is unknown."""
        if phase.progress is None or phase.phase == "generating":
            return False
        self._move(self._started(self._terminal.share_bar), phase.phase, phase.progress, 1.0)
        return True

    def _started(self, make: Callable[[], Bars]) -> Bars:
        if self._bars is None:
            self._bars = make()
            self._bars.start()
        return self._bars

    def _move(self, bars: Bars, name: str, completed: float | None, total: float) -> None:
        if name not in self._tasks:
            self._tasks[name] = bars.add_task(visible(name), total=total)
        bars.update(self._tasks[name], total=total, completed=completed or 0)

    def close(self, *, is_complete: bool = False) -> None:
        """Stop drawing; later progress starts new bars.

        `is_complete`: show 100 %, also if the last progress event said less.
        """
        if self._bars is not None:
            for task in self._bars.tasks if is_complete else ():
                self._bars.update(task.id, completed=task.total)
            self._bars.stop()
        self._bars, self._tasks = None, {}
