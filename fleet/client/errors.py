"""Errors of clients and of `fleet up`; the rest of the tree is in `contract.errors`.

FleetError
├── FleetUnreachable    no shim of FLEET_URL responds
├── NoFleet             what answers at FLEET_URL is no shim
├── NotAuthorised       the shim rejected the API key, or needs one
├── GaveUpWaiting       the caller's own time limit passed; the job continues
├── JobCancelled        the job was cancelled, so it has no result
├── JobEnded            the job failed or was cancelled; for the command line
├── AnswerRestarted     a later attempt restarted an answer of which text was yielded already
└── CannotStart         `fleet up` cannot run on this machine as it is
"""

from contract.errors import FleetError


class FleetUnreachable(FleetError):
    """No shim responded within `give_up_s`."""

    code = "fleet_unreachable"
    retryable = True


class NoFleet(FleetError):
    """What answers at the address is no shim, or one of a version that this client cannot read."""

    code = "no_fleet"


class NotAuthorised(FleetError):
    """The shim needs an API key, or rejected the one that was sent (HTTP 401 or 403)."""

    code = "not_authorised"


class GaveUpWaiting(FleetError):
    """The caller's time limit passed before the job ended; the job continues."""

    code = "gave_up_waiting"


class JobCancelled(FleetError):
    """The job was cancelled, so it has no result."""

    code = "cancelled"


class JobEnded(FleetError):
    """A job failed or was cancelled; raised by commands that have printed its events."""

    def __init__(self, message: str, *, is_dead: bool = False) -> None:
        """`is_dead`: all attempts failed, and the job is kept as a dead letter."""
        super().__init__(message)
        self.is_dead = is_dead


class AnswerRestarted(FleetError):
    """A later attempt began the answer again after text of it had been yielded."""

    code = "answer_restarted"
    retryable = True


class CannotStart(FleetError):
    """Something on this machine must change before `fleet up` can run; the message says what."""

    code = "cannot_start"
