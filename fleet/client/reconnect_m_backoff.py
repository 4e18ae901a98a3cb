"""How long to wait before trying again: doubling pauses, up to a bound. No clock, no sleeping."""

import random
from collections.abc import Callable


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
        """It worked: the next failure is the first again."""
        self._failures = 0


def jitter(pause_s: float) -> float:
    """Anything from nothing to the whole pause, so that a crowd does not come back as one."""
    return random.uniform(0, pause_s)  # noqa: S311 - spreads load, guards nothing
