"""Errors as clients see them: RFC 9457 problem documents.

Invariant: every response of 400 or more on the native surface is `application/problem+json` with a
stable `code`; other surfaces render the same problem in their own envelope.
"""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Any, Final, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.types import Scope

from api_shim.http.error_hints import hints_for
from api_shim.http.head import original_method
from api_shim.http.headers import is_anthropic
from contract.errors import (
    AmbiguousId,
    BatchEnded,
    BudgetSpent,
    ConversationBusy,
    FileQuotaFull,
    FleetError,
    InternalError,
    InvalidRequest,
    JobDamaged,
    JobNotFound,
    JobNotKept,
    KeyReused,
    LastAdmin,
    NotAllowed,
    NotAuthenticated,
    NotDead,
    NotSupported,
    PayloadTooLarge,
    QueueError,
    QueueFull,
    RateLimited,
    RequestError,
    UnknownAlias,
    UnknownBackend,
    UnknownBatch,
    UnknownFile,
    UnknownKey,
    UnknownModel,
    UnknownQueue,
    UnknownTenant,
    UnknownWebhook,
    WrongKind,
)
from contract.wire import WireModel, encode

Where = Literal["body", "query", "path", "header"]


class FieldError(WireModel):
    """One invalid field."""

    field: str
    """Path in the body, as in `messages.0.role`, or the name of a parameter."""
    where: Where
    code: str
    """pydantic's name of the error: `missing`, `extra_forbidden`, ..."""
    message: str
    limit: str | None = None
    """What is allowed."""
    remedy: str
    """How to fix it."""


_LIMITS: Final[dict[str, str]] = {
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "matching {}",
    "expected": "one of {}",
    "expected_tags": "one of {}",
}
_REMEDIES: Final[dict[str, str]] = {
    "missing": "add it",
    "json_invalid": "send valid JSON",
    "string_type": "send a string",
    "int_type": "send a whole number",
    "int_parsing": "send a whole number",
    "float_type": "send a number",
    "float_parsing": "send a number",
    "bool_type": "send true or false",
    "bool_parsing": "send true or false",
    "tuple_type": "send an array",
    "dict_type": "send an object",
    "model_type": "send an object",
    "model_attributes_type": "send an object",
    "union_tag_not_found": "add the field that selects the kind",
    "metadata": "send at most 16 keys, with strings as values",
}


_HEADERS: Final = {"callback_url": "webhook"}
"""Fields whose header has another name."""
MOST_ERRORS: Final = 20
"""Errors of a request that are told; a hostile one may have thousands."""
_LONGEST_TEXT: Final = 300
_LONGEST_NAME: Final = 64


def message_of(error: Mapping[str, Any]) -> str:
    """What is wrong, of one of pydantic's errors, in words for who has sent a list or an object."""
    message = str(error["msg"])
    if "items after validation" in message or "item after validation" in message:
        return f"must have {_limit(error['ctx'])}".removesuffix(" long") + " items"
    if error["type"] == "string_too_long":
        message += ": shorten it"
    message = message.removeprefix("Value error, ").replace("valid tuple", "valid list")
    return message.replace("valid dictionary", "valid object")


def message_of_translated(error: Mapping[str, Any]) -> str:
    """The same of what was made of a body: one message that was sent may have become several."""
    message = message_of(error)
    if error["type"] == "too_long" and tuple(error["loc"]) == ("messages",):
        message += ", where the system prompt and each result of a tool are one"
    return message


def field_errors(
    errors: Iterable[Any], body: Any, known: Sequence[str] = ()
) -> tuple[FieldError, ...]:
    """Our errors for the first of pydantic's; `known` are the body's fields, to suggest one."""
    found = (_field_error(error, body, known) for error in islice(errors, MOST_ERRORS))
    return tuple(dict.fromkeys(found))


def told(errors: Sequence[FieldError], count: int) -> str:
    """The first errors in a line; `count` are those that pydantic has found."""
    detail = "; ".join(f"{each.field}: {each.message}" for each in errors[:3])
    if len(errors) > 3:  # noqa: PLR2004 - as many as fit a line
        detail += f"; and {max(len(errors), count) - 3} more"
    return detail


