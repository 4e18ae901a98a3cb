"""The trace that the current task works for, in W3C's form; it costs nothing without one.

https://www.w3.org/TR/trace-context/ : `traceparent` names trace and span, `tracestate` is other
systems' own. A job's record carries both, so that worker and shim are parts of one trace.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, NamedTuple, TypeGuard

_TRACEPARENT: Final = re.compile(
    r"^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$"
)
_LONGEST_STATE: Final = 512
"""Characters of `tracestate` that must be passed on, by the specification."""


class TraceContext(NamedTuple):
    """A span of a trace, as the parent of others."""

    traceparent: str
    tracestate: str | None = None

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return self.traceparent[3:35]


_current: ContextVar[TraceContext | None] = ContextVar("fleet_trace", default=None)


def context_of(traceparent: object, tracestate: object = None) -> TraceContext | None:
    """The context that a client sends; None if it sends none, or one that is not valid."""
    if not isinstance(traceparent, str) or not _TRACEPARENT.fullmatch(traceparent):
        return None
    # A version that is not known here may have more parts, and one that is may not.
    if traceparent.startswith("00") and len(traceparent) > len("00--01-") + 32 + 16:
        return None
    return TraceContext(traceparent, tracestate if _is_state(tracestate) else None)


def _is_state(text: object) -> TypeGuard[str]:
    if not isinstance(text, str) or not 0 < len(text) <= _LONGEST_STATE:
        return False
    return text.isascii() and text.isprintable()


def current_trace() -> TraceContext | None:
    """The context of the current task."""
    return _current.get()


@contextmanager
def working_for(trace: TraceContext | None) -> Iterator[None]:
    """Work for a trace, or for none, inside this context."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)
