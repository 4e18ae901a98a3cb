"""Where a made-up request is aimed, and what is wrong with its answer."""

import re
import signal
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import schemathesis
from schemathesis.core import NOT_SET
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api_shim.app import create_app
from api_shim.settings import ShimSettings
from fuzz.tenants import Caller, Stage
from fuzz.valid_requests import Valid, body_of

ANSWER_WITHIN_S: Final = 40.0
ON_PURPOSE: Final = ("no_worker", "not_supported")
"""Codes of 5xx responses for what a fleet does not have, which is no internal error."""
NOT_PARSED: Final = '"malformed_request"'
"""What a server answers to a head that is no HTTP, as one with a made-up Content-Length: before any
operation, whose document has nothing of it."""
CHECKS: Final[Any] = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
ENDLESS: Final = "GET /api/v1/overview/events"
"""It never ends: its tests are in test_fleet_watch.py."""
_FORMS: Final = {
    "embed": "scripted-embed",
    "image": "scripted-image",
    "rerank": "scripted-rerank",
    "score": "scripted-rerank",
    "delete": "a-copy",
}
_REFERENCES: Final = {
    "input_file_id": "/v1/files",
    "previous_response_id": "/v1/responses",
}
"""Fields that name a thing, and where things of its sort are."""
_UNKNOWN: Final = {"backend", "after_any", "not_before"}
"""Fields for which nearly all that is made up is refused."""
_ID: Final = re.compile(r"[0-9A-Za-z_-]{16,}")


def operations() -> dict[str, Any]:
    """Every operation of the document, by name; what deletes comes last."""
    document = schemathesis.openapi.from_dict(create_app(ShimSettings()).openapi())
    found = [each.ok() for each in document.get_all_operations()]
    found.sort(key=lambda it: it.method == "delete")
    return {each.label: each for each in found if each.label != ENDLESS}


def case_of(operation: Any, request: Valid) -> schemathesis.Case:
    """A request of an operation as it is sent."""
    has_body = request.body is not None
    made: schemathesis.Case = operation.Case(
        path_parameters=request.path,
        query=request.query,
        body=request.body if has_body else NOT_SET,
        media_type=next(iter(operation.body)).media_type if has_body else None,
    )
    return made


def model_for(path: str) -> str:
    """A scripted model that can do what is asked at a path."""
    return next((form for word, form in _FORMS.items() if word in path), "scripted-echo")


def filled(body: Any, model: str, things: dict[str, str]) -> Any:
    """The same body, in which fields at any depth name a model and things that are there."""
    match body:
        case list():
            return [filled(value, model, things) for value in body]
        case dict():
            known = {name: things[path] for name, path in _REFERENCES.items() if name in body}
            if isinstance(body.get("after"), list):
                known["after"] = [things["/api/v1/jobs"]]
            if isinstance(body.get("model"), str):
                known["model"] = model
            rest = {name: it for name, it in body.items() if name not in _UNKNOWN}
            return {name: filled(it, model, things) for name, it in rest.items()} | known
    return body


def aim(case: schemathesis.Case, things: dict[str, str], *, stream: bool) -> None:
    """Let it ask for things that are there, on a drop-in surface for a stream if it may."""
    if isinstance(case.body, dict):
        streams = {} if case.path.startswith("/api/v1") else {"stream": stream}
        body = filled(case.body, model_for(case.path), things)
        case.body = {**body, **(streams if "model" in body else {})}
    fitting = [path for path in things if case.path.startswith(path)]
    if case.path.endswith("/retry"):
        fitting = ["/api/v1/dead"]
    if fitting and case.path_parameters:
        name = things[max(fitting, key=len)]
        case.path_parameters = dict.fromkeys(case.path_parameters, name)


def at_home(body: Any) -> Any:
    """The same body, with addresses that lead nowhere: what is made up may exist somewhere."""
    match body:
        case dict():
            return {name: at_home(value) for name, value in body.items()}
        case list():
            return [at_home(value) for value in body]
        case str() if body.startswith(("http://", "https://")):
            return "https://fuzz.invalid/"
    return body