def _field_error(error: Any, body: Any, known: Sequence[str]) -> FieldError:
    where, *path = error["loc"]
    kind = error["type"]
    name = _as_written(path, body, kind) if where == "body" else ".".join(map(str, path))
    limit = _limit(error.get("ctx", {}))
    return FieldError(
        field=_cut(name) or str(where),
        where=where if where in {"body", "query", "path", "header"} else "body",
        code=kind,
        message=_cut(message_of(error)),
        limit="required" if kind == "missing" else limit,
        remedy=_remedy(kind, name, limit, known),
    )


def _as_written(path: Sequence[int | str], body: Any, kind: str) -> str:
    """The steps of pydantic's path that are in the body.

    Its path also names the members of a union that it tried.
    """
    steps: list[str] = []
    here = body
    for number, step in enumerate(path, start=1):
        is_key = isinstance(here, dict) and step in here
        is_index = isinstance(here, list) and isinstance(step, int) and step < len(here)
        if is_key or is_index:
            here = here[step]
            steps.append(str(step))
        elif kind == "missing" and number == len(path):
            steps.append(str(step))
    return ".".join(steps)


def _cut(text: str) -> str:
    """A text that may repeat what the client has sent."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def _limit(context: dict[str, Any]) -> str | None:
    for key, text in _LIMITS.items():
        if key in context:
            return text.format(context[key])
    return None


def _remedy(kind: str, name: str, limit: str | None, known: Sequence[str]) -> str:
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(name[:_LONGEST_NAME], known, n=1)
        return f"rename it to {close[0]}" if close else "remove it"
    if kind in _REMEDIES:
        return _REMEDIES[kind]
    return f"send a value that is {limit}" if limit else "see /docs for valid values"


PROBLEM_JSON: Final = "application/problem+json"
_RETRY_AFTER_S: Final = 2.0
"""For a temporary error that names no time."""

_STATUS: Final[Mapping[type[Exception], int]] = {
    InvalidRequest: 422,
    PayloadTooLarge: 413,
    UnknownBackend: 404,
    UnknownModel: 404,
    UnknownQueue: 404,
    UnknownAlias: 404,
    JobNotFound: 404,
    JobNotKept: 410,
    AmbiguousId: 409,
    NotAuthenticated: 401,
    NotAllowed: 403,
    UnknownKey: 404,
    UnknownTenant: 404,
    LastAdmin: 409,
    KeyReused: 409,
    ConversationBusy: 409,
    NotDead: 409,
    UnknownFile: 404,
    FileQuotaFull: 413,
    UnknownBatch: 404,
    UnknownWebhook: 404,
    BatchEnded: 409,
    NotSupported: 400,
    WrongKind: 400,
    RequestError: 400,
    QueueFull: 429,
    RateLimited: 429,
    BudgetSpent: 429,
    JobDamaged: 410,
    QueueError: 503,
    Exception: 500,
}
"""HTTP status of each class of error; a class that is not here has its parent's."""

_CODES: Final[Mapping[int, str]] = {
    400: "bad_request",
    404: "no_such_path",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: PayloadTooLarge.code,
    415: "unsupported_media_type",
}
"""Codes of errors that HTTP itself defines."""


class Problem(WireModel):
    """An error in RFC 9457's fields and a few of ours; programs check `code`."""

    type: str
    """`urn:llm-fleet:problem:<code>`"""
    title: str
    """The same for every problem of that code."""
    status: int
    detail: str
    """What is wrong this time, and how to fix it."""
    code: str
    retryable: bool = False
    """Whether the same request may succeed later."""
    retry_after_s: float | None = None
    request_id: str | None = None
    errors: tuple[FieldError, ...] | None = None
    """One entry for each invalid field."""
    matches: tuple[str, ...] | None = None
    """Existing names that are close to the unknown one."""
    capabilities: tuple[str, ...] | None = None
    """What the named backend can do."""
    permission: str | None = None
    """What the key would need (`not_allowed`)."""
    job: str | None = None
    """The earlier job of the conversation."""
    queue: str | None = None
    """The queue that is full."""
    scope: Literal["queue", "tenant"] | None = None
    """Which bound was reached: the queue's or this tenant's."""
    limit: float | None = None
    """The bound."""
    held: float | None = None
    """How much is waiting, or used, in the bound's unit."""
    eta_s: float | None = None
    """Seconds until a job behind all of them would start; null when unknown."""
    checks: dict[str, str] | None = Field(default=None)
    """The checks of `/readyz`: `ok`, or the error."""


