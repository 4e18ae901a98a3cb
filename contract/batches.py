"""A batch: many requests in one file, run as jobs of class `batch`, answered in another file."""

import re
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from contract.events import Usage
from contract.tenants import Tenant
from contract.wire import WireModel

BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling",
    "cancelled",
]  # fmt: skip
LastStatus = Literal["failed", "completed", "expired", "cancelled"]
"""The terminal statuses."""
ENDED: Final[frozenset[BatchStatus]] = frozenset({"failed", "completed", "expired", "cancelled"})

BATCH_ID: Final = re.compile(r"^batch_[0-9a-f]{32}$")
BATCH_ID_BEGINNING: Final = re.compile(r"^batch_[0-9a-f]{4,32}$")
"""A prefix that clients may send in place of an id, if only one of theirs matches."""
_WINDOW: Final = re.compile(r"^([1-9][0-9]{0,6})([smhd])$")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_WINDOW_S: Final = 30 * 86400


class LineError(WireModel):
    """One error of an input file."""

    code: str
    message: str
    param: str | None = None
    """The field that is wrong."""
    line: int | None = None
    """Line of the file, from 1; null for an error of the whole file."""


class Counts(WireModel):
    """Numbers of requests of a batch; at its end `completed` plus `failed` is `total`."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class NewBatch(WireModel):
    """The request to create a batch."""

    endpoint: str
    input_file_id: str
    window_s: int
    completion_window: str
    """As the client sent it."""
    metadata: dict[str, str] = Field(default_factory=dict)
    backend: str | None = None
    """The backend of all its requests, whatever they name themselves."""
    not_before: float | None = None
    """When its first request may start, in unix seconds; its window begins then."""
    output_ttl_s: float
    """Seconds for which its output and error files are kept."""
    callback_url: str | None = None
    """Where its end is posted, besides its tenant's webhooks."""


class Batch(NewBatch):
    """A batch's record; times are unix seconds by Redis's clock."""

    model_config = ConfigDict(allow_inf_nan=False)

    id: str
    """`batch_` and 32 hexadecimal digits."""
    tenant: Tenant
    status: BatchStatus
    created_at: float
    expires_at: float
    """When the requests that have not ended are given up."""
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    announced: bool = False
    """Whether webhooks are told of its end."""
    errors: tuple[LineError, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    counts: Counts = Counts()
    usage: Usage = Usage()
    traceparent: str | None = None
    """The span that created it, as W3C's Trace Context writes it; its jobs are below that."""
    tracestate: str | None = None

    @property
    def starts_at(self) -> float | None:
        """When its first request may start, in unix seconds; None if it may at once."""
        is_ahead = self.not_before is not None and self.not_before > self.created_at
        return self.not_before if is_ahead else None


class BatchPage(WireModel):
    """A page of a tenant's batches, newest first."""

    batches: tuple[Batch, ...]
    has_more: bool


def window_s(text: str) -> int:
    """Seconds of a completion window such as `24h`, `30m` or `7d`, at most `30d`.

    Raises ValueError.
    """
    match = _WINDOW.match(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 1 <= seconds <= LONGEST_WINDOW_S:
        raise ValueError("it is a number and s, m, h or d, as in 24h, and at most 30d")
    return seconds


CustomId = Annotated[str, Field(min_length=1, max_length=512)]


Purpose = Literal[
    "assistants", "batch", "batch_output", "evals", "fine-tune", "user_data", "vision"
]
"""The use of a file. `batch` may be the input of a batch; `batch_output` is its output."""

FILE_ID: Final = re.compile(r"^file-[0-9a-f]{32}$")
LEAST_FILE_BYTES: Final = 64 * 1024
"""As which a smaller file counts: its record is kept, too, and takes Redis a kilobyte or two."""


class StoredFile(WireModel):
    """A file's record; times are unix seconds by Redis's clock."""

    id: str
    """`file-` and 32 hexadecimal digits."""
    tenant: str
    filename: str
    purpose: Purpose
    size_bytes: int
    created_at: float = 0.0
    expires_at: float
    """When it is deleted."""

    @property
    def counted_bytes(self) -> int:
        """The bytes that it has of a quota."""
        return max(LEAST_FILE_BYTES, self.size_bytes)


class FilePage(WireModel):
    """A page of a tenant's files, in the requested order."""

    files: tuple[StoredFile, ...]
    has_more: bool
