"""Query fields of our own routes: one that a route does not know is refused, with those it does.

Drop-in surfaces accept them, as real clients send them; here a misspelt filter that filters nothing
would look like an answer.
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

    A WebSocket is refused by its route, once it is open: before that, no reason can be told.
    """
    if connection.scope["type"] == "http":
        demand_known_fields(connection)


def demand_known_fields(connection: HTTPConnection) -> None:
    """Return if the route knows every field of the query; raises Refusal."""
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
            message=f"It is not known: {has}.",
            remedy=_remedy(name, known),
        )
        for name in unknown
    )
    return Refusal(InvalidRequest, f"Unknown in the query: {names}; {has}.", errors=errors)


def _remedy(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"rename it to {close[0]}" if close else "remove it"