class Refusal(HTTPException):
    """An error that the shim itself raises; carries the problem to respond with."""

    def __init__(
        self,
        error: type[FleetError] | str,
        detail: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        """`error` is a class of the contract, or a code; a code needs its HTTP `status`."""
        if isinstance(error, str):
            self.code, retryable = error, False
        else:
            self.code, retryable = error.code, error.retryable
            status = status or status_of(error)
        super().__init__(status or 400, detail, dict(headers or {}))
        self.title = _title(error, self.status_code)
        self.extra: dict[str, Any] = {"retryable": retryable, **extra}


def status_of(error: type[Exception]) -> int:
    """The HTTP status of a class of error."""
    return next(_STATUS[parent] for parent in error.__mro__ if parent in _STATUS)


def _title(error: type[FleetError] | str, status: int) -> str:
    if isinstance(error, str):
        return HTTPStatus(status).phrase
    return (inspect.getdoc(error) or error.code).partition("\n")[0]


class ProblemResponse(Response):
    """A problem as a response."""

    media_type = PROBLEM_JSON

    def __init__(self, problem: Problem, *, headers: Mapping[str, str] | None = None) -> None:
        """Take status and Retry-After from the problem."""
        all_headers = {"Cache-Control": "no-store", **(headers or {})}
        if problem.retry_after_s is not None:
            all_headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after_s)))
        super().__init__(encode(problem), problem.status, all_headers)


def problem_of(error: Exception, scope: Scope) -> Problem:
    """The problem for an error; for a defect of ours it shows nothing but the request id."""
    request_id = scope.get("state", {}).get("request_id")
    match error:
        case Refusal():
            return _problem(
                error.code, error.title, error.status_code, error.detail,
                request_id=request_id, **error.extra,
            )  # fmt: skip
        case RequestValidationError():
            return _invalid(error, scope, request_id)
        case HTTPException(status_code=status):
            return _of_http(error, status, scope, request_id)
        case FleetError():
            after_s = error.retry_after_s
            if after_s is None and error.retryable:
                after_s = _RETRY_AFTER_S
            detail, facts = _named(error, scope)
            return _problem(
                error.code, _title(type(error), 500), status_of(type(error)), detail,
                retryable=error.retryable, retry_after_s=after_s, request_id=request_id,
                **facts,
            )  # fmt: skip
        case _:
            detail = "An internal error of the shim; its log has the details under this request_id."
            title = _title(InternalError, 500)
            return _problem(InternalError.code, title, 500, detail, request_id=request_id)


def _named(error: FleetError, scope: Scope) -> tuple[str, dict[str, Any]]:
    """The message and facts of an error, with its field as the client has named that."""
    facts = {**error.facts}
    field: str | None = facts.pop("field", None)
    if field is None:
        return error.message, facts
    (name,) = hints_for(scope.get("path", "")).named([field])
    where: Where = "body"
    header = f"X-Fleet-{_HEADERS.get(field, field).replace('_', '-').title()}"
    if any(key == header.lower().encode() for key, _ in scope.get("headers", ())):
        name, where = header, "header"
    why = error.message.removeprefix(f"{field}: ")
    told = FieldError(field=name, where=where, code=error.code, message=why, remedy="change it")
    return f"{name}: {why}", {**facts, "errors": (told,)}


ANTHROPIC: Final = "/v1/messages"
"""The prefix of Anthropic's surface, whose envelope its clients get on all paths of `/v1`."""
Envelope = Callable[[Problem, Mapping[str, str]], Response]
"""Renders a problem, with these headers, as a surface does."""


def error_response(error: Exception, scope: Scope) -> Response:
    """The response to an error in the envelope of the path's surface, even if no route matched."""
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    problem = problem_of(error, scope)
    envelopes: Mapping[str, Envelope] = scope["app"].state.envelopes
    path = scope["path"]
    if path.startswith("/v1") and is_anthropic(scope):
        path = ANTHROPIC
    surfaces = [prefix for prefix in envelopes if path.startswith(prefix)]
    if surfaces:
        return envelopes[max(surfaces, key=len)](problem, headers)
    return native_envelope(problem, headers)


