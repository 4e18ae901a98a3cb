"""Prints a job's events: its text on stdout, all others as messages on stderr."""

from contextlib import aclosing

from rich.text import Text

from contract.events import (
    BEGINNING,
    AnyEvent,
    Delta,
    Done,
    EventId,
    Failed,
    Frame,
    Phase,
    Progress,
    Queued,
    Reset,
    Resumed,
)
from contract.result import Fold, Result
from fleet.cli.progress_bars import ProgressBars
from fleet.cli.terminal import Terminal
from fleet.client.errors import AnswerRestarted
from fleet.client.job import AsyncJob, raise_job_ended
from fleet.visible import visible


class EventPrinter:
    """Prints frames one after another; `result` is the answer so far."""

    def __init__(self, terminal: Terminal) -> None:
        """Print to this terminal."""
        self._terminal = terminal
        self._fold = Fold()
        self._is_thinking = False
        self._has_open_line = False
        self._last_message = ""
        self._bars = ProgressBars(terminal)

    @property
    def result(self) -> Result:
        """The result so far."""
        return self._fold.result

    def add(self, frame: Frame) -> None:
        """Print the next frame; raises AnswerRestarted if text is out already that is void now."""
        had_output = self._fold.has_output
        event = frame.event
        self._fold.add(event)
        if self._terminal.json:
            self._terminal.write_json(frame.body)
        elif isinstance(event, Delta):
            self._delta(event)
        elif isinstance(event, Reset) and had_output:
            self._restart(event)
        else:
            self._print_other(event)

    def _print_other(self, event: AnyEvent) -> None:
        match event:
            case Queued(position=int(position)) if position > 1:
                wait = f", about {event.eta_s:.0f} s" if event.eta_s else ""
                self._message_once(f"waiting in {event.queue}: number {position}{wait}")
            case Phase():
                if not self._bars.enter(event):
                    self._message_once(f"{event.phase} ...")
            case Progress():
                if not self._bars.add(event):
                    self._message_once(event.status)
            case Resumed():
                self._message(f"[attempt {event.attempt} continues: {event.reason}]")
            case Done() | Failed():
                self.end(is_complete=isinstance(event, Done))
            case _:
                pass

    def _delta(self, delta: Delta) -> None:
        self._bars.close(is_complete=True)
        if delta.thinking:
            self._is_thinking = True
            text = delta.thinking if self._terminal.raw else visible(delta.thinking)
            self._terminal.stderr.print(Text(text), style="dim italic", end="")
        text = (delta.content or "") + (delta.refusal or "")
        if text:
            if self._is_thinking:
                self._terminal.stderr.print()
                self._is_thinking = False
            self._terminal.write(text)
            self._has_open_line = not text.endswith("\n")

    def _restart(self, reset: Reset) -> None:
        if not self._terminal.is_interactive:
            raise AnswerRestarted(
                f"the answer was restarted ({reset.reason}) after part of it had been printed: "
                "run it again, or use --json to get every event"
            )
        self._message(f"[attempt {reset.attempt} restarts the answer: {reset.reason}]")

    def _message_once(self, text: str) -> None:
        if text != self._last_message:
            self._last_message = text
            self._message(text)

    def _message(self, text: str) -> None:
        self.end()
        self._terminal.message(text)

    def end(self, *, is_complete: bool = False) -> None:
        """End an open line of text and open bars, which show 100 % if `is_complete`."""
        self._bars.close(is_complete=is_complete)
        if self._has_open_line:
            self._terminal.write("\n")
            self._has_open_line = False


async def print_events(job: AsyncJob, terminal: Terminal, after: EventId = BEGINNING) -> Result:
    """Print a job's events after `after` up to its end; raises JobEnded unless it is done."""
    printer = EventPrinter(terminal)
    try:
        async with aclosing(job.frames(after)) as frames:
            async for frame in frames:
                printer.add(frame)
    finally:
        printer.end()
    raise_job_ended(job.id, printer.result)
    return printer.result
