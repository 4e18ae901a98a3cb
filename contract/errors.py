"""Everything that can go wrong, in one tree; each class has a code and says if a retry can help.

FleetError
├── RequestError            the caller must change something
│   ├── InvalidRequest          a field is missing, unknown or out of range
│   ├── PayloadTooLarge         the body is over the limit
│   ├── UnknownBackend          no backend of that name
│   ├── UnknownModel            no live backend has that model
│   ├── WrongKind               the model is there, and not for this kind of job
│   ├── JobNotFound             no such job, or not any more
│   ├── NotAuthenticated        no key, or one that is not known
│   ├── NotAllowed              that is for an admin's key
│   ├── UnknownKey              no API key of that id
│   ├── LastAdmin               it is the last key that may manage the others
│   ├── AmbiguousId             several ids begin so
│   ├── KeyReused               the Idempotency-Key came with another body before
│   ├── NotDead                 only a dead letter can be retried
│   ├── UnknownFile             no such file, or not any more
│   ├── UnknownBatch            no such batch, or not any more
│   └── BatchEnded              a batch that has ended cannot be cancelled
├── QueueError              the fleet cannot take or finish the job now
│   ├── NoWorker                nobody serves that queue
│   ├── QueueFull               the queue's bound is reached
│   ├── RelayUnavailable        Redis does not answer
│   ├── NewerVersion            a newer version of the fleet wrote it
│   └── StorageUnavailable      the storage of files does not answer, or is full
├── JobError                how a job ends when nobody asked for it
│   ├── DeadlineExceeded        its time ran out, waiting or running
│   ├── WorkerLost              its workers died, as often as it may be tried
│   ├── LogFull                 its log reached the cap
│   └── InternalError           a defect of ours
├── BackendError            what a backend answered (wire facts: one row per class)
│   ├── BackendUnreachable      refused, reset or unresolved before any output     retry
│   │   └── ConnectionDropped       closed after the request was sent                  retry
│   │       └── StaleConnection         the same at once, on a reused connection           retry
│   ├── ModelLoading            still loading                                      retry
│   ├── BackendBusy             its queue or rate limit is full                    retry
│   ├── ServerFault             500, 502, 504, crashed runner                      retry
│   ├── TruncatedStream         ended without its terminal marker                  retry
│   ├── BackendStalled          silent for too long in the middle of an answer     retry
│   ├── QuotaExhausted          the account's money or quota is gone
│   ├── ModelMissing            the backend does not have the model
│   ├── ContextExceeded         prompt longer than the context
│   ├── InputTooLarge           one input longer than the backend's batch
│   ├── DiskFull                it has no room for a model
│   ├── NotSupported            the model or backend cannot do it
│   ├── AuthenticationRefused   401 or 403
│   ├── BadEndpoint             this address does not speak the protocol we expected
│   ├── BadAnswer               its answer has a shape that we do not know
│   ├── NotFinite               it made a vector of numbers that are none (NaN, infinity)
│   ├── BackendRejected         any other 4xx
│   └── Refused                 the model or a filter declined to answer
├── InvalidSetting          a variable or fleet.toml says what cannot be: the process does not start
└── LeaseLost               somebody else has the job or batch now; never leaves its process
"""

from typing import Any, ClassVar, Literal


class FleetError(Exception):
    """Root of the tree. `str(error)` is safe to show: it never holds a secret."""

    code: ClassVar[str] = "fleet_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_s: float | None = None, **facts: Any) -> None:
        """Keep the message, the seconds to wait where they are known, and what a program wants."""
        super().__init__(message)
        self.facts = facts
        self.message = message
        self.retry_after_s = retry_after_s


class RequestError(FleetError):
    """The caller must change something before this can work."""

    code = "request_error"


class InvalidRequest(RequestError):
    """A field is missing, unknown or out of range; the message names it."""

    code = "invalid_request"


class PayloadTooLarge(RequestError):
    """The body is larger than the shim takes."""

    code = "payload_too_large"


class UnknownBackend(RequestError):
    """No backend of that name is configured on any live worker."""

    code = "unknown_backend"


class UnknownModel(RequestError):
    """No live backend has that model."""

    code = "unknown_model"


class WrongKind(RequestError):
    """The model is there, and is not for this kind of job."""

    code = "wrong_kind"


class JobNotFound(RequestError):
    """There is no such job, or its log has expired."""

    code = "job_not_found"


class AmbiguousId(RequestError):
    """The beginning of an id, and several of the caller's begin so."""

    code = "ambiguous_id"


class NotAuthenticated(RequestError):
    """The request carries no key, or one that nobody knows."""

    code = "not_authenticated"


class NotAllowed(RequestError):
    """The key is good, and not for this: it takes an admin's."""

    code = "not_allowed"


class UnknownKey(RequestError):
    """There is no API key of that id, or it was revoked before."""

    code = "unknown_key"


class LastAdmin(RequestError):
    """Without this key nobody could manage the other ones."""

    code = "last_admin"


class KeyReused(RequestError):
    """The Idempotency-Key was used for another request before."""

    code = "idempotency_key_reused"


class NotDead(RequestError):
    """The job is no dead letter, so there is nothing to retry."""

    code = "not_dead"


class UnknownFile(RequestError):
    """There is no such file, or not any more."""

    code = "file_not_found"


class UnknownBatch(RequestError):
    """There is no such batch, or not any more."""

    code = "batch_not_found"


class BatchEnded(RequestError):
    """The batch has ended or is about to, so there is nothing to cancel."""

    code = "batch_ended"


class QueueError(FleetError):
    """The fleet cannot take or finish this job right now."""

    code = "queue_error"
    retryable = True


class NoWorker(QueueError):
    """No live worker serves the queue that the request names."""

    code = "no_worker"


class QueueFull(QueueError):
    """The queue holds as much as it may, of everybody or of this tenant; `facts` say which."""

    code = "queue_full"


class RelayUnavailable(QueueError):
    """Redis does not answer, or has no room."""

    code = "relay_unavailable"


class NewerVersion(QueueError):
    """A newer version of the fleet wrote this; a process of that version can read it."""

    code = "newer_version"


class StorageUnavailable(QueueError):
    """The storage of files does not answer, has no room, or is not set up."""

    code = "storage_unavailable"


class JobError(FleetError):
    """How a job ends although nobody asked for its end."""

    code = "job_error"


class DeadlineExceeded(JobError):
    """The job's time ran out while it waited or ran."""

    code = "deadline_exceeded"


class WorkerLost(JobError):
    """Worker after worker died with the job in hand, as often as it may be tried."""

    code = "worker_lost"


class LogFull(JobError):
    """The job said more than its log may hold."""

    code = "log_full"


class InternalError(JobError):
    """A defect in the fleet; the worker's log has the details."""

    code = "internal_error"


class InvalidSetting(FleetError):
    """A process was configured with what cannot be; the message is a line with name and bounds."""

    code = "invalid_setting"


class LeaseLost(FleetError):
    """Somebody else has the job or the batch now: stop at once and say nothing more."""

    code = "lease_lost"


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
    usual_scope: ClassVar[Scope] = "endpoint"


class ConnectionDropped(BackendUnreachable):
    """Closed after the request was sent and before any output: the request may be the reason."""


class StaleConnection(ConnectionDropped):
    """A reused connection was closed at once: most likely it was closed before the request."""

    usual_scope: ClassVar[Scope] = "request"


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
