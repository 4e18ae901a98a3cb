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
from pydantic_core import to_json
from starlette.responses import Response

from api_shim.ollama.text import safe
from api_shim.problems import Problem
from contract.backend_errors import BackendBusy, ModelMissing
from contract.errors import QueueFull, UnknownModel

_STATUS: Final[Mapping[int, int]] = {422: 400, 415: 400}
_STATUS_OF_CODE: Final[Mapping[str, int]] = {QueueFull.code: 503}
_WORDS: Final[Mapping[str, str]] = {
    UnknownModel.code: "model not found, try pulling it first",
    ModelMissing.code: "model not found, try pulling it first",
    QueueFull.code: "server busy, please try again",
    BackendBusy.code: "server busy, please try again",
}
"""What programs search the text of the original's errors for."""


class OllamaError(BaseModel):
    """The body of every answer of 400 or more, and the last line of a stream that failed."""

    error: str
    code: str | None = None
    """What programs look at; the original has none."""


def envelope(problem: Problem, headers: Mapping[str, str]) -> Response:
    """A problem as the answer to a call."""
    said = {"Cache-Control": "no-store", **headers}
    if problem.retry_after_s is not None:
        said["Retry-After"] = str(max(1, math.ceil(problem.retry_after_s)))
    status = _STATUS_OF_CODE.get(problem.code) or _STATUS.get(problem.status, problem.status)
    return Response(encoded(problem), status, said, media_type="application/json")


def encoded(problem: Problem) -> bytes:
    """The envelope's JSON; in a stream it is a line."""
    words = _WORDS.get(problem.code)
    text = f"{words}: {problem.detail}" if words else problem.detail
    return safe(to_json({"error": text or problem.title, "code": problem.code}))
