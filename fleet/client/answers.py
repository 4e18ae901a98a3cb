"""Reads answers of a shim, and the exceptions that its error responses stand for. Pure.

What else answers at its address is said to be no fleet.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from contract.errors import FleetError, QueueError, RequestError
from contract.wire import WireModel, decode
from fleet.client.errors import NoFleet, NotAuthorised

AnyModel = TypeVar("AnyModel", bound=WireModel)
_SHOWN: Final = 60
"""Bytes of an answer that is none of a fleet."""


def answer_of(kind: type[AnyModel], body: bytes) -> AnyModel:
    """The answer as a model; fields of newer shims are left out. Raises NoFleet."""
    try:
        return decode(kind, body)
    except (ValidationError, TypeError) as error:
        raise _no_fleet(body) from error


def fields_of(body: bytes) -> dict[str, Any]:
    """The answer as a JSON object; raises NoFleet."""
    try:
        fields = from_json(body)
    except ValueError as error:
        raise _no_fleet(body) from error
    if not isinstance(fields, dict):
        raise _no_fleet(body)
    return fields


def listed(kind: type[AnyModel], name: str, body: bytes) -> tuple[AnyModel, ...]:
    """The list under its name, as in `{"backends": [...]}`; raises NoFleet."""
    items = fields_of(body).get(name)
    if not isinstance(items, list):
        raise _no_fleet(body)
    try:
        return tuple(kind.model_validate(item) for item in items)
    except ValidationError as error:
        raise _no_fleet(body) from error


def _no_fleet(body: bytes) -> NoFleet:
    begins = body[:_SHOWN].decode("utf-8", "replace").strip()
    what = f"begins with {begins!r}" if begins else "is empty"
    return NoFleet(
        "the address of FLEET_URL (or --url) does not answer as a fleet of this version does: its "
        f"answer {what}. Is it the address of a shim?"
    )


class ProblemField(BaseModel):
    """The fields that we read of an error in OpenAI's envelope, as paths under `/v1` send it."""

    model_config = ConfigDict(extra="ignore")

    message: str = ""
    code: str | None = None


class ProblemDocument(BaseModel):
    """The fields that we read of `application/problem+json` (RFC 9457) or OpenAI's envelope."""

    model_config = ConfigDict(extra="ignore")

    title: str = ""
    detail: str = ""
    code: str = ""
    error: ProblemField = ProblemField()


def _family(root: type[FleetError]) -> Iterator[type[FleetError]]:
    yield root
    for child in root.__subclasses__():
        yield from _family(child)


def error_class(code: str) -> type[FleetError] | None:
    """The subclass of FleetError with this code; None if there is none."""
    return next((kind for kind in _family(FleetError) if kind.code == code), None)


def error_of(status: int, body: bytes, headers: Mapping[str, str]) -> FleetError:
    """The exception for an error response: by its code, by `status` if the code is unknown.

    `retry_after_s` is taken from the header `Retry-After` (seconds).
    """
    try:
        problem = ProblemDocument.model_validate_json(body)
    except ValidationError:
        problem = ProblemDocument(detail=body[:200].decode("utf-8", "replace"))
    message = problem.detail or problem.error.message or problem.title
    message = message or f"the shim responded with {status} without a reason"
    kind = error_class(problem.code or problem.error.code or "") or _by_status(status)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        kind = NotAuthorised
    return kind(message, retry_after_s=_seconds(headers.get("retry-after")))


def _by_status(status: int) -> type[FleetError]:
    server_side = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return QueueError if server_side or status == HTTPStatus.TOO_MANY_REQUESTS else RequestError


def _seconds(retry_after: str | None) -> float | None:
    try:
        return float(retry_after) if retry_after else None
    except ValueError:
        return None
