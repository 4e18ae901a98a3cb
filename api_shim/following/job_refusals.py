"""The error response of a drop-in surface for a job that has not ended as `done`.

Text that was sent cannot be taken back: an attempt that starts over is an error for a client that
has received some.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from api_shim.http.problems import Refusal, status_of
from contract.errors import (
    AuthenticationRefused,
    BackendBusy,
    BackendError,
    BackendRejected,
    BackendStalled,
    ContextExceeded,
    DeadlineExceeded,
    DiskFull,
    FleetError,
    InputTooLarge,
    ModelLoading,
    ModelMissing,
    NotSupported,
    QuotaExhausted,
    Refused,
    WorkerLost,
)
from contract.events import Cancelled, Event, Failed, Frame, Reset

_STATUS: Final[Mapping[type[FleetError], int]] = {
    ModelMissing: 404,
    ContextExceeded: 400,
    InputTooLarge: 400,
    NotSupported: 400,
    BackendRejected: 400,
    Refused: 400,
    QuotaExhausted: 429,
    BackendBusy: 503,
    ModelLoading: 503,
    BackendStalled: 504,
    DiskFull: 507,
    AuthenticationRefused: 502,
    BackendError: 502,
    DeadlineExceeded: 504,
    WorkerLost: 503,
}
"""HTTP status of each error of a job; a class that is not here has its parent's, in the end that of
api_shim/http/problems.py.
"""

_BUSY_AFTER_S: Final = 10.0
"""Retry-After of a backend that is busy and names no time."""
ANSWER_RESTARTED: Final = "answer_restarted"
"""Error code of a stream that ends because an attempt started over."""
RESTARTS: Final = frozenset({"reset", "log_reset"})
"""Types of events that invalidate the text before them."""
FAILURES: Final = frozenset({"failed", "cancelled"}) | RESTARTS
"""Types of events that end a stream of text with an error."""


def _classes(root: type[FleetError]) -> Iterator[type[FleetError]]:
    yield root
    for child in root.__subclasses__():
        yield from _classes(child)


_CLASSES: Final = {each.code: each for each in _classes(FleetError)}


def ended(frame: Frame, headers: Mapping[str, str] | None = None) -> Refusal:
    """The error response for a frame of one of the `FAILURES`."""
    return refusal_of(frame.event, headers)


def refusal_of(event: Event, headers: Mapping[str, str] | None = None) -> Refusal:
    """The error response for the end of a job other than `done`, or for text that is invalid."""
    match event:
        case Failed(code=BackendBusy.code as code, message=message):
            # The job was given up because its client waits: that may come back.
            after_s = event.retry_after_s or _BUSY_AFTER_S
            return Refusal(
                code, message, status=_status(code), headers=headers,
                retryable=True, retry_after_s=after_s,
            )  # fmt: skip
        case Failed(code=code, message=message):
            # Not `retryable`: the worker has retried as often as the job allows, and a client that
            # retries too would multiply the attempts.
            return Refusal(code, message, status=_status(code), headers=headers)
        case Cancelled(by=by, reason=reason):
            why = f": {reason}" if reason else ""
            detail = f"The job was cancelled by {by}{why}."
            return Refusal("cancelled", detail, status=409, headers=headers)
        case _:
            return Refusal(
                ANSWER_RESTARTED,
                "The attempt failed and another one starts over, but text that was streamed cannot "
                "be taken back: retry, or follow the job at /api/v1/jobs/<X-Fleet-Job>/events, "
                "which streams the new attempt.",
                status=503,
                headers=headers,
                retryable=True,
            )


def restarted() -> Refusal:
    """The error for a client that has received text of an attempt that was reset."""
    return refusal_of(Reset(attempt=0, reason=""))


def _status(code: str) -> int:
    kind = _CLASSES.get(code, FleetError)
    found = next((_STATUS[parent] for parent in kind.__mro__ if parent in _STATUS), None)
    return found or status_of(kind)


def stopping(headers: Mapping[str, str]) -> Refusal:
    """The error for a call that the end of this process ends."""
    return Refusal(
        "shim_stopping",
        "This shim is shutting down, and the job continues for a while: retry with the same "
        "Idempotency-Key, or follow the job at /api/v1/jobs/<X-Fleet-Job>/events.",
        status=503,
        headers=headers,
        retryable=True,
    )
