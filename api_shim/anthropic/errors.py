"""Problems in Anthropic's envelope: `{"type": "error", "error": {...}, "request_id"}`. Pure.

How the `anthropic` client reads it (anthropics/anthropic-sdk-python, `_exceptions.py`): the
exception's class follows the status, its `type` and `request_id` are read from body and headers.
The client retries on 408, 409, 429 and from 500 on, unless `x-should-retry` is false, and waits for
Retry-After.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel
from starlette.responses import Response

from api_shim.following.job_refusals import ANSWER_RESTARTED
from api_shim.http.problems import Problem
from contract import sse
from contract.errors import QuotaExhausted
from contract.json_lines import json_line

_STATUS: Final[Mapping[int, int]] = {415: 400, 422: 400, 503: 529}
"""Statuses that Anthropic has another one for: 529 is overload, and clients retry it later."""
_STATUS_OF_CODE: Final[Mapping[str, int]] = {QuotaExhausted.code: 402, ANSWER_RESTARTED: 500}
_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OF_THREADS: Final = frozenset({"thread_not_found", "thread_continue_in_flight"})
"""Anthropic's own codes, after which clients send the whole conversation."""
_SERVER_ERROR: Final = 500


class AnthropicErrorDetail(BaseModel):
    """What went wrong."""

    type: str
    """The family: `invalid_request_error`, `not_found_error`, `overloaded_error`, ..."""
    message: str
    code: str | None = None
    """A stable code for programs; Anthropic has none."""


class AnthropicErrorResponse(BaseModel):
    """The body of every response of 400 or more, and of an error in a stream."""

    type: Literal["error"] = "error"
    error: AnthropicErrorDetail
    request_id: str | None = None


def anthropic_envelope(problem: Problem, headers: Mapping[str, str]) -> Response:
    """A problem as a response."""
    all_headers = {"Cache-Control": "no-store", **headers}
    all_headers["x-should-retry"] = "true" if problem.retryable else "false"
    if problem.retry_after_s is not None:
        all_headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after_s)))
    body = json_line(error_body(problem))
    return Response(body, status_of(problem), all_headers, media_type="application/json")


def error_event(problem: Problem) -> bytes:
    """A problem as the event that ends a stream; it has no id, so a cursor stays where it is."""
    return sse.encode(json_line(error_body(problem)), b"error")


def error_body(problem: Problem) -> dict[str, Any]:
    """The envelope as a value."""
    status = status_of(problem)
    usual = "api_error" if status >= _SERVER_ERROR else "invalid_request_error"
    return {
        "type": "error",
        "error": {
            "type": _TYPES.get(status, usual),
            "message": problem.detail or problem.title,
            "code": problem.code,
            **({"details": {"error_code": problem.code}} if problem.code in _OF_THREADS else {}),
        },
        "request_id": problem.request_id,
    }


def status_of(problem: Problem) -> int:
    """Anthropic's HTTP status of a problem."""
    return _STATUS_OF_CODE.get(problem.code) or _STATUS.get(problem.status, problem.status)
