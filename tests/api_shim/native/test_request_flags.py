"""A flag of a native request is true or false, and no word or number that could mean either.

Subjects: api_shim/http/json_body.py.
"""

from collections.abc import Iterator
from typing import Any

from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from support.keys import keyed
from support.redis_server import RedisServer
from support.shim import problem

from api_shim import app

BODIES = {
    f"{min(route.methods)} {route.path}": route.body_field.field_info.annotation
    for module in app._NATIVE
    for route in module.router.routes
    if isinstance(route, APIRoute) and route.body_field is not None
}


def flags(schema: Any, where: str = "") -> Iterator[tuple[str, bool]]:
    """Every bool of a schema, and whether it is strict."""
    if isinstance(schema, list | tuple):
        for each in schema:
            yield from flags(each, where)
    elif isinstance(schema, dict):
        if schema.get("type") == "bool":
            yield where, schema.get("strict", False)
        for name, inner in schema.items():
            if name not in {"metadata", "serialization"}:
                yield from flags(inner, f"{where}.{name}")


def test_every_flag_of_every_request_is_strict() -> None:
    found = [
        (route, *flag)
        for route, body in BODIES.items()
        for flag in flags(TypeAdapter(body).core_schema)
    ]

    assert len(BODIES) > 20
    assert len(found) > 10
    assert [flag for flag in found if not flag[-1]] == []


async def test_a_key_is_an_admin_s_only_by_true(own_redis: RedisServer) -> None:
    with keyed(own_redis.url) as fleet:
        async with fleet.admin as admin:
            for value in ("yes", "true", "", 1, 0, [], {}):
                answer = await admin.post("/api/v1/keys", json={"tenant": "a", "admin": value})
                error = problem(answer, 422, "invalid_request")["errors"][0]

                assert (error["field"], error["remedy"]) == ("admin", "send true or false")
            assert len((await admin.get("/api/v1/keys")).json()["keys"]) == 1
