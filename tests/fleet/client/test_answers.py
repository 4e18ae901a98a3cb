"""An HTTP error response becomes the exception of its code."""

import pytest

from contract.errors import FleetError, JobNotFound, QueueError, QueueFull, RequestError
from contract.events import Cancelled, Failed
from contract.result import Result
from fleet.cli.exit_codes import Exit, exit_of
from fleet.client.answers import error_of
from fleet.client.errors import FleetUnreachable, GaveUpWaiting, NotAuthorised
from fleet.client.job import raise_job_ended


def test_a_problem_becomes_the_class_of_its_code() -> None:
    error = error_of(404, b'{"code":"job_not_found","detail":"there is no job x","new":1}', {})

    assert type(error) is JobNotFound
    assert error.message == "there is no job x"


def test_retry_after_is_kept() -> None:
    error = error_of(429, b'{"code":"queue_full","detail":"full"}', {"retry-after": "7"})

    assert isinstance(error, QueueFull)
    assert error.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (418, b'{"code":"never_heard_of"}', RequestError),
        (502, b"<html>bad gateway</html>", QueueError),
        (401, b"", NotAuthorised),
    ],
)
def test_what_we_do_not_know_goes_by_its_status(
    status: int, body: bytes, kind: type[FleetError]
) -> None:
    assert type(error_of(status, body, {})) is kind


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FleetUnreachable("x"), 7),
        (NotAuthorised("x"), 4),
        (GaveUpWaiting("x"), 3),
        (JobNotFound("x"), 1),
    ],
)
def test_each_error_has_its_exit_code(error: FleetError, code: int) -> None:
    assert exit_of(error) == code


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (Result(error=Failed(code="server_fault", message="broke")), Exit.JOB_FAILED),
        (Result(error=Failed(code="x", message="died", dead=True)), Exit.DEAD_LETTERED),
        (Result(cancelled=Cancelled(by="caller")), Exit.JOB_FAILED),
    ],
)
def test_each_bad_end_of_a_job_has_its_exit_code(result: Result, code: Exit) -> None:
    with pytest.raises(FleetError) as caught:
        raise_job_ended("j", result)

    assert exit_of(caught.value) == code
