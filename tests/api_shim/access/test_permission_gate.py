"""What the gate demands of a route that was matched, whatever its path looked like before."""

from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.routing import Route

from api_shim.access.permission_gate import permitted
from contract.errors import NotAllowed
from contract.tenants import KeyFacts
from relay.api_keys import ApiKeyEntry


def call(method: str, path: str, **rights: Any) -> HTTPConnection:
    facts = KeyFacts(tenant="a", id="0" * 16, created_at=0.0, **rights)
    entry = ApiKeyEntry(facts, "digest", facts.owner)
    route = Route(path, print, methods=["GET", "POST", "DELETE"])
    state = {"key": entry}
    return HTTPConnection({"type": "http", "method": method, "route": route, "state": state})


async def test_the_route_that_was_matched_is_asked_again() -> None:
    await permitted(call("POST", "/api/chat"))
    await permitted(call("DELETE", "/api/delete", permissions=("models:admin",)))

    with pytest.raises(NotAllowed, match="models:admin"):
        await permitted(call("DELETE", "/api/delete"))
    with pytest.raises(NotAllowed, match="admin"):
        await permitted(call("POST", "/api/v1/keys"))


async def test_a_route_that_nobody_has_judged_is_open_to_nobody() -> None:
    with pytest.raises(KeyError):
        await permitted(call("GET", "/api/v1/unheard-of", admin=True))
