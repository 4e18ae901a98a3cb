"""The error tree; each class has a `code`, and `retryable` is whether a retry can help.

FleetError
├── RequestError            the caller must change something
│   ├── InvalidRequest          a field is missing, unknown or out of range
│   ├── PayloadTooLarge         the body is over the limit
│   ├── UnknownBackend          no backend of that name
│   ├── UnknownModel            no live backend has that model
│   ├── UnknownQueue            no queue of that name
│   ├── WrongKind               the model is there, and not for this kind of job
│   ├── UnknownAlias            no alias of that name is stored
│   ├── JobNotFound             no such job, or it has expired
│   │   └── JobNotKept              it has ended, and its texts were not to be kept
│   ├── NotAuthenticated        no key, or an unknown one
│   ├── NotAllowed              the key has not the permission, model or backend
│   ├── UnknownKey              no API key with that id
│   ├── UnknownTenant           no receipt of a deletion of that tenant
│   ├── LastAdmin               it is the last key that may manage the others
│   ├── AmbiguousId             several ids begin with this prefix
│   ├── KeyReused               the Idempotency-Key came with another body before
│   ├── OverLimit               it may use more than its tenant ever may
│   ├── ConversationBusy        an earlier message of the conversation has not ended
│   ├── NotDead                 only a dead letter can be retried
│   ├── UnknownFile             no such file, or it has expired
│   ├── FileQuotaFull           the tenant has as many files, or bytes in files, as it may
│   ├── UnknownBatch            no such batch, or it has expired
│   ├── BatchEnded              a batch that has ended cannot be cancelled
│   └── UnknownWebhook          no such webhook, or no such delivery of it
├── QueueError              the fleet cannot take or finish the job now
│   ├── NoWorker                no live worker serves that queue
│   ├── QueueFull               the queue's bound is reached
│   ├── RateLimited             the tenant's tokens of this minute are used up
│   ├── BudgetSpent             the tenant's tokens or money of this day or month are
│   ├── RelayUnavailable        Redis does not answer
│   │   └── RelayFull               it answers, and its disk or memory is full: it can be read
│   ├── NewerVersion            a newer version of the fleet wrote it
│   │   └── JobDamaged              nobody can read it: another program wrote there
│   └── StorageUnavailable      the storage of files does not answer, or is full
├── JobError                how a job ends that was not cancelled
│   ├── DeadlineExceeded        its time ran out, waiting or running
│   ├── ParentFailed            a job that had to be done before was not
│   ├── WorkerLost              its workers died in every attempt
│   ├── LogFull                 its log reached its size limit
│   └── InternalError           a defect of the fleet
├── BackendError            a backend's error response (one row per class)
│   ├── BackendUnreachable      refused, reset or unresolved before any output     retry
│   │   └── ConnectionDropped       closed after the request was sent                  retry
│   │       └── StaleConnection         the same at once, on a reused connection           retry
│   ├── ModelLoading            still loading                                      retry
│   ├── BackendBusy             its queue or rate limit is full                    retry
│   ├── ServerFault             500, 502, 504, crashed runner                      retry
│   ├── TruncatedStream         ended without its terminal marker                  retry
│   ├── BackendStalled          silent for too long in the middle of an answer     retry
│   ├── QuotaExhausted          the account's credit or quota is used up
│   ├── ModelMissing            the backend does not have the model
│   ├── ContextExceeded         prompt longer than the context
│   ├── InputTooLarge           one input longer than the backend's batch
│   ├── DiskFull                its disk is too full for a model
│   ├── NotSupported            the model or backend cannot do it
│   ├── AuthenticationRefused   401 or 403
│   ├── BadEndpoint             the address does not serve its type's API
│   ├── BadAnswer               its response has an unknown shape
│   ├── NotFinite               a vector holds NaN or an infinity
│   ├── BackendRejected         any other 4xx
│   └── Refused                 the model or a filter declined to answer
├── InvalidSetting          a variable or fleet.toml is invalid: the process does not start
└── LeaseLost               another process has the job or batch; never leaves its process
"""

from typing import Any, ClassVar, Final, Literal

_MOST_CHARS: Final = 8000  # of a message: a backend's words may be in it


class FleetError(Exception):
    """Root of the tree. `str(error)` is safe to show: it never holds a secret."""

    code: ClassVar[str] = "fleet_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_s: float | None = None, **facts: Any) -> None:
        """Take the message, the seconds to wait if known, and fields for a client's program."""
        self.message = message[:_MOST_CHARS]
        super().__init__(self.message)
        self.facts = facts
        self.retry_after_s = retry_after_s


