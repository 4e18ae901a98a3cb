"""Jobs that may not start yet: what their requests say of it, and what is stored. Pure.

A job may wait for a time (`not_before`), for other jobs to end (`after`, `after_any`), or for both.
Until then it is *scheduled*: in `redis_keys.delayed` of its queue, and not in the backlog. When it
is due it takes its place in the order as a new job would (docs/adr/0051). Its request is stored
without these fields, so that it is an ordinary one for workers, and for a retry.
"""

from typing import Final

from contract.errors import InvalidRequest
from contract.jobs import AnyRequest, JobRecord
from contract.requests import LONGEST_DEADLINE_S, Request
from contract.roster import utc

NEVER: Final = 9e12
"""Unix seconds at which a job is due that waits for other jobs: far beyond all others."""
SOON_S: Final = 90.0
"""A job that is due within this time wants a worker now, because one needs time to start."""
LONGEST_WAIT_S: Final = LONGEST_DEADLINE_S
"""Seconds for which a job may wait for a time, or for other jobs."""


def is_later(request: Request) -> bool:
    """Whether a request names a time or other jobs to wait for."""
    return request.not_before is not None or bool(request.after or request.after_any)


def check_time(not_before: float | None, now: float) -> None:
    """Raise InvalidRequest for a time that is too far away; both are in unix seconds."""
    if not_before is not None and not_before > now + LONGEST_WAIT_S:
        raise InvalidRequest(
            f"not_before: it is {utc(not_before)}, and may be at most 30 days ahead: send it later",
            field="not_before",
        )


def stored(request: AnyRequest) -> AnyRequest:
    """The request as it is stored."""
    nothing = {"not_before": None, "after": None, "after_any": None}
    return request.model_copy(update=nothing) if is_later(request) else request


def due_of(record: JobRecord) -> float | None:
    """When a new job may start, in unix seconds; None: at once."""
    return NEVER if record.blocked else record.not_before


def deadline_s(request: Request, now: float) -> float | None:
    """Seconds from `now` (unix) to the deadline of a new job, which counts from when it may start.

    A job that waits for others may wait for 30 days; its own deadline counts once they have ended.
    """
    if request.after or request.after_any:
        return LONGEST_WAIT_S
    seconds = request.effective_deadline_s
    if seconds is None or request.not_before is None:
        return seconds
    return seconds + max(0.0, request.not_before - now)


def shown(record: JobRecord, now: float) -> JobRecord:
    """The record as clients see it: a job that may not start yet (`now`, unix) is `scheduled`."""
    if record.status != "queued" or not reason(record, now):
        return record
    return record.model_copy(update={"status": "scheduled"})


def reason(record: JobRecord, now: float) -> str:
    """Why a job does not wait for a worker yet; empty: it is due. `now` is in unix seconds."""
    if record.blocked:
        count = len(record.after) + len(record.after_any)
        return f"scheduled: it waits for {'another job' if count == 1 else f'{count} jobs'} to end"
    if record.not_before is not None and record.not_before > now:
        return f"scheduled for {utc(record.not_before)}"
    return ""
