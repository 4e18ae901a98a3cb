"""Problems in OpenAI's envelope: `{"error": {"message", "type", "param", "code"}}`. Pure.

What the `openai` client makes of it (openai/openai-python, `_base_client.py`): the class of its
exception follows the status; it tries again at 408, 409, 429 and from 500 on unless
`x-should-retry` says otherwise, and waits as long as Retry-After says if that is short.
"""

import math
from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, Field
from starlette.responses import Response

from api_shim.http.problems import Problem
from contract.errors import (
    ContextExceeded,
    InputTooLarge,
    ModelMissing,
    NotAuthenticated,
    QueueFull,
    QuotaExhausted,
    Refused,
    UnknownModel,
    WrongKind,
)
from contract.json_lines import json_line

_LONGEST_WAIT_S: Final = 119
"""The client does not try again when it is told to wait for longer than two minutes."""
_UNPROCESSABLE: Final = 422
_BAD_REQUEST: Final = 400
_CODES: Final[Mapping[str, str]] = {
    NotAuthenticated.code: "invalid_api_key",
    UnknownModel.code: "model_not_found",
    ModelMissing.code: "model_not_found",
    ContextExceeded.code: "context_length_exceeded",
    InputTooLarge.code: "context_length_exceeded",
    QueueFull.code: "rate_limit_exceeded",
    QuotaExhausted.code: "insufficient_quota",
    Refused.code: "content_filter",
}
"""The names that programs know; every other code is ours."""
_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_ABOUT_MODEL: Final = frozenset({UnknownModel.code, ModelMissing.code, WrongKind.code})


class OpenAIError(BaseModel):
    """What went wrong."""

    message: str
    type: str
    """The family: `invalid_request_error`, `rate_limit_error`, `server_error`, ..."""
    param: str | None = None
    """The field that is wrong, as in `messages.0.role`."""
    code: str | None = None
    """What programs look at."""


class OpenAIErrorResponse(BaseModel):
    """The body of every answer of 400 or more, and of an error in a stream."""

    error: OpenAIError = Field()


def envelope(problem: Problem, headers: Mapping[str, str]) -> Response:
    """A problem as the answer to a call."""
    said = {"Cache-Control": "no-store", **headers}
    said["x-should-retry"] = "true" if problem.retryable else "false"
    if problem.retry_after_s is not None:
        wait_s = min(_LONGEST_WAIT_S, max(1, math.ceil(problem.retry_after_s)))
        said["Retry-After"] = str(wait_s)
    status = _BAD_REQUEST if problem.status == _UNPROCESSABLE else problem.status
    return Response(encoded(problem), status, said, media_type="application/json")


def encoded(problem: Problem) -> bytes:
    """The envelope's JSON, as a stream tells it, too."""
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
    """The name that programs know for one of ours, if there is one."""
    return _CODES.get(code, code)


def _type(problem: Problem) -> str:
    if problem.code == QuotaExhausted.code:
        return "insufficient_quota"
    server_error = "server_error" if problem.status >= 500 else "invalid_request_error"  # noqa: PLR2004 - HTTP's border
    return _TYPES.get(problem.status, server_error)


def _param(problem: Problem) -> str | None:
    if problem.errors:
        return problem.errors[0].field
    return "model" if problem.code in _ABOUT_MODEL else None
