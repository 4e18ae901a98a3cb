"""Lines of output and error files, one a request. Pure.

The shape is OpenAI's: `{"id", "custom_id", "response": {"status_code", "request_id", "body"},
"error"}`; a request that was answered, well or badly, has a response, one that was never run has an
error (openai/openai-openapi, commits 83b881d and e1cb7a8). A response to a body with fields that
nothing was done with has `headers`, too, with the header that a call would have had.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import from_json
from starlette.exceptions import HTTPException

from api_shim.following.drop_in_m_endings import refusal_of
from api_shim.http.problems import problem_of
from api_shim.openai.errors import encoded
from api_shim.submission.ignored_fields import HEADER, header_value
from contract.errors import FleetError
from contract.events import Cancelled, Failed, Usage
from contract.json_lines import json_line

_UNPROCESSABLE: Final = 422
_BAD_REQUEST: Final = 400

UNFINISHED: Final[Mapping[str, str]] = {
    "batch_cancelled": "The batch was cancelled before this request was done.",
    "batch_expired": "The completion window ended before this request was done.",
}
"""Codes of requests that were not run to their end, and what they mean."""


class Answer(NamedTuple):
    """What became of a row."""

    row: int
    line: bytes
    """With its line end."""
    is_good: bool
    """Whether it belongs into the output file; else into the error file."""
    usage: Usage = Usage()


def good(
    row: int, job_id: str, custom_id: str, body: Mapping[str, Any], left_out: Sequence[str] = ()
) -> Answer:
    """The answer that was asked for; `left_out` are fields that nothing was done with."""
    response: dict[str, Any] = {"status_code": 200, "request_id": job_id, "body": body}
    if left_out:
        response["headers"] = {HEADER: header_value(left_out)}
    return Answer(row, _line(job_id, custom_id, response), is_good=True)


def refused(row: int, job_id: str, custom_id: str, error: FleetError | HTTPException) -> Answer:
    """A request that could not become a job, or whose job failed."""
    problem = problem_of(error, {"type": "http", "path": ""})
    status = _BAD_REQUEST if problem.status == _UNPROCESSABLE else problem.status
    body = from_json(encoded(problem))
    response = {"status_code": status, "request_id": job_id, "body": body}
    return Answer(row, _line(job_id, custom_id, response), is_good=False)


def ended(row: int, job_id: str, custom_id: str, end: Failed | Cancelled) -> Answer:
    """A request whose job had another end than an answer."""
    return refused(row, job_id, custom_id, refusal_of(end))


def unfinished(row: int, job_id: str, custom_id: str, code: str) -> Answer:
    """A request that was not run to its end, and will not be; `code` is one of UNFINISHED."""
    error = {"code": code, "message": UNFINISHED[code]}
    return Answer(row, _line(job_id, custom_id, None, error), is_good=False)


def _line(
    job_id: str,
    custom_id: str,
    response: Mapping[str, Any] | None,
    error: Mapping[str, str] | None = None,
) -> bytes:
    return (
        json_line(
            {
                "id": f"batch_req_{job_id}",
                "custom_id": custom_id,
                "response": response,
                "error": error,
            }
        )
        + b"\n"
    )
