"""A circuit breaker: no jobs for an endpoint that is out of order, and one to see if it is back.

Closed, it lets everything through and counts failures in a row. After `failures` of them it is
open for `open_s` seconds, twice as long each time up to `OPEN_MOST_S`, and lets nothing through.
Then somebody calls `probe` (the worker, once it has looked at the endpoint): half-open, it lets one
job through, whose outcome closes or opens it. Time alone never half-opens it, so an endpoint that
the worker's own look finds down costs no job an attempt.

Who goes through gets a Passage. One that was given before the breaker last changed says nothing of
what the endpoint is like now, so its outcome is not counted. Pure: the clock is given.
"""

from collections.abc import Callable
from typing import Final

from contract.backend_errors import (
    BackendError,
    BackendStalled,
    BackendUnreachable,
    ModelLoading,
    ServerFault,
    TruncatedStream,
)

OUTAGES: Final = (BackendUnreachable, ModelLoading, ServerFault)
"""Errors that say that an endpoint is out of order."""
UNDECIDED: Final = (TruncatedStream, BackendStalled)
"""Errors that say neither that it is well nor that it is not: it answered, for a while."""
OPEN_MOST_S: Final = 60.0


class Passage:
    """Leave to use the endpoint once; the first of the three outcomes ends it."""

    __slots__ = ("_breaker", "_generation", "_is_over")

    def __init__(self, breaker: "Breaker", generation: int) -> None:
        """Made by `Breaker.enter`."""
        self._breaker = breaker
        self._generation = generation
        self._is_over = False

    def answered(self) -> None:
        """The endpoint works: it began to answer, or said what is wrong with the request."""
        if self._ends():
            self._breaker.succeeded()

    def broke(self, error: BackendError) -> None:
        """The endpoint answered with an error."""
        if isinstance(error, OUTAGES):
            if self._ends():
                self._breaker.failed(error)
        elif isinstance(error, UNDECIDED):
            self.left()
        else:
            self.answered()

    def left(self) -> None:
        """Nothing was learned: the job was cancelled, or taken away."""
        if self._ends():
            self._breaker.undecided()

    def _ends(self) -> bool:
        was_over, self._is_over = self._is_over, True
        return not was_over and self._generation == self._breaker.generation


class Breaker:
    """The breaker of one endpoint; `on_change` is called after each change of state."""

    def __init__(
        self,
        *,
        failures: int,
        open_s: float,
        clock: Callable[[], float],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin closed; `clock` is in seconds and never goes back."""
        self.generation = 0
        self.open_until: float | None = None
        """By the clock; None while it is closed or half-open."""
        self._most = failures
        self._open_s = open_s
        self._clock = clock
        self._on_change = on_change
        self._failures = 0
        self._openings = 0
        self._is_half_open = False
        self._is_tried = False
        self._is_found_broken = False
        self._error: BackendError | None = None

    @property
    def admits(self) -> bool:
        """Whether one more job may go through now."""
        return self.open_until is None and not (self._is_half_open and self._is_tried)

    @property
    def is_due(self) -> bool:
        """Whether it was open for long enough: look at the endpoint, then call `probe`."""
        return self.open_until is not None and self._clock() >= self.open_until

    def enter(self) -> Passage:
        """Go through; call it only while it `admits`, or knowing that nobody else can help."""
        if self._is_half_open and not self._is_tried:
            self._is_tried = True
            self._on_change()
        return Passage(self, self.generation)

    def probe(self) -> None:
        """The endpoint was looked at, and looks well: let one job through, if it is time."""
        if self.is_due:
            self._change(open_until=None, is_half_open=True)

    def found_well(self) -> None:
        """The endpoint was looked at and answered.

        That closes what a look has opened. Where jobs could not reach it, one may try at once;
        where it failed them otherwise, a look proves nothing and the time must pass.
        """
        if self.open_until is None:
            return
        if self._is_found_broken:
            self.succeeded()
        elif isinstance(self._error, BackendUnreachable):
            self._change(open_until=None, is_half_open=True)
        else:
            self.probe()

    def found_broken(self, error: BackendError) -> None:
        """The endpoint was looked at; what keeps it from answering at all opens the breaker."""
        is_out = isinstance(error, (BackendUnreachable, ModelLoading))
        if is_out and (self.open_until is None or self.is_due):
            self._open(error)
            self._is_found_broken = True
        else:
            self.probe()

    def succeeded(self) -> None:
        """Close it."""
        self._failures = self._openings = 0
        self._error = None
        if self._is_half_open or self.open_until is not None:
            self._change(open_until=None, is_half_open=False)

    def failed(self, error: BackendError) -> None:
        """Count a failure; open it if that was one too many, or the trial."""
        self._failures += 1
        if self._is_half_open or self._failures >= self._most:
            self._open(error)

    def undecided(self) -> None:
        """The trial told nothing: the next job is one, too."""
        if self._is_tried:
            self._is_tried = False
            self._on_change()

    def _open(self, error: BackendError) -> None:
        self._error, self._is_found_broken = error, False
        wait_s = min(OPEN_MOST_S, self._open_s * 2 ** min(self._openings, 16))
        self._openings += 1
        self._change(open_until=self._clock() + wait_s, is_half_open=False)

    def _change(self, *, open_until: float | None, is_half_open: bool) -> None:
        self.generation += 1
        self.open_until, self._is_half_open, self._is_tried = open_until, is_half_open, False
        self._on_change()
