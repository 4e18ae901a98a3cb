"""Run windows: the times of the week at which jobs of a queue start. Pure.

A window is written `22:00-06:00 Europe/Berlin`, or `mon-fri 22:00-06:00 Europe/Berlin`, or
`sat,sun 00:00-24:00 UTC`. The days are those on which it opens; a window whose end is not after its
beginning ends on the next day. The clock is that of its time zone. Where the clocks skip an hour,
a time within that hour is as much later (02:30 is 03:30), as in RFC 5545; where they repeat one, a
window opens at the first of the two times and closes at the last. A queue with several windows
runs in each of them.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

MOST_WINDOWS: Final = 20
_HOUR: Final = 60
_DAY: Final = 24 * _HOUR
"""Both in minutes."""
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EXAMPLE: Final = "write it as in `22:00-06:00 Europe/Berlin` or `mon-fri 22:00-06:00 UTC`"
_WINDOW: Final = re.compile(
    r"(?:(?P<days>[a-z,-]+)\s+)?(?P<opens>\d\d:\d\d)-(?P<closes>\d\d:\d\d)\s+(?P<zone>\S{1,64})",
    re.IGNORECASE | re.ASCII,
)
_OF_THE_MACHINE: Final = "localtime"
"""A file of the database that is another zone on each machine."""
_DAYS_BACK: Final = 8
_DAYS_AHEAD: Final = 9
"""Days whose windows are looked at: the last opening and the next are at most a week away."""


class RunWindow(NamedTuple):
    """One window."""

    days: frozenset[int]
    """Days on which it opens; Monday is 0."""
    opens: int
    """Minutes after midnight."""
    closes: int
    """Minutes after midnight of the day on which it opens; more than a day's: of the next day."""
    zone: ZoneInfo


class WindowState(NamedTuple):
    """Whether any window is open, since when, and until when."""

    is_open: bool
    since: float | None
    """Unix seconds; None: for more than a week."""
    until: float | None
    """Unix seconds; None: it does not change within a week."""


def parsed(text: str) -> RunWindow:
    """Read a window; raises ValueError with what is wrong and a remedy."""
    match = _WINDOW.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:80]!r} is no run window: {_EXAMPLE}")
    opens, closes = _minutes(match["opens"]), _minutes(match["closes"])
    if opens in {closes, _DAY}:
        raise ValueError(f"{text[:80]!r} has no length: for whole days write 00:00-24:00")
    if closes < opens:
        closes += _DAY
    return RunWindow(_days(match["days"]), opens, closes, _zone(match["zone"]))


def _minutes(text: str) -> int:
    hours, minutes = int(text[:2]), int(text[3:])
    found = hours * _HOUR + minutes
    if minutes >= _HOUR or found > _DAY:
        raise ValueError(f"{text} is no time of day: 00:00 to 24:00")
    return found


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not {first, last} <= set(_DAYS):
            raise ValueError(f"{text[:80]!r} names no days: write them as in mon-fri or sat,sun")
        start, end = _DAYS.index(first), _DAYS.index(last)
        found.update(day % 7 for day in range(start, end + 1 + 7 * (end < start)))
    return frozenset(found)


def _zone(name: str) -> ZoneInfo:
    try:
        if name == _OF_THE_MACHINE:
            raise ValueError
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise ValueError(
            f"there is no time zone {name!r}: write a name of the IANA database, such as UTC or "
            "Europe/Berlin"
        ) from None


def state_at(windows: Iterable[RunWindow], at: float) -> WindowState:
    """Whether one of the windows is open at a time (unix seconds), and when that changes."""
    spans = _merged([span for window in windows for span in _spans(window, at)])
    closed_since: float | None = None
    for opens, closes in spans:
        if at < opens:
            return WindowState(is_open=False, since=closed_since, until=opens)
        if at < closes:
            is_last = closes == spans[-1][1]
            return WindowState(is_open=True, since=opens, until=None if is_last else closes)
        closed_since = closes
    return WindowState(is_open=False, since=closed_since, until=None)


def opening_after(windows: Sequence[RunWindow], at: float) -> float:
    """The first time from `at` on (unix seconds) at which a window is open."""
    state = state_at(windows, at)
    return at if state.is_open or state.until is None else state.until


def _spans(window: RunWindow, at: float) -> list[tuple[float, float]]:
    today = datetime.fromtimestamp(at, window.zone).date()
    days = (today + timedelta(days=offset) for offset in range(-_DAYS_BACK, _DAYS_AHEAD + 1))
    return [_span(window, day) for day in days if day.weekday() in window.days]


def _span(window: RunWindow, day: date) -> tuple[float, float]:
    return _instant(window, day, window.opens, fold=0), _instant(window, day, window.closes, fold=1)


def _instant(window: RunWindow, day: date, minutes: int, *, fold: int) -> float:
    """Unix seconds of a time on the clock of a zone; `fold`: which of two, if it comes twice."""
    whole, rest = divmod(minutes, _DAY)
    wall = datetime.combine(day + timedelta(days=whole), time(rest // _HOUR, rest % _HOUR))
    times = [wall.replace(tzinfo=window.zone, fold=f).astimezone(UTC).timestamp() for f in (0, 1)]
    # The first is the later one only where the clocks skip this time.
    return times[fold] if times[0] <= times[1] else times[0]


def _merged(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans that touch or overlap are one."""
    merged: list[tuple[float, float]] = []
    for opens, closes in sorted(spans):
        if merged and opens <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(closes, merged[-1][1])
        elif opens < closes:
            merged.append((opens, closes))
    return merged


@lru_cache(maxsize=256)
def parsed_all(texts: tuple[str, ...]) -> tuple[RunWindow, ...]:
    """Read windows; raises ValueError."""
    return tuple(parsed(text) for text in texts)
