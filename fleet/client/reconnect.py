"""The position of a subscriber in a job's log, and how long it retries. Pure.

Invariant: no event is returned twice, and none after one with a greater id.
"""

from collections.abc import Callable, Iterable
from random import SystemRandom
from typing import Final

from contract.errors import FleetError
from contract.events import (
    BEGINNING,
    Cursor,
    EventId,
    Frame,
    Started,
)
from fleet.client.errors import FleetUnreachable


class Backoff:
    """Pauses that double from `first_s` to `most_s`; `spread` turns a pause into a random one."""

    def __init__(
        self, first_s: float, most_s: float, spread: Callable[[float], float] = lambda s: s
    ) -> None:
        """Start at the first pause."""
        self._first_s = first_s
        self._most_s = most_s
        self._spread = spread
        self._failures = 0

    def pause_s(self) -> float:
        """Seconds to wait after one more failure in a row."""
        pause = min(self._most_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return self._spread(pause)

    def reset(self) -> None:
        """Start again at the first pause, after a success."""
        self._failures = 0


_DICE: Final = SystemRandom()
"""Not `random` itself: a program that seeds it would reconnect at the same times everywhere."""


def jitter(pause_s: float) -> float:
    """A random time up to `pause_s`, so that many clients do not reconnect at once."""
    return _DICE.uniform(0, pause_s)


_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 3.0


class RetryTimer:
    """Pauses between retries; ends them when there was no response for `give_up_s`."""

    def __init__(self, give_up_s: float, clock: Callable[[], float]) -> None:
        """Start now."""
        self._give_up_s = give_up_s
        self._clock = clock
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, jitter)
        self._last_response_at = clock()

    def reset(self) -> None:
        """Start again at the first pause, after a response."""
        self._last_response_at = self._clock()
        self._backoff.reset()

    def pause_s(self, why: Exception, where: str, *, at_least_s: float = 0.0) -> float:
        """Seconds to wait before the next try.

        After `give_up_s` it raises `why` if that is a FleetError, else FleetUnreachable.
        """
        pause = max(at_least_s, self._backoff.pause_s())
        silent_s = self._clock() - self._last_response_at
        if silent_s + pause <= self._give_up_s:
            return pause
        if isinstance(why, FleetError):
            raise why
        reason = str(why) or type(why).__name__
        raise FleetUnreachable(
            f"no response from {where} for {silent_s:.0f} s ({reason}): is `fleet up` running?"
        ) from why


class FollowState:
    """The position of one subscriber in a job's log."""

    def __init__(self, after: EventId = BEGINNING) -> None:
        """Start behind the event `after`."""
        self.last = after
        self.ended = False
        self._nonce: str | None = None

    @property
    def cursor(self) -> Cursor:
        """The cursor from which to reconnect."""
        return Cursor(self.last, self._nonce)

    def new_frames(self, frames: Iterable[Frame]) -> list[Frame]:
        """The frames after the position, which moves behind them; those without an id are new."""
        found = []
        for frame in frames:
            if self.ended or (frame.id is not None and frame.id <= self.last):
                continue
            self._advance(frame)
            found.append(frame)
        return found

    def _advance(self, frame: Frame) -> None:
        self.ended = frame.is_last
        self.last = frame.id or self.last
        if frame.type == "log_reset":
            # The shim sends the log again from its beginning.
            self.last, self._nonce = BEGINNING, None
        elif frame.type == "started" and isinstance(event := frame.event, Started):
            self._nonce = event.nonce
