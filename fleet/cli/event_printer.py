"""A job's events as a person reads them: words on stdout, what happens around them on stderr."""

from contextlib import aclosing

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
from fleet.client.job import AsyncJob
from fleet.client.results import demand_done


class EventPrinter:
    """Shows frames one after another; `result` is the answer so far."""

    def __init__(self, terminal: Terminal) -> None:
        """Nothing shown yet."""
        self._terminal = terminal
        self._fold = Fold()
        self._thinks = False
        self._open_line = False
        self._told = ""
        self._layers = ProgressBars(terminal)

    @property
    def result(self) -> Result:
        """What the events say so far."""
        return self._fold.result

    def add(self, frame: Frame) -> None:
        """Show the next frame; raises AnswerRestarted where words cannot be taken back."""
        had_output = self._fold.has_output
        event = frame.event
        self._fold.add(event)
        if self._terminal.json:
            self._terminal.line(frame.body)
        elif isinstance(event, Delta):
            self._delta(event)
        elif isinstance(event, Reset) and had_output:
            self._restart(event)
        else:
            self._around(event)

    def _around(self, event: AnyEvent) -> None:
        match event:
            case Queued(position=int(position)) if position > 1:
                wait = f", about {event.eta_s:.0f} s" if event.eta_s else ""
                self._once(f"waiting in {event.queue}: number {position}{wait}")
            case Phase():
                if not self._layers.enter(event):
                    self._once(f"{event.phase} ...")
            case Progress():
                if not self._layers.add(event):
                    self._once(event.status)
            case Resumed():
                self._aside(f"[attempt {event.attempt} goes on: {event.reason}]")
            case Done() | Failed():
                self.end(is_whole=isinstance(event, Done))
            case _:
                pass

    def _delta(self, delta: Delta) -> None:
        self._layers.close(is_whole=True)
        if delta.thinking:
            self._thinks = True
            self._terminal.talk.print(
                delta.thinking, style="dim italic", end="", highlight=False, markup=False
            )
        words = (delta.content or "") + (delta.refusal or "")
        if words:
            if self._thinks:
                self._terminal.talk.print()
                self._thinks = False
            self._terminal.words(words)
            self._open_line = not words.endswith("\n")

    def _restart(self, reset: Reset) -> None:
        if not self._terminal.is_interactive:
            raise AnswerRestarted(
                f"the answer started over ({reset.reason}) and its first words are written "
                "already: run it again, or use --json to get every event"
            )
        self._aside(f"[attempt {reset.attempt} starts over: {reset.reason}]")

    def _once(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._aside(text)

    def _aside(self, text: str) -> None:
        self.end()
        self._terminal.say(text)

    def end(self, *, is_whole: bool = False) -> None:
        """Finish the line of words and the bars, if any are open."""
        self._layers.close(is_whole=is_whole)
        if self._open_line:
            self._terminal.words("\n")
            self._open_line = False


async def followed(job: AsyncJob, terminal: Terminal, after: EventId = BEGINNING) -> Result:
    """Show a job to its end, from a cursor on; raises JobEnded when it does not end well."""
    shown = EventPrinter(terminal)
    try:
        async with aclosing(job.frames(after)) as frames:
            async for frame in frames:
                shown.add(frame)
    finally:
        shown.end()
    demand_done(job.id, shown.result)
    return shown.result
