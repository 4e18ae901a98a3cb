"""A circuit breaker: no jobs for what fails, and one probe or trial job to find out if it works.

Closed, it admits every job and counts failures in a row. After `failures` of them it is open for
`open_s` seconds, twice as long each time up to `OPEN_MOST_S`, and admits none.

There are two kinds, which differ in what they count and in how they close. That of an *endpoint*
counts only that the server cannot be reached, and closes when the worker's probe (probe.py) is
answered: no job loses an attempt, and a failing model does not open it. That of a *model at an
endpoint* (model_circuits.py) counts how the server answered the model's jobs. When it is due,
`half_open_if_due` admits one job, whose outcome closes or opens it.

A job that is admitted gets a Permit. The outcome of a permit from before the breaker's last change
is not counted. Pure: the clock is an argument.
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
"""Errors that decide nothing: the server answered for a while."""

Verdict = Callable[[BackendError], bool | None]
"""Returns whether what answered with this error works; None if the error decides nothing."""


def endpoint_works(error: BackendError) -> bool | None:
    """The verdict for an endpoint: it works if it answered at all."""
    if isinstance(error, _INTERRUPTED):
        return None
    return error.scope != "endpoint"


def model_works(error: BackendError) -> bool | None:
    """The verdict for a model: it fails, unless the error is about the request."""
    return None if error.scope == "request" else False


class Permit:
    """The admission of one job; the first of its three outcomes ends it."""

    __slots__ = ("_breaker", "_generation", "_is_over")

    def __init__(self, breaker: "CircuitBreaker", generation: int) -> None:
        """Made by `CircuitBreaker.enter`."""
        self._breaker = breaker
        self._generation = generation
        self._is_over = False

    def answered(self) -> None:
        """Record that the answer began."""
        if self._ends():
            self._breaker.succeeded()

    def failed(self, error: BackendError) -> None:
        """Record that the answer was an error."""
        works = self._breaker.verdict(error)
        if works is None:
            self.dropped()
        elif works:
            self.answered()
        elif self._ends():
            self._breaker.failed(error)

    def dropped(self) -> None:
        """Record that the job ended without an outcome: cancelled, or lost."""
        if self._ends():
            self._breaker.undecided()

    def _ends(self) -> bool:
        was_over, self._is_over = self._is_over, True
        return not was_over and self._generation == self._breaker.generation


class CircuitBreaker:
    """The breaker of one endpoint or model."""

    def __init__(
        self,
        *,
        failures: int,
        open_s: float,
        clock: Callable[[], float],
        on_change: Callable[[], None] = lambda: None,
        verdict: Verdict = endpoint_works,
    ) -> None:
        """Start closed.

        `failures` in a row open it for `open_s` seconds; `clock` returns monotonic seconds;
        `on_change` is called after each change of state.
        """
        self.on_failure: Callable[[], object] = lambda: None
        """Called after each failure: from then on it is not `is_at_rest` for a while."""
        self.generation = 0
        self.open_until: float | None = None
        """Seconds of the clock; None while it is closed or half-open."""
        self.verdict = verdict
        self.is_half_open = False
        self._limit = failures
        self._open_s = open_s
        self._clock = clock
        self._on_change = on_change
        self._failures = 0
        self._openings = 0
        self._has_trial = False
        self._is_probed = True
        self._error: BackendError | None = None

    @property
    def admits(self) -> bool:
        """Whether one more job may enter now."""
        return self.open_until is None and not (self.is_half_open and self._has_trial)

    @property
    def is_due(self) -> bool:
        """Whether it has been open for long enough: probe the endpoint, or admit a trial job."""
        return self.open_until is not None and self._clock() >= self.open_until

    @property
    def probe_at(self) -> float | None:
        """When to probe the endpoint, by the clock: now, if only jobs found that it is down."""
        return self.open_until if self._is_probed else self._clock()

    @property
    def is_at_rest(self) -> bool:
        """Whether it is closed and has counted no failure."""
        return self.open_until is None and not self.is_half_open and not self._failures

    @property
    def was_unreachable(self) -> bool:
        """Whether it is open because the server could not be reached."""
        return self.open_until is not None and isinstance(self._error, BackendUnreachable)

    def enter(self) -> Permit:
        """Admit one job; call it while it `admits`, or if there is no other endpoint."""
        if self.is_half_open and not self._has_trial:
            self._has_trial = True
            self._on_change()
        return Permit(self, self.generation)

    def half_open_if_due(self) -> None:
        """Admit one trial job, if it is due."""
        if self.is_due:
            self.half_open()

    def half_open(self) -> None:
        """Admit one trial job."""
        if self.open_until is not None:
            self._change(open_until=None, is_half_open=True)

    def probe_succeeded(self) -> None:
        """Close it: a probe of the endpoint was answered."""
        if self.open_until is not None:
            self.succeeded()

    def probe_failed(self, error: BackendError) -> None:
        """Open it if the error of a probe means that the server cannot answer; else close it."""
        if not isinstance(error, (BackendUnreachable, ModelLoading)):
            self.probe_succeeded()
            return
        if self.open_until is None or self.is_due:
            self._open(error)
        self._is_probed = True

    def succeeded(self) -> None:
        """Close it, and forget all failures."""
        self._failures = self._openings = 0
        self._error = None
        if self.is_half_open or self.open_until is not None:
            self._change(open_until=None, is_half_open=False)

    def failed(self, error: BackendError) -> None:
        """Count a failure; open it at the limit, or if it was the trial."""
        self._failures += 1
        self.on_failure()
        if self.is_half_open or self._failures >= self._limit:
            self._open(error)

    def undecided(self) -> None:
        """Let the next job be the trial: this one had no outcome."""
        if self._has_trial:
            self._has_trial = False
            self._on_change()

    def _open(self, error: BackendError) -> None:
        self._error, self._is_probed = error, False
        wait_s = min(OPEN_MOST_S, self._open_s * 2 ** min(self._openings, 16))
        self._openings += 1
        self._change(open_until=self._clock() + wait_s, is_half_open=False)

    def _change(self, *, open_until: float | None, is_half_open: bool) -> None:
        self.generation += 1
        self.open_until, self.is_half_open, self._has_trial = open_until, is_half_open, False
        self._on_change()
