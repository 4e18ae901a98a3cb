"""Times as people say them: how long ago, in how long. Pure."""

from typing import Final

_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def span(seconds: float) -> str:
    """A length of time in its largest unit, as in `45s`, `3m`, `2h`, `12d`."""
    whole = int(max(seconds, 0))
    unit, size = next(((u, s) for u, s in _UNITS if whole >= s), ("s", 1))
    return f"{whole // size}{unit}"


def ago(at: float, now: float) -> str:
    """A point in time (unix seconds) seen from another, as in `3m ago` or `in 12d`."""
    return f"{span(now - at)} ago" if at <= now else f"in {span(at - now)}"
