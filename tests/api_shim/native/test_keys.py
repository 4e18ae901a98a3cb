"""API keys over HTTP: made, listed, revoked; shown once; never without an admin."""

import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.keys import Keyed, keyed
from support.redis_server import RedisServer
from support.shim import problem


@pytest.fixture
def redis_url(own_redis: RedisServer) -> str:
    """Not the session's: its shim would take what the next test empties for a loss of keys."""
    return own_redis.url


@pytest.fixture
def fleet(redis_url: str) -> Iterator[Keyed]:
    with keyed(redis_url) as shim:
        yield shim


async def test_a_key_is_shown_once(fleet: Keyed) -> None:
    told = fleet.issue("a", weight=2, limit_jobs=5, limit_tokens=900, name="laptop")
    async with fleet.admin as admin:
        listed = await admin.get("/api/v1/keys")
        row = next(key for key in listed.json()["keys"] if key["id"] == told["id"])

    assert told["key"].startswith(f"flk_{told['id']}_")
    assert row == {name: value for name, value in told.items() if name != "key"}
    assert (row["tenant"], row["weight"], row["limit_jobs"], row["admin"]) == ("a", 2, 5, False)
    assert told["key"] not in listed.text


async def test_no_log_line_has_a_key(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), keyed(redis_url) as fleet:
        told = fleet.issue("a")
        async with fleet.caller("b") as b, fleet.admin as admin:
            await b.get("/api/v1/keys", headers={"x-api-key": told["key"]})
            await admin.delete(f"/api/v1/keys/{told['id']}")

    logged = caplog.text + str([each.__dict__.get("facts") for each in caplog.records])
    assert "api/v1/keys" in logged
    assert "'tenant': 'b', 'key': '" in logged
    for key in (told["key"], fleet.key):
        assert key.split("_", 2)[2] not in logged
        assert key[21:] not in logged


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"tenant": "a"}, "admin"),
        ({"tenant": "a", "admin": True, "expires_in_s": 60}, "admin"),
        ({"admin": True}, "tenant"),
        ({"tenant": "A B", "admin": True}, "tenant"),
        ({"tenant": "a", "admin": True, "weight": 0}, "weight"),
        ({"tenant": "a", "admin": True, "limit_jobs": 0}, "limit_jobs"),
        ({"tenant": "a", "admin": True, "limit_bytes": 1023}, "limit_bytes"),
        ({"tenant": "a", "admin": True, "key": "mine"}, "key"),
    ],
)
async def test_a_wrong_wish_names_its_field(wish: dict[str, Any], words: str, shim: str) -> None:
    answer = httpx.post(f"{shim}/api/v1/keys", json=wish)

    assert words in problem(answer, 422, "invalid_request")["detail"]
    assert httpx.get(f"{shim}/api/v1/keys").json() == {"keys": []}


async def test_keys_are_an_admins_business(fleet: Keyed) -> None:
    told = fleet.issue("a")
    async with fleet.caller("b") as b:
        for refused in (
            await b.get("/api/v1/keys"),
            await b.post("/api/v1/keys", json={"tenant": "b", "admin": True}),
            await b.delete(f"/api/v1/keys/{told['id']}"),
        ):
            problem(refused, 403, "not_allowed")


async def test_the_first_key_is_made_on_this_machine(shim: str) -> None:
    body = {"tenant": "boss", "admin": True}
    for headers in ({"x-forwarded-for": "10.0.0.9"}, {"host": "evil.example"}):
        problem(httpx.post(f"{shim}/api/v1/keys", json=body, headers=headers), 403, "not_local")

    assert httpx.post(f"{shim}/api/v1/keys", json={"tenant": "a"}).status_code == 422


async def test_a_web_page_elsewhere_cannot_make_the_first_key(shim: str) -> None:
    refused = httpx.post(
        f"{shim}/api/v1/keys",
        content=b'{"tenant": "evil", "admin": true}',
        headers={"content-type": "text/plain"},
    )

    problem(refused, 415, "unsupported_media_type")
    assert httpx.get(f"{shim}/api/v1/keys").json() == {"keys": []}


async def test_the_last_admins_key_cannot_be_revoked_before_the_others(fleet: Keyed) -> None:
    fleet.issue("a")
    async with fleet.admin as admin:
        mine = fleet.key.split("_")[1]

        problem(await admin.delete(f"/api/v1/keys/{mine}"), 409, "last_admin")
        assert (await admin.get("/api/v1/keys")).status_code == 200


@pytest.mark.parametrize("id", ["0" * 16, "nonsense", "revision", "x" * 300])
async def test_a_key_that_is_not_there_is_404(id: str, fleet: Keyed) -> None:
    async with fleet.admin as admin:
        problem(await admin.delete(f"/api/v1/keys/{id}"), 404, "unknown_key")
