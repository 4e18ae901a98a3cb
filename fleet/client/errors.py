"""What can go wrong between a caller and the fleet; the rest of the tree is in `contract.errors`.

FleetError
├── FleetUnreachable    no shim of FLEET_URL answers
├── NotAuthorised       the shim does not accept our key
├── GaveUpWaiting       the caller's own patience ran out; the job goes on
├── JobCancelled        the job was cancelled, so it has no result
├── JobEnded            the job failed or was cancelled, and its events said so
├── AnswerRestarted     a stream of plain words cannot take back what it has said
└── CannotStart         `fleet up` found the machine in a state that it will not work in
"""

from contract.errors import FleetError


class FleetUnreachable(FleetError):
    """None of the shims answered for as long as we were willing to try."""

    code = "fleet_unreachable"
    retryable = True


class NotAuthorised(FleetError):
    """The shim wants a key, or another one."""

    code = "not_authorised"


class GaveUpWaiting(FleetError):
    """The caller's time ran out before the job's last word; the job itself goes on."""

    code = "gave_up_waiting"


class JobCancelled(FleetError):
    """The job was cancelled, so it has no result."""

    code = "cancelled"


class JobEnded(FleetError):
    """A job failed or was cancelled; its events have been shown already."""

    def __init__(self, message: str, *, is_dead: bool = False) -> None:
        """`is_dead`: all attempts failed, and the job is kept as a dead letter."""
        super().__init__(message)
        self.is_dead = is_dead


class AnswerRestarted(FleetError):
    """Another worker started the answer over, after words of it had been handed out."""

    code = "answer_restarted"
    retryable = True


class CannotStart(FleetError):
    """Something on this machine must change before `fleet up` can run; the message says what."""

    code = "cannot_start"