def native_envelope(problem: Problem, headers: Mapping[str, str]) -> Response:
    """The envelope of the native API and of paths that belong to no surface."""
    return ProblemResponse(problem, headers=headers)


def _problem(code: str, title: str, status: int, detail: str, **fields: Any) -> Problem:
    kind = f"urn:llm-fleet:problem:{code}"
    return Problem(type=kind, title=title, status=status, detail=detail, code=code, **fields)


def _invalid(error: RequestValidationError, scope: Scope, request_id: str | None) -> Problem:
    body_field = getattr(scope.get("route"), "body_field", None)
    known: Sequence[str] = ()
    if body_field is not None:
        known = tuple(getattr(body_field.field_info.annotation, "model_fields", ()))
    found = error.errors()
    errors = field_errors(found, error.body, known)
    return _problem(
        InvalidRequest.code, _title(InvalidRequest, 422), 422, told(errors, len(found)),
        errors=errors, request_id=request_id,
    )  # fmt: skip


def _of_http(error: HTTPException, status: int, scope: Scope, request_id: str | None) -> Problem:
    method, path = original_method(scope), scope.get("path", "")
    details: dict[int, str] = {
        404: f"There is nothing at {path}; /docs lists every path.",
        405: f"{method} does not work on {path}; the Allow header says what does.",
    }
    code = _CODES.get(status, "http_error")
    phrase = HTTPStatus(status).phrase
    return _problem(
        code, phrase, status, details.get(status, str(error.detail)), request_id=request_id
    )


def install(app: FastAPI, envelopes: Mapping[str, Envelope]) -> None:
    """Render every error of the application as a problem.

    `envelopes` are by path prefix; the longest prefix counts.
    """
    app.state.envelopes = envelopes

    async def answer(request: Request, error: Exception) -> Response:
        return error_response(error, request.scope)

    for kind in (HTTPException, RequestValidationError, FleetError):
        app.add_exception_handler(kind, answer)


Documented = Literal[400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422, 429, 500, 503]


def documented(*statuses: Documented) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail with these statuses, and with 500."""
    return {
        status: {"model": Problem, "description": _DESCRIPTIONS.get(status, "")}
        for status in sorted({*statuses, 500})
    }


_DESCRIPTIONS: Final[Mapping[int, str]] = {
    400: "`invalid_json` (of a body), `invalid_cursor`, `wrong_kind` (the model is not for that "
    "kind of job; `matches` has models that are) or `not_supported` (`capabilities` says what the "
    "backend can do).",
    401: "No API key, or one that is unknown, revoked or expired.",
    403: "The key lacks a permission (`permission` says which), or may not use this model or "
    "backend (`not_allowed`); or, while there are no keys, the client is not on this machine "
    "(`not_local`).",
    404: "`job_not_found` (also of another tenant's), `unknown_backend`, `unknown_model`, "
    "`unknown_queue`, `unknown_kind` or `unknown_key`; `matches` has close names.",
    406: "The client accepts none of the formats of events.",
    409: "Several ids have this prefix (`ambiguous_id`), the name is taken (`name_taken`), the "
    "Idempotency-Key belongs to another request "
    "(`idempotency_key_reused`), an earlier message of the conversation has not ended "
    "(`conversation_busy`; `job` is its id), the job is not a dead letter (`not_dead`), or this "
    "shim was not started by `fleet up` (`not_supervised`).",
    410: "The job has ended and its texts were not kept (`job_not_kept`).",
    413: "The body is larger than FLEET_MAX_BODY_BYTES.",
    415: "The body is not application/json.",
    422: "A field is missing, unknown or out of range (`errors` names it).",
    429: "The queue is full (`queue_full`), or the tenant's tokens of the last minute "
    "(`rate_limited`), or its tokens or money of this day or month (`budget_spent`), are used up "
    "or reserved; Retry-After says when to retry.",
    500: "An internal error.",
    503: "No live worker (`no_worker`), Redis does not respond (`relay_unavailable`), or "
    "`fleet up` does not (`control_lost`).",
}
