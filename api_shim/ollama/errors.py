"""Problems in Ollama's envelope: `{"error": "<message>"}`. Pure.

How the `ollama` client reads it (ollama/ollama-python, `_client.py`): `error` must be a string; in
a stream, a line with one ends it. `code` is an addition of ours for programs. Statuses as in
ollama/ollama `server/routes.go`: 400 for an invalid request, 503 with a known message for a full
queue.
"""

import math
from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel
from starlette.responses import Response

from api_shim.http.problems import Problem
from contract.errors import BackendBusy, ModelMissing, QueueFull, UnknownModel
from contract.json_lines import json_line

_STATUS: Final[Mapping[int, int]] = {422: 400, 415: 400}
_STATUS_OF_CODE: Final[Mapping[str, int]] = {QueueFull.code: 503}
_MISSING: Final[Mapping[str, str | None]] = {
    UnknownModel.code: "model not found",
    ModelMissing.code: None,
}
"""Prefixes where a pull does not help; a backend's own message needs none."""
_WORDS: Final[Mapping[str, str]] = {
    UnknownModel.code: "model not found, try pulling it first",
    ModelMissing.code: "model not found, try pulling it first",
    QueueFull.code: "server busy, please try again",
    BackendBusy.code: "server busy, please try again",
}
"""Ollama's messages, which programs search for."""


class OllamaErrorResponse(BaseModel):
    """The body of every response of 400 or more, and the last line of a stream that failed."""

    error: str
    code: str | None = None
    """A stable code for programs; Ollama has none."""


def envelope(problem: Problem, headers: Mapping[str, str]) -> Response:
    """A problem as a response."""
    return _answered(problem, headers, encoded(problem))


def library_envelope(problem: Problem, headers: Mapping[str, str]) -> Response:
    """A problem as a response where the advice to pull the model is wrong."""
    return _answered(problem, headers, encoded(problem, can_pull=False))


def _answered(problem: Problem, headers: Mapping[str, str], body: bytes) -> Response:
    all_headers = {"Cache-Control": "no-store", **headers}
    if problem.retry_after_s is not None:
        all_headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after_s)))
    status = _STATUS_OF_CODE.get(problem.code) or _STATUS.get(problem.status, problem.status)
    return Response(body, status, all_headers, media_type="application/json")


def encoded(problem: Problem, *, can_pull: bool = True) -> bytes:
    """The envelope as JSON, for a response or a line; `can_pull`: advise to pull the model."""
    words = _WORDS.get(problem.code)
    if problem.code in _MISSING and not can_pull:
        words = _MISSING[problem.code]
    text = f"{words}: {problem.detail}" if words else problem.detail
    return json_line({"error": text or problem.title, "code": problem.code})
