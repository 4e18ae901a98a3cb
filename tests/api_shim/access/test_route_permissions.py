"""Every route has a row in the table, and the table is what the shim does."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.routing import Route
from support.keys import Keyed, bearer, keyed
from support.redis_server import RedisServer

from api_shim.access.route_permissions import NEEDS, check_routes, row_of, rows_of
from api_shim.app import create_app
from api_shim.settings import ShimSettings
from contract.tenants import EVERY, USE, Permission

ID = "0" * 32
VALUES = {"id": ID, "file_id": f"file-{ID}", "batch_id": f"batch_{ID}", "queue": "box.chat"}


@pytest.fixture
def fleet(own_redis: RedisServer) -> Iterator[Keyed]:
    """Not on the session's Redis: its shim would take what the next test empties for a loss."""
    with keyed(own_redis.url) as shim:
        yield shim


def routes_of(routes: Any) -> Iterator[Any]:
    for route in routes:
        inner = getattr(route, "original_router", None)
        yield from [route] if inner is None else routes_of(inner.routes)


def path_of(row: str) -> str:
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda it: VALUES.get(it[1], "x"), row.partition(" ")[2])


def test_every_route_has_a_row_and_every_row_a_route() -> None:
    routes = routes_of(create_app(ShimSettings()).routes)

    assert {row for route in routes for row in rows_of(route)} == set(NEEDS)


def test_a_route_without_a_row_does_not_start() -> None:
    with pytest.raises(LookupError, match="POST /api/v1/new"):
        check_routes([Route("/api/v1/new", print, methods=["POST"])])


@pytest.mark.parametrize("row", NEEDS)
def test_a_path_finds_its_row(row: str) -> None:
    if not row.startswith("MOUNT"):
        assert row_of(row.partition(" ")[0], path_of(row)) == row


def test_a_head_is_judged_as_its_get() -> None:
    assert row_of("HEAD", "/api/v1/keys") == "GET /api/v1/keys"
    assert row_of("HEAD", "/api/tags") == "HEAD /api/tags"
    assert row_of("PUT", "/api/v1/keys") is None


KEYS: dict[str, tuple[Permission, ...]] = {
    "nothing": (),
    "use": USE,
    "change": ("models:write", "models:admin"),
    "every": EVERY,
}


def test_each_route_does_what_its_row_says_for_each_key(fleet: Keyed) -> None:
    wrong = []
    with httpx.Client(base_url=fleet.url, timeout=10) as http:
        for name, permissions in KEYS.items():
            headers = bearer(fleet.issue("a", permissions=permissions)["key"])
            for row, need in NEEDS.items():
                method = row.partition(" ")[0]
                if method in {"MOUNT", "WEBSOCKET"}:
                    continue
                with http.stream(method, path_of(row), json={}, headers=headers) as answer:
                    expected = need not in {"nothing", "key", *permissions}
                    if (answer.status_code == 403) is not expected:
                        wrong.append((name, row, answer.status_code))

    assert wrong == []


@pytest.mark.parametrize(
    "row",
    ["POST /api/v1/jobs/delete", "DELETE /api/delete", "POST /v1/messages", "POST /v2/rerank",
     "POST /v1/images/edits", "POST /v1/files"],
)  # fmt: skip
def test_a_refusal_has_its_surfaces_shape_and_names_the_permission(row: str, fleet: Keyed) -> None:
    method, path = row.split()
    headers = bearer(fleet.issue("a", permissions=["models:read"])["key"])
    answer = httpx.request(method, fleet.url + path, headers=headers, content=b"{")
    error = answer.json().get("error", answer.json())

    assert answer.status_code == 403
    assert f"permission {NEEDS[row]}" in str(answer.json())
    if path == "/api/v1/jobs/delete":
        assert answer.json()["permission"] == "models:admin"
    elif path == "/v1/messages":
        assert error["type"] == "permission_error"
