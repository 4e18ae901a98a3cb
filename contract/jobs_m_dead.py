"""Dead letters: jobs that ran out of attempts, kept so that somebody can look and try again."""

from typing import Any

from contract.events import Failed
from contract.jobs import JobRecord
from contract.wire import Noun


class DeadLetter(JobRecord):
    """A dead job's record, and what it died of."""

    error: Failed | None = None
    """Its last word; None if its log has expired meanwhile."""


class DeadView(DeadLetter):
    """A dead letter with all that is needed to judge it."""

    request: dict[str, Any]
    """What was asked for, as a request of that kind has it, without what is the default."""


class DeadPage(Noun):
    """Some dead letters, the last to die first, and the cursor to ask for the next ones with."""

    letters: tuple[DeadLetter, ...]
    next: str | None = None
    unreadable: int | None = None
    """Messages kept that no worker could read, for admins; null for others."""


class DeadMessage(Noun):
    """Something that stood in a queue's list and was neither a ticket nor a job."""

    id: str
    queue: str
    at: float
    """Unix seconds at which a worker set it aside."""
    reason: str
    size_bytes: int
    data: str
    """Base64 of its first bytes, 64 KiB at the most."""
    job_id: str | None = None
    """The failed job that stands for it, where the message had a task id."""


class DeadMessages(Noun):
    """The newest of them; the oldest are dropped where there are more than 1,000."""

    messages: tuple[DeadMessage, ...]
    total: int
    """How many were set aside since there were none."""


class DeadPurged(Noun):
    """How many dead letters were forgotten."""

    purged: int
    next: str | None = None
    """There may be more: purge again, with this as `before`."""
