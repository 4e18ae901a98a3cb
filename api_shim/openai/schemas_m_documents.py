"""What the document at /openapi.json says of the answers of these routes."""

from typing import Any, Final

from pydantic import BaseModel

from api_shim.openai.errors import ErrorBody
from api_shim.openai.sse import MEDIA_TYPE

_ALWAYS: Final = (401, 403, 500)
JOB_ENDS: Final = (400, 404, 408, 409, 413, 415, 429, 502, 503, 504)
"""Statuses that a call has which makes a job."""
_DESCRIPTIONS: Final[dict[int, str]] = {
    400: "A field is missing or wrong (`param` names it), or the model cannot do it.",
    401: "No API key, or one that is not known here, was revoked or has expired.",
    403: "Not for this caller.",
    404: "`model_not_found`: no live backend has the model.",
    408: "The caller hung up; nobody hears this.",
    409: "Somebody cancelled the job, or the Idempotency-Key belongs to another request.",
    413: "The body is larger than FLEET_MAX_BODY_BYTES.",
    415: "The body is of another type.",
    429: "`rate_limit_exceeded`: the queue is full, Retry-After says when to come back; or "
    "`insufficient_quota` of the backend's account.",
    500: "A defect of ours.",
    502: "The backend failed.",
    503: "Nobody serves the model, its backend is busy, or Redis does not answer.",
    504: "It took too long.",
}

_EVENT: Final = {
    "type": "object",
    "description": "Each event of the stream; of a chat the last one's data is `[DONE]`.",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}


def faults(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail so."""
    return {
        status: {"model": ErrorBody, "description": _DESCRIPTIONS[status]}
        for status in sorted({*statuses, *_ALWAYS})
    }


def answers(whole: type[BaseModel], *, streams: str | None = None) -> dict[int | str, Any]:
    """The `responses` of a route that makes a job; `streams`: an example of an event."""
    content: dict[str, Any] = {}
    if streams is not None:
        content[MEDIA_TYPE] = {"schema": _EVENT, "example": streams}
    good = {
        "model": whole,
        "description": "The answer; with `stream` as it comes.",
        "headers": {
            "X-Fleet-Job": {
                "schema": {"type": "string"},
                "description": "The job: follow it at /api/v1/jobs/<id>/events.",
            },
            "X-Fleet-Ignored": {
                "schema": {"type": "string"},
                "description": "Fields of the request that the backend has no word for.",
            },
        },
        "content": content,
    }
    return {200: good, **faults(*JOB_ENDS)}