def departing(body: dict[str, Any], valid: Any, chance: int) -> dict[str, Any]:
    """A valid body in which one field is made up: what is made up all over is soon refused."""
    name = sorted(body)[chance % len(body)]
    return {**valid, name: body[name]}


def aimed(at: Stage, case: schemathesis.Case, caller: Caller) -> Iterator[Caller | None]:
    """Aim a case: mostly at what is the caller's, then at another tenant's things.

    The case is to be sent each time. What is yielded is the tenant at whose things it is aimed, if
    that is another one.
    """
    case.body = at_home(case.body)
    if not case.path.startswith("/api/v1"):
        # A drop-in call stays open until then, as docs/clients.md says: as long as a month.
        case.headers.pop("X-Fleet-Not-Before", None)
    body, names = case.body, case.path_parameters
    chance = zlib.crc32(repr((caller.name, names, case.query, body)).encode())
    if chance & 8:
        # With a name of a backend that it has made up, no job is accepted.
        for name in [each for each in case.headers if each.lower().startswith("x-fleet")]:
            del case.headers[name]
    valid = body_of(caller, case.operation.label)
    sent = body
    if chance & 16 and valid and isinstance(body, dict) and body:
        case.body = sent = departing(body, valid, chance >> 5)
    if chance % 4:
        aim(case, caller.things, stream=chance % 8 < 4)
    yield None
    if not caller.is_admin:
        other = at.other(caller)
        case.body, case.path_parameters = sent, names
        aim(case, {**caller.things, **other.things}, stream=chance % 8 < 4)
        yield other if _named(case) & set(other.things.values()) else None
    case.body, case.path_parameters = body, names


def _named(case: schemathesis.Case) -> set[str]:
    """Ids of things in the path of a case, and in the fields of its body that name some."""
    named = {str(each) for each in (case.path_parameters or {}).values()}
    if isinstance(case.body, dict):
        after = case.body.get("after")
        named |= {str(case.body[name]) for name in _REFERENCES if name in case.body}
        named |= {str(each) for each in after} if isinstance(after, list) else set()
    return named


def fire(
    at: Stage, case: schemathesis.Case, caller: Caller, owner: Caller | None
) -> tuple[int, str]:
    """Send a request; its status (0: none), and what is wrong with the answer, if anything."""
    try:
        with _bounded(ANSWER_WITHIN_S):
            response = case.call(
                base_url=at.url, headers=caller.headers, timeout=30, session=at.session
            )
    except (OSError, TimeoutError) as error:
        return 0, f"no answer: {error!r}"
    text = response.content.decode(errors="replace")
    if wrong := "" if NOT_PARSED in text else _undocumented(case, response):
        return response.status_code, wrong
    if response.status_code >= 500 and not any(code in text for code in ON_PURPOSE):
        return response.status_code, f"an internal error: {text[:500]}"
    if caller.is_admin:
        return response.status_code, ""
    if owner is not None and response.status_code < 400:
        return response.status_code, f"{caller.name} may do this to what is {owner.name}'s"
    asked = f"{response.request.url} {response.request.body!r} {case.headers!r}"
    seen = seen_of(at.other(caller), text, asked)
    if not seen and case.method == "POST" and response.status_code < 300:
        for id in re.findall(r'"id": ?"([0-9A-Za-z_-]{16,})"', text):
            caller.own(id)
    return response.status_code, seen


def _undocumented(case: schemathesis.Case, response: Any) -> str:
    """Where an answer is not what the document says."""
    try:
        case.validate_response(response, checks=CHECKS)
    except (FailureGroup, Failure) as failure:
        return _words(failure)
    return ""


def _words(failure: FailureGroup[Any] | Failure) -> str:
    each = failure.exceptions if isinstance(failure, FailureGroup) else (failure,)
    return "\n".join(str(one) for one in each)


def seen_of(other: Caller, text: str, asked: str) -> str:
    """What a text tells of another tenant that the request has not named."""
    if other.secret in text:
        return f"what {other.name} wrote"
    found = (id for id in set(_ID.findall(text)) & other.ids.keys() if id not in asked)
    return next((f"the id {id} of {other.name}" for id in found), "")


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer: a stream with signs of life has no timeout of its own."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"not ended after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