class RequestError(FleetError):
    """The caller must change something before this can work."""

    code = "request_error"


class InvalidRequest(RequestError):
    """A field is missing, unknown or out of range; the message names it."""

    # The fact `field`, if there, is the first word of the message, which may have another name.
    code = "invalid_request"


class PayloadTooLarge(RequestError):
    """The body is larger than the shim takes."""

    code = "payload_too_large"


class UnknownBackend(RequestError):
    """No live worker has a backend of that name."""

    code = "unknown_backend"


class UnknownModel(RequestError):
    """No live backend has that model."""

    code = "unknown_model"


class UnknownQueue(RequestError):
    """No worker serves a queue of that name, or did lately."""

    code = "unknown_queue"


class UnknownAlias(RequestError):
    """There is no alias of that name, or none that can be deleted."""

    code = "alias_not_found"


class WrongKind(RequestError):
    """The model exists and cannot do this kind of job."""

    code = "wrong_kind"


class JobNotFound(RequestError):
    """There is no such job, or its log has expired."""

    code = "job_not_found"


class JobNotKept(JobNotFound):
    """The job has ended, and its texts were removed then, because its retention is `none`."""

    code = "job_not_kept"


class AmbiguousId(RequestError):
    """Several of the caller's ids begin with the given prefix."""

    code = "ambiguous_id"


class NotAuthenticated(RequestError):
    """The request carries no API key, or an unknown one."""

    code = "not_authenticated"


class NotAllowed(RequestError):
    """The API key is valid; it does not allow this."""

    code = "not_allowed"


class UnknownKey(RequestError):
    """There is no API key with that id, or it was revoked before."""

    code = "unknown_key"


class UnknownTenant(RequestError):
    """There is no receipt of a deletion of this tenant."""

    code = "unknown_tenant"


class LastAdmin(RequestError):
    """The key is the last one that may manage the others and does not expire."""

    code = "last_admin"


class KeyReused(RequestError):
    """The Idempotency-Key was used for another request before."""

    code = "idempotency_key_reused"


class OverLimit(RequestError):
    """The request may use more than its tenant's limit, so that it can never be accepted."""

    code = "over_limit"


class ConversationBusy(RequestError):
    """An earlier message of the conversation has not ended, and this one may not run beside it."""

    code = "conversation_busy"


class NotDead(RequestError):
    """The job is no dead letter, so there is nothing to retry."""

    code = "not_dead"


class UnknownFile(RequestError):
    """There is no such file, or it has expired."""

    code = "file_not_found"


class FileQuotaFull(RequestError):
    """The tenant has as many files, or bytes in files, as it may."""

    code = "file_quota_full"


class UnknownBatch(RequestError):
    """There is no such batch, or it has expired."""

    code = "batch_not_found"


class BatchEnded(RequestError):
    """The batch has ended or is about to, so there is nothing to cancel."""

    code = "batch_ended"


class UnknownWebhook(RequestError):
    """The tenant has no such webhook, or it no such delivery."""

    code = "webhook_not_found"


class QueueError(FleetError):
    """The fleet cannot take or finish this job right now."""

    code = "queue_error"
    retryable = True


class NoWorker(QueueError):
    """No live worker serves the queue that the request names."""

    code = "no_worker"


class QueueFull(QueueError):
    """The queue is full, for all tenants or for this one; `facts` say which."""

    code = "queue_full"


class RateLimited(QueueError):
    """The tenant has used its tokens of the last minute, or they are reserved."""

    code = "rate_limited"


class BudgetSpent(QueueError):
    """The tenant has used its tokens or money of this day or month, or they are reserved."""

    code = "budget_spent"
    retryable = False


class RelayUnavailable(QueueError):
    """Redis does not answer, or its disk or memory is full."""

    code = "relay_unavailable"


class RelayFull(RelayUnavailable):
    """Redis can be read, and takes nothing new: its disk or memory is full."""


class NewerVersion(QueueError):
    """A newer version of the fleet wrote this; a process of that version can read it."""

    code = "newer_version"


class JobDamaged(NewerVersion):
    """What Redis has of a job is damaged: no process can read it, of whatever version."""

    code = "job_damaged"
    retryable = False


class StorageUnavailable(QueueError):
    """The file storage does not answer, is full, or is not configured."""

    code = "storage_unavailable"


