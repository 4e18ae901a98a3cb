"""A circuit breaker: no jobs for what is out of order, and one look or job to see if it is back.

Closed, it lets everything through and counts failures in a row. After `failures` of them it is
open for `open_s` seconds, twice as long each time up to `OPEN_MOST_S`, and lets nothing through.

There are two kinds, which differ in what they count and in how they close. That of an *endpoint*
counts only that nobody is there, and closes when the worker's own look at it (probe.py) is
answered: it costs no job an attempt, and no model's trouble opens it. That of a *model at an
endpoint* (model_circuits.py) counts what the server answered to its jobs, and when it has been
open for
long enough `probe` half-opens it: one job goes through, whose outcome closes or opens it.

Who goes through gets a Passage. One that was given before the breaker last changed says nothing of
what is true now, so its outcome is not counted. Pure: the clock is given.
"""

from collections.abc import Callable
from typing import Final

from contract.errors import (
    BackendError,
    BackendStalled,
    BackendUnreachable,
    ModelLoading,
    TruncatedStream,
)

OPEN_MOST_S: Final = 60.0
_INTERRUPTED: Final = (TruncatedStream, BackendStalled)
"""Errors that say neither that it is well nor that it is not: it answered, for a while."""

Verdict = Callable[[BackendError], bool | None]
"""Whether what answered so works; None if that says nothing."""


def endpoint_works(error: BackendError) -> bool | None:
    """An endpoint that answered is there, whatever it answered."""
    if isinstance(error, _INTERRUPTED):
        return None
    return error.scope != "endpoint"


def model_works(error: BackendError) -> bool | None:
    """A model is known to work by its answers only; an error about a request says nothing."""
    return None if error.scope == "request" else False


class Permit:
    """Leave to go through once; the first of the three outcomes ends it."""

    __slots__ = ("_breaker", "_generation", "_is_over")

    def __init__(self, breaker: "CircuitBreaker", generation: int) -> None:
        """Made by `Breaker.enter`."""
        self._breaker = breaker
        self._generation = generation
        self._is_over = False

    def answered(self) -> None:
        """It works: it began to answer."""
        if self._ends():
            self._breaker.succeeded()

    def failed(self, error: BackendError) -> None:
        """The answer was an error."""
        works = self._breaker.verdict(error)
        if works is None:
            self.dropped()
        elif works:
            self.answered()
        elif self._ends():
            self._breaker.failed(error)

    def dropped(self) -> None:
        """Nothing was learned: the job was cancelled, or taken away."""
        if self._ends():
            self._breaker.undecided()

    def _ends(self) -> bool:
        was_over, self._is_over = self._is_over, True
        return not was_over and self._generation == self._breaker.generation


class CircuitBreaker:
    """The breaker of one endpoint or model; `on_change` is called after each change of state."""

    def __init__(
        self,
        *,
        failures: int,
        open_s: float,
        clock: Callable[[], float],
        on_change: Callable[[], None] = lambda: None,
        verdict: Verdict = endpoint_works,
    ) -> None:
        """Begin closed; `clock` is in seconds and never goes back."""
        self.generation = 0
        self.open_until: float | None = None
        """By the clock; None while it is closed or half-open."""
        self.verdict = verdict
        self.is_half_open = False
        self._most = failures
        self._open_s = open_s
        self._clock = clock
        self._on_change = on_change
        self._failures = 0
        self._openings = 0
        self._is_tried = False
        self._is_probed = True
        self._error: BackendError | None = None

    @property
    def admits(self) -> bool:
        """Whether one more job may go through now."""
        return self.open_until is None and not (self.is_half_open and self._is_tried)

    @property
    def is_due(self) -> bool:
        """Whether it was open for long enough: look at the endpoint, or call `probe`."""
        return self.open_until is not None and self._clock() >= self.open_until

    @property
    def probe_at(self) -> float | None:
        """When to look at the endpoint, by the clock: at once if only jobs found it gone."""
        return self.open_until if self._is_probed else self._clock()

    @property
    def is_at_rest(self) -> bool:
        """Whether it remembers nothing."""
        return self.open_until is None and not self.is_half_open and not self._failures

    @property
    def was_unreachable(self) -> bool:
        """Whether it is open because nobody was there."""
        return self.open_until is not None and isinstance(self._error, BackendUnreachable)

    def enter(self) -> Permit:
        """Go through; call it only while it `admits`, or knowing that nobody else can help."""
        if self.is_half_open and not self._is_tried:
            self._is_tried = True
            self._on_change()
        return Permit(self, self.generation)

    def half_open_if_due(self) -> None:
        """Let one job through, if it is time."""
        if self.is_due:
            self.half_open()

    def half_open(self) -> None:
        """Let one job through."""
        if self.open_until is not None:
            self._change(open_until=None, is_half_open=True)

    def probe_succeeded(self) -> None:
        """The endpoint was looked at and answered: that is all it takes to be there."""
        if self.open_until is not None:
            self.succeeded()

    def probe_failed(self, error: BackendError) -> None:
        """The endpoint was looked at; what keeps it from answering at all opens the breaker."""
        if not isinstance(error, (BackendUnreachable, ModelLoading)):
            self.probe_succeeded()
            return
        if self.open_until is None or self.is_due:
            self._open(error)
        self._is_probed = True

    def succeeded(self) -> None:
        """Close it."""
        self._failures = self._openings = 0
        self._error = None
        if self.is_half_open or self.open_until is not None:
            self._change(open_until=None, is_half_open=False)

    def failed(self, error: BackendError) -> None:
        """Count a failure; open it if that was one too many, or the trial."""
        self._failures += 1
        if self.is_half_open or self._failures >= self._most:
            self._open(error)

    def undecided(self) -> None:
        """The trial told nothing: the next job is one, too."""
        if self._is_tried:
            self._is_tried = False
            self._on_change()

    def _open(self, error: BackendError) -> None:
        self._error, self._is_probed = error, False
        wait_s = min(OPEN_MOST_S, self._open_s * 2 ** min(self._openings, 16))
        self._openings += 1
        self._change(open_until=self._clock() + wait_s, is_half_open=False)

    def _change(self, *, open_until: float | None, is_half_open: bool) -> None:
        self.generation += 1
        self.open_until, self.is_half_open, self._is_tried = open_until, is_half_open, False
        self._on_change()
