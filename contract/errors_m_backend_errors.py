"""What a backend answered, or failed to: a branch of the tree in fleet/client/errors.py."""

from typing import ClassVar, Literal

from contract.errors import FleetError

Scope = Literal["endpoint", "model", "request"]
"""Whose trouble an error tells of: that the endpoint is not there, that it cannot run one model, or
nobody's but the request's own. Only the first is in every job's way."""


class BackendError(FleetError):
    """What a backend answered, or failed to."""

    code = "backend_error"
    usual_scope: ClassVar[Scope] = "request"

    def __init__(
        self,
        message: str,
        *,
        upstream_status: int | None = None,
        retry_after_s: float | None = None,
        scope: Scope | None = None,
    ) -> None:
        """Keep the HTTP status that the backend answered with, where there was one."""
        super().__init__(message, retry_after_s=retry_after_s)
        self.upstream_status = upstream_status
        self.scope: Scope = scope or self.usual_scope
        """What a circuit counts it against; that of its class unless somebody knew better."""
        self.is_echo = False
        """Whether another job tells of the same failed request: it counts once."""


class BackendUnreachable(BackendError):
    """Refused, reset or unresolved before any output."""

    code = "backend_unreachable"
    retryable = True
    usual_scope = "endpoint"


class ConnectionDropped(BackendUnreachable):
    """Closed after the request was sent and before any output: the request may be the reason."""


class ModelLoading(BackendError):
    """The backend is up and still loads the model."""

    code = "model_loading"
    retryable = True


class BackendBusy(BackendError):
    """The backend's own queue or rate limit is full."""

    code = "backend_busy"
    retryable = True


class ServerFault(BackendError):
    """The backend broke: 500, 502, 504, a crashed runner."""

    code = "server_fault"
    retryable = True


class TruncatedStream(BackendError):
    """The answer ended without its terminal marker."""

    code = "truncated_stream"
    retryable = True


class BackendStalled(BackendError):
    """The backend fell silent in the middle of an answer."""

    code = "backend_stalled"
    retryable = True


class QuotaExhausted(BackendError):
    """The account's money or quota is gone; waiting a little does not help."""

    code = "quota_exhausted"


class ModelMissing(BackendError):
    """The backend does not have the model; pulling it may help."""

    code = "model_missing"


class ContextExceeded(BackendError):
    """The prompt is longer than the model's context."""

    code = "context_exceeded"


class InputTooLarge(BackendError):
    """One input is longer than the backend can process in a batch."""

    code = "input_too_large"


class DiskFull(BackendError):
    """The backend has no room on its disk; make some, and ask again."""

    code = "disk_full"


class NotSupported(BackendError):
    """The model or the backend cannot do what was asked."""

    code = "not_supported"


class AuthenticationRefused(BackendError):
    """The backend does not accept our key."""

    code = "authentication_refused"


class BadEndpoint(BackendError):
    """The address answers, but not in the protocol that its type promises."""

    code = "bad_endpoint"


class BadAnswer(BackendError):
    """The backend answered with a shape that we do not know; the message has the JSON path.

    A retry does not help: the same server says it the same way again.
    """

    code = "bad_answer"


class NotFinite(BackendError):
    """The model made a vector with NaN or an infinity in it, which JSON has no word for."""

    code = "not_finite"


class BackendRejected(BackendError):
    """The backend calls the request wrong, for a reason we have no class for."""

    code = "backend_rejected"


class Refused(BackendError):
    """The model or a content filter declined to answer."""

    code = "refused"
