"""Problems in OpenAI's envelope: `{"error": {"message", "type", "param", "code"}}`. Pure.

How the `openai` client reads it (openai/openai-python, `_base_client.py`): the exception's class
follows the status. The client retries on 408, 409, 429 and from 500 on, unless `x-should-retry` is
false, and waits for Retry-After if that is short.
"""

import math
from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, Field
from starlette.responses import Response

from api_shim.http.problems import Problem
from contract.errors import (
    BudgetSpent,
    ContextExceeded,
    InputTooLarge,
    ModelMissing,
    NotAuthenticated,
    QueueFull,
    QuotaExhausted,
    RateLimited,
    Refused,
    UnknownModel,
    WrongKind,
)
from contract.json_lines import json_line

_LONGEST_WAIT_S: Final = 119
"""The client does not retry if it must wait for two minutes or more."""
_UNPROCESSABLE: Final = 422
_BAD_REQUEST: Final = 400
_CODES: Final[Mapping[str, str]] = {
    NotAuthenticated.code: "invalid_api_key",
    UnknownModel.code: "model_not_found",
    ModelMissing.code: "model_not_found",
    ContextExceeded.code: "context_length_exceeded",
    InputTooLarge.code: "context_length_exceeded",
    QueueFull.code: "rate_limit_exceeded",
    RateLimited.code: "rate_limit_exceeded",
    QuotaExhausted.code: "insufficient_quota",
    BudgetSpent.code: "insufficient_quota",
    Refused.code: "content_filter",
}
"""OpenAI's names for codes of ours; all other codes are sent as they are."""
_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_ABOUT_MODEL: Final = frozenset({UnknownModel.code, ModelMissing.code, WrongKind.code})


class OpenAIError(BaseModel):
    """An error."""

    message: str
    type: str
    """The family: `invalid_request_error`, `rate_limit_error`, `server_error`, ..."""
    param: str | None = None
    """The invalid field, as in `messages.0.role`."""
    code: str | None = None
    """A stable code for programs."""


class OpenAIErrorResponse(BaseModel):
    """The body of every response of 400 or more, and of an error in a stream."""

    error: OpenAIError = Field()


def envelope(problem: Problem, headers: Mapping[str, str]) -> Response:
    """A problem as a response."""
    all_headers = {"Cache-Control": "no-store", **headers}
    all_headers["x-should-retry"] = "true" if problem.retryable else "false"
    if problem.retry_after_s is not None:
        wait_s = max(1, math.ceil(problem.retry_after_s))
        if problem.retryable:
            wait_s = min(_LONGEST_WAIT_S, wait_s)
        all_headers["Retry-After"] = str(wait_s)
    status = _BAD_REQUEST if problem.status == _UNPROCESSABLE else problem.status
    return Response(encoded(problem), status, all_headers, media_type="application/json")


def encoded(problem: Problem) -> bytes:
    """The envelope as JSON, for a response or a stream."""
    return json_line(
        {
            "error": {
                "message": problem.detail,
                "type": _type(problem),
                "param": _param(problem),
                "code": known_code(problem.code),
            }
        }
    )


def known_code(code: str) -> str:
    """OpenAI's name for a code of ours, or the code itself."""
    return _CODES.get(code, code)


def _type(problem: Problem) -> str:
    if problem.code in {QuotaExhausted.code, BudgetSpent.code}:
        return "insufficient_quota"
    server_error = "server_error" if problem.status >= 500 else "invalid_request_error"  # noqa: PLR2004 - HTTP's border
    return _TYPES.get(problem.status, server_error)


def _param(problem: Problem) -> str | None:
    if problem.errors:
        return problem.errors[0].field
    return "model" if problem.code in _ABOUT_MODEL else None
