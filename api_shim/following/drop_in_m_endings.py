"""How a job's end that is no answer becomes a refusal, for surfaces whose answer is the job's own.

Natively a job that failed is told as it is, with status 200. A drop-in client asked for the answer
and gets none, so the end has a status here, one that such clients know. Pure.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from api_shim.http.problems import Refusal, status_of
from contract import errors, errors_m_backend_errors
from contract.errors import DeadlineExceeded, FleetError, WorkerLost
from contract.errors_m_backend_errors import (
    AuthenticationRefused,
    BackendBusy,
    BackendError,
    BackendRejected,
    BackendStalled,
    ContextExceeded,
    DiskFull,
    InputTooLarge,
    ModelLoading,
    ModelMissing,
    NotSupported,
    QuotaExhausted,
    Refused,
)
from contract.events import Cancelled, Event, Failed
from contract.events_m_frames import Frame

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
"""HTTP status of each end; a class that is not here has its parent's, at last api_shim/http/problems.py's."""

ANSWER_RESTARTED: Final = "answer_restarted"
"""The code of a stream that ends because its words were taken back."""
TAKES_BACK: Final = frozenset({"reset", "log_reset"})
"""Types of events after which what was told is not true any more."""
ENDS_BADLY: Final = frozenset({"failed", "cancelled"}) | TAKES_BACK
"""Types of events after which a stream of words has nothing more to tell."""


def _classes(root: type[FleetError]) -> Iterator[type[FleetError]]:
    yield root
    for child in root.__subclasses__():
        yield from _classes(child)


# Named, so that the whole tree has been imported when its classes are counted.
_MODULES: Final = (errors, errors_m_backend_errors)
_CLASSES: Final = {each.code: each for each in _classes(FleetError)}


def ended(frame: Frame, headers: Mapping[str, str] | None = None) -> Refusal:
    """What the caller is told of this frame, one of `ENDS_BADLY`."""
    return refusal_of(frame.event, headers)


def refusal_of(event: Event, headers: Mapping[str, str] | None = None) -> Refusal:
    """What the caller is told of a job's bad end, or of words that were taken back."""
    match event:
        case Failed(code=code, message=message):
            status = _status(code)
            # Not `retryable`: whatever could be tried again was, as often as the job may be, and
            # a client that tries on its own would multiply the two.
            return Refusal(code, message, status=status, headers=headers)
        case Cancelled(by=by, reason=reason):
            why = f": {reason}" if reason else ""
            detail = f"The job was cancelled by {by}{why}."
            return Refusal("cancelled", detail, status=409, headers=headers)
        case _:
            return Refusal(
                ANSWER_RESTARTED,
                "The attempt broke off and another one began anew, but what was streamed cannot "
                "be taken back: ask again, or follow the job at /api/v1/jobs/<X-Fleet-Job>/events, "
                "which tells the new answer.",
                status=503,
                headers=headers,
                retryable=True,
            )


def _status(code: str) -> int:
    kind = _CLASSES.get(code, FleetError)
    found = next((_STATUS[parent] for parent in kind.__mro__ if parent in _STATUS), None)
    return found or status_of(kind)
