"""Problems for clients of Cohere, Jina and vLLM: `{"message", "error": {...}, "id"}`. Pure.

Cohere's client (cohere-ai/cohere-python, `core/api_error.py`) shows the whole body, and its own
server sends `message`; those of Jina and vLLM read `error.message` or the status alone.
"""

import math
from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from api_shim.http.problems import FieldError, Problem, Refusal, message_of
from contract.errors import FleetError, InvalidRequest
from contract.json_lines import json_line

_SERVER_ERROR: Final = 500
_STATUS: Final[Mapping[int, int]] = {422: 400}
"""Cohere's servers say 400 for a wrong field."""


class CohereErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    code: str
    """A stable code for programs."""
    param: str | None = None
    """The field that is wrong."""


class CohereErrorResponse(BaseModel):
    """The body of every response of 400 or more."""

    message: str
    id: str | None = None
    error: CohereErrorDetail


def cohere_envelope(problem: Problem, headers: Mapping[str, str]) -> Response:
    """A problem as a response."""
    all_headers = {"Cache-Control": "no-store", **headers}
    if problem.retry_after_s is not None:
        all_headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after_s)))
    status = _STATUS.get(problem.status, problem.status)
    body = json_line(error_body(problem))
    return Response(body, status, all_headers, media_type="application/json")


def error_body(problem: Problem) -> dict[str, object]:
    """The envelope as a value."""
    is_ours = problem.status >= _SERVER_ERROR
    message = problem.detail or problem.title
    return {
        "message": message,
        "id": problem.request_id,
        "error": {
            "message": message,
            "type": "server_error" if is_ours else "invalid_request_error",
            "code": problem.code,
            "param": problem.errors[0].field if problem.errors else None,
        },
    }


def wrong_field(field: str, message: str, error: type[FleetError] = InvalidRequest) -> Refusal:
    """An error that names a field."""
    found = FieldError(
        field=field, where="body", code=error.code, message=message, remedy="change it"
    )
    return Refusal(error, f"{field}: {message}", errors=(found,))


def named(error: ValidationError, names: Mapping[str, str]) -> Refusal:
    """The error for a request of the contract that is invalid, with the surface's names."""
    first = error.errors(include_input=False, include_url=False)[0]
    path = [str(step) for step in first["loc"] if not str(step).startswith("tuple[")]
    path[:1] = [names.get(name, name) for name in path[:1]]
    return wrong_field(".".join(path) or "body", message_of(first))
