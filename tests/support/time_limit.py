"""The time limit of a test, also while an event loop runs.

pytest-timeout raises in its handler of SIGALRM. While a loop waits, uvloop runs that handler in one
of its own callbacks, and any loop logs what a callback raises and goes on, for ever: only
SystemExit and KeyboardInterrupt leave a loop (uvloop's cbhandles.pyx, asyncio's Handle._run). So
what is raised here is a failure of pytest that is a SystemExit, too. Cancelling the test's task
would not do: what hangs may be the code that swallows a cancellation.
"""

import asyncio
import io
import signal
from types import FrameType

import pytest

AGAIN_S = 10.0
"""So long a test may take to clean up after its time limit until it is interrupted again."""

FRAMES = 12
"""Of each task are shown."""


class TimeLimitReached(pytest.fail.Exception, SystemExit):
    """A failed test; as a SystemExit it ends the loop that runs."""


def harden(item: pytest.Item) -> None:
    """Have the handler that pytest-timeout has set leave loops, and ring until the test ends."""
    ring = signal.getsignal(signal.SIGALRM)
    if not callable(ring):
        return  # another method than the signal

    def handler(number: int, frame: FrameType | None) -> None:
        __tracebackhide__ = True
        try:
            ring(number, frame)  # returns if somebody is debugging
        except pytest.fail.Exception as failure:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
            item.add_report_section("call", "tasks", _stacks())
            raise TimeLimitReached(str(failure)) from None

    signal.signal(signal.SIGALRM, handler)


def disarm(call: pytest.CallInfo[None]) -> None:
    """Ring no more once it is known that the limit was reached: the report takes its time."""
    if call.excinfo is not None and call.excinfo.errisinstance(TimeLimitReached):
        signal.setitimer(signal.ITIMER_REAL, 0)


def _stacks() -> str:
    """Where each task of the running loop stands."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return "no loop runs"
    text = io.StringIO()
    for task in tasks:
        task.print_stack(limit=FRAMES, file=text)
    return text.getvalue()
