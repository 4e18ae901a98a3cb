"""Problems in Ollama's envelope: `{"error": "<words>"}`. Pure.

What the `ollama` client makes of it (ollama/ollama-python, `_client.py`): `error` must be a plain
string; in a stream, a line that has one ends it. `code` beside it is ours, for programs.
Statuses as in ollama/ollama `server/routes.go`: what is wrong with a request is 400, a full queue
503 with words that programs look for.
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
"""The same where nothing is gained by a pull; what a backend says of its own stands alone."""
_WORDS: Final[Mapping[str, str]] = {
    UnknownModel.code: "model not found, try pulling it first",
    ModelMissing.code: "model not found, try pulling it first",
    QueueFull.code: "server busy, please try again",
    BackendBusy.code: "server busy, please try again",
}
"""What programs search the text of the original's errors for."""


class OllamaErrorResponse(BaseModel):
    """The body of every answer of 400 or more, and the last line of a stream that failed."""

    error: str
    code: str | None = None
    """What programs look at; the original has none."""


def envelope(problem: Problem, headers: Mapping[str, str]) -> Response:
    """A problem as the answer to a call."""
    return _answered(problem, headers, encoded(problem))


def library_envelope(problem: Problem, headers: Mapping[str, str]) -> Response:
    """The same where pulling the model is what was asked for, or would help nobody."""
    return _answered(problem, headers, encoded(problem, can_pull=False))


def _answered(problem: Problem, headers: Mapping[str, str], body: bytes) -> Response:
    said = {"Cache-Control": "no-store", **headers}
    if problem.retry_after_s is not None:
        said["Retry-After"] = str(max(1, math.ceil(problem.retry_after_s)))
    status = _STATUS_OF_CODE.get(problem.code) or _STATUS.get(problem.status, problem.status)
    return Response(body, status, said, media_type="application/json")


def encoded(problem: Problem, *, can_pull: bool = True) -> bytes:
    """The envelope's JSON; in a stream it is a line. `can_pull`: whether to advise that."""
    words = _WORDS.get(problem.code)
    if problem.code in _MISSING and not can_pull:
        words = _MISSING[problem.code]
    text = f"{words}: {problem.detail}" if words else problem.detail
    return json_line({"error": text or problem.title, "code": problem.code})