class JobError(FleetError):
    """A job's failure that is not the backend's."""

    code = "job_error"


class DeadlineExceeded(JobError):
    """The job's time ran out while it waited or ran."""

    code = "deadline_exceeded"


class ParentFailed(JobError):
    """A job that had to be done before this one failed, was cancelled, or is gone."""

    code = "parent_failed"


class WorkerLost(JobError):
    """Workers died while they ran the job, in as many attempts as it has."""

    code = "worker_lost"


class LogFull(JobError):
    """The job's events exceeded the size limit of its log."""

    code = "log_full"


class InternalError(JobError):
    """A defect in the fleet; the worker's log has the details."""

    code = "internal_error"


class InvalidSetting(FleetError):
    """A setting is invalid; the message is one line with its name and bounds."""

    code = "invalid_setting"


class LeaseLost(FleetError):
    """Another process has the job or batch now: stop at once and append nothing more."""

    code = "lease_lost"


Scope = Literal["endpoint", "model", "request"]
"""What an error concerns: the whole endpoint, one of its models, or only this request."""


class BackendError(FleetError):
    """A backend's error response, or the lack of a response."""

    code = "backend_error"
    usual_scope: ClassVar[Scope] = "request"

    def __init__(
        self, message: str, *, upstream_status: int | None = None,
        retry_after_s: float | None = None, scope: Scope | None = None,
    ) -> None:  # fmt: skip
        """Take the HTTP status of the backend's response, if there was one."""
        super().__init__(message, retry_after_s=retry_after_s)
        self.upstream_status = upstream_status
        self.scope: Scope = scope or self.usual_scope
        """What a circuit breaker counts the error against; by default the class's `usual_scope`."""
        self.is_echo = False
        """Whether another job reports the same failed request, which counts once."""


class BackendUnreachable(BackendError):
    """Refused, reset or unresolved before any output."""

    code = "backend_unreachable"
    retryable = True
    usual_scope: ClassVar[Scope] = "endpoint"


class ConnectionDropped(BackendUnreachable):
    """Closed after the request was sent and before any output: the request may be the cause."""


class StaleConnection(ConnectionDropped):
    """A reused connection was closed at once: most likely before the request arrived."""

    usual_scope: ClassVar[Scope] = "request"


class ModelLoading(BackendError):
    """The backend runs and is still loading the model."""

    code = "model_loading"
    retryable = True


class BackendBusy(BackendError):
    """The backend's own queue or rate limit is full."""

    code = "backend_busy"
    retryable = True


class ServerFault(BackendError):
    """The backend failed: 500, 502, 504, a crashed runner."""

    code = "server_fault"
    retryable = True


class TruncatedStream(BackendError):
    """The answer ended without its terminal marker."""

    code = "truncated_stream"
    retryable = True


class BackendStalled(BackendError):
    """The backend sent nothing for too long in the middle of an answer."""

    code = "backend_stalled"
    retryable = True


class QuotaExhausted(BackendError):
    """The account's credit or quota is used up; a retry soon does not help."""

    code = "quota_exhausted"


class ModelMissing(BackendError):
    """The backend does not have the model; pulling it may help."""

    code = "model_missing"


class ContextExceeded(BackendError):
    """The prompt is longer than the model's context."""

    code = "context_exceeded"


class InputTooLarge(BackendError):
    """One input is longer than the backend's batch size."""

    code = "input_too_large"


class DiskFull(BackendError):
    """The backend's disk is full; free some space, then retry."""

    code = "disk_full"


class NotSupported(BackendError):
    """The model or the backend cannot do what the request needs."""

    code = "not_supported"


class AuthenticationRefused(BackendError):
    """The backend does not accept our key."""

    code = "authentication_refused"


class BadEndpoint(BackendError):
    """The address responds, but not in the protocol of its type."""

    code = "bad_endpoint"


class BadAnswer(BackendError):
    """The response has an unknown shape; the message has the JSON path.

    A retry does not help: the same server sends the same shape again.
    """

    code = "bad_answer"


class NotFinite(BackendError):
    """A vector holds NaN or an infinity, which JSON cannot express."""

    code = "not_finite"


class BackendRejected(BackendError):
    """The backend rejected the request (4xx) for a reason that has no class of its own."""

    code = "backend_rejected"


class Refused(BackendError):
    """The model or a content filter declined to answer."""

    code = "refused"
