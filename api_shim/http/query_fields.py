"""Query fields of native routes: an unknown one is refused.

Drop-in surfaces accept them, because real clients send them. On a native route a misspelt filter
would be ignored, and the response would look right.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Final

from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection

from api_shim.http.problems import FieldError, Refusal
from contract.errors import InvalidRequest

_LONGEST_NAME: Final = 64
_MOST_TOLD: Final = 8


async def only_known_fields(connection: HTTPConnection) -> None:
    """A dependency of native routes; raises Refusal (422) that names each unknown field.

    The WebSocket route checks this itself once it has accepted: before, it cannot send a reason.
    """
    if connection.scope["type"] == "http":
        demand_known_fields(connection)


def demand_known_fields(connection: HTTPConnection) -> None:
    """Check that the route knows every field of the query; raises Refusal."""
    given = connection.query_params
    if not given:
        return
    known = tuple(_known(connection.scope["route"].dependant))
    unknown = [name for name in dict.fromkeys(given) if name not in known]
    if unknown:
        raise _refusal(unknown[:_MOST_TOLD], known)


def _known(dependant: Dependant) -> Iterator[str]:
    for field in dependant.query_params:
        yield field.alias
    for each in dependant.dependencies:
        yield from _known(each)


def _refusal(unknown: Sequence[str], known: Sequence[str]) -> Refusal:
    has = f"this path knows {', '.join(known)}" if known else "this path has no query fields"
    names = ", ".join(repr(name[:_LONGEST_NAME]) for name in unknown)
    errors = tuple(
        FieldError(
            field=name[:_LONGEST_NAME],
            where="query",
            code="extra_forbidden",
            message=f"Unknown field: {has}.",
            remedy=_remedy(name, known),
        )
        for name in unknown
    )
    return Refusal(InvalidRequest, f"Unknown query fields: {names}; {has}.", errors=errors)


def _remedy(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"rename it to {close[0]}" if close else "remove it"
