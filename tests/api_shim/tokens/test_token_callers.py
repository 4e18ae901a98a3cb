"""Tokens in place of API keys: who calls, what it may, and when that ends."""

import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from support.keys import Keyed, bearer, client, issued
from support.redis_server import RedisServer
from support.shim import CHAT, problem, serving, stage
from support.token_server import Issuer, ec_key, token_server
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from api_shim.http.authentication import Authenticator
from api_shim.tokens.token_settings import TokenSettings
from contract.errors import InvalidSetting
from relay.api_keys import ApiKeyTable


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with token_server() as server:
        yield server


@pytest.fixture
def shim(issuer: Issuer, own_redis: RedisServer) -> Iterator[str]:
    settings = {"oidc_permissions_claim": "scope", "oidc_leeway_s": 0, "key_max_age_s": 0.3}
    with serving(own_redis.url, **issuer.settings(**settings)) as url:
        yield url


def caller(url: str, issuer: Issuer, scope: str = "fleet:use", **claims: Any) -> httpx.AsyncClient:
    return client(url, issuer.token(scope=scope, **claims))


async def test_a_token_is_a_tenant_with_its_permissions(shim: str, issuer: Issuer) -> None:
    async with caller(shim, issuer, "openid fleet:chat") as ann, caller(shim, issuer, "") as none:
        seen = (await ann.get("/api/v1/caller")).json()
        refused = await ann.post("/api/v1/jobs/embed", json={"model": "m", "input": ["a"]})

        assert (seen["tenant"]["name"], seen["needs_key"]) == ("ann", True)
        assert seen["tenant"]["permissions"] == ["chat"]
        assert "embed" in problem(refused, 403, "not_allowed")["detail"]
        problem(await none.post("/api/v1/jobs/chat", json=CHAT), 403, "not_allowed")


async def test_without_a_token_no_client_is_served_not_even_here(shim: str, issuer: Issuer) -> None:
    async with httpx.AsyncClient(base_url=shim) as nobody:
        problem(await nobody.get("/api/v1/jobs"), 401, "not_authenticated")
        problem(await nobody.post("/api/v1/jobs/chat", json=CHAT), 401, "not_authenticated")
        problem(
            await nobody.get("/api/v1/jobs", headers=bearer("ey.a.b")), 401, "not_authenticated"
        )
        refused = await nobody.get("/v1/models", headers=bearer(issuer.token(aud="other")))

    assert refused.status_code == 401
    assert "another audience" in refused.text


async def test_an_admins_token_makes_keys_and_both_are_taken(shim: str, issuer: Issuer) -> None:
    admin = bearer(issuer.token(scope="fleet:admin"))
    made = issued(shim, admin, tenant="boss", admin=True)
    async with client(shim, made["key"]) as boss, caller(shim, issuer) as ann:
        assert (await boss.get("/api/v1/keys")).status_code == 200
        assert (await ann.get("/api/v1/jobs")).status_code == 200
        problem(await ann.get("/api/v1/keys"), 403, "not_allowed")


async def test_tenants_of_tokens_and_keys_are_the_same_and_apart_from_others(
    shim: str, issuer: Issuer, own_redis: RedisServer
) -> None:
    boss = issued(shim, bearer(issuer.token(scope="fleet:admin")), tenant="boss", admin=True)
    key = Keyed(shim, boss["key"]).issue("ann")["key"]
    async with (
        stage(shim, own_redis.url) as at,
        caller(shim, issuer) as ann,
        caller(shim, issuer, sub="bob") as bob,
        client(shim, key) as same,
    ):
        await at.announce()
        job = (await ann.post("/api/v1/jobs/chat", json=CHAT)).json()["id"]

        assert (await same.get(f"/api/v1/jobs/{job}")).status_code == 200
        problem(await bob.get(f"/api/v1/jobs/{job}"), 404, "job_not_found")


async def test_settings_say_what_tokens_give_their_tenant(
    issuer: Issuer, own_redis: RedisServer
) -> None:
    rights = {
        "ann": {"weight": 2, "models": ["m", "qwen*"], "backends": ["sc*"], "limit_jobs": 1},
        "*": {"limit_tokens_day": 5},
    }
    claim = {"oidc_permissions_claim": "scope", "oidc_tenants": rights}
    with serving(own_redis.url, **issuer.settings(**claim)) as url:
        async with (
            stage(url, own_redis.url) as at,
            caller(url, issuer) as ann,
            caller(url, issuer, sub="bob") as bob,
            caller(url, issuer, "fleet:admin") as boss,
        ):
            await at.announce("scripted", "m", "other")
            await at.announce("box", "m")
            told = [(await each.get("/api/v1/caller")).json() for each in (ann, bob, boss)]
            seen = [each["tenant"] for each in told]
            listed = [row["id"] for row in (await ann.get("/v1/models")).json()["data"]]
            first = await ann.post("/api/v1/jobs/chat", json=CHAT)
            full = await ann.post("/api/v1/jobs/chat", json=CHAT)
            other = await ann.post("/api/v1/jobs/chat", json={**CHAT, "model": "other"})
            box = await ann.post("/api/v1/jobs/chat", json={**CHAT, "backend": "box"})
            spent = await bob.post("/api/v1/jobs/chat", json=CHAT)

        assert [each["weight"] for each in seen] == [2, 1, 2]
        assert [each.get("models") for each in seen] == [["m", "qwen*"], None, None]
        assert listed == ["m"]
        assert first.status_code == 202
        assert problem(full, 429, "queue_full")["limit"] == 1
        assert "other" in problem(other, 403, "not_allowed")["detail"]
        assert "box" in problem(box, 403, "not_allowed")["detail"]
        assert spent.status_code in {400, 429}


@pytest.mark.parametrize(
    "wrong",
    [
        '{"No": {}}',
        '{"a": {"weight": 0}}',
        '{"a": {"admin": true}}',
        '{"a": {"models": []}}',
        "[1]",
    ],
)
def test_wrong_settings_of_tenants_are_refused_at_start(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_OIDC_TENANTS", wrong)
    with pytest.raises(InvalidSetting, match="FLEET_OIDC_TENANTS"):
        TokenSettings()


async def test_what_is_open_ends_with_the_token(
    shim: str, issuer: Issuer, own_redis: RedisServer
) -> None:
    token = issuer.token(scope="fleet:use", exp=int(time.time()) + 3)
    async with stage(shim, own_redis.url) as at, client(shim, token) as ann:
        await at.announce()
        job = (await ann.post("/api/v1/jobs/chat", json=CHAT)).json()["id"]
        url = f"{shim.replace('http', 'ws', 1)}/api/v1/jobs/{job}/events"
        waiting = asyncio.create_task(ann.get(f"/api/v1/jobs/{job}?wait_s=30"))
        async with (
            asyncio.timeout(8),
            connect(url, proxy=None, subprotocols=["fleet", token]) as socket,  # type: ignore[list-item]
            ann.stream("GET", f"/api/v1/jobs/{job}/events") as stream,
        ):
            rest = b"".join([piece async for piece in stream.aiter_bytes()])
            await _until_closed(socket)
        answer = await waiting

    assert b"cancelled" not in rest
    assert (socket.close_code, answer.status_code) == (4401, 401)
    async with client(shim, token) as ann:
        problem(await ann.get("/api/v1/jobs"), 401, "not_authenticated")


async def test_calls_end_when_the_issuer_drops_the_key_that_signed(
    issuer: Issuer, own_redis: RedisServer
) -> None:
    settings = issuer.settings(oidc_max_age_s=10, key_max_age_s=0.3)
    with serving(own_redis.url, **settings) as shim:
        async with asyncio.timeout(10), client(shim, issuer.token()) as ann:
            async with ann.stream("GET", "/api/v1/overview/events") as stream:
                pieces = stream.aiter_bytes()
                await anext(pieces)
                issuer.keys = [ec_key("second")]
                async with client(shim, issuer.token(sub="bob")) as bob:
                    # A key that is not known is asked for after `oidc_refresh_s` again.
                    while (await bob.get("/api/v1/jobs")).status_code == 401:
                        await asyncio.sleep(0.02)
                    assert (await bob.get("/api/v1/jobs")).status_code == 200
                async for _ in pieces:
                    pass
            problem(await ann.get("/api/v1/jobs"), 401, "not_authenticated")


async def test_an_issuer_that_never_answered_is_503_and_keys_work(
    issuer: Issuer, own_redis: RedisServer
) -> None:
    issuer.problem = "refuses"
    with serving(own_redis.url, **issuer.settings()) as shim:
        async with caller(shim, issuer) as ann:
            refused = await ann.get("/api/v1/jobs")
            problem(refused, 503, "token_keys_unavailable")
            issuer.problem = None
            async with asyncio.timeout(5):
                while (await ann.get("/api/v1/jobs")).status_code == 503:
                    await asyncio.sleep(0.05)

            assert refused.headers["retry-after"]
            assert (await ann.get("/api/v1/jobs")).status_code == 200


async def test_a_verified_token_costs_no_further_fetch(
    shim: str, issuer: Issuer, own_redis: RedisServer
) -> None:
    async with stage(shim, own_redis.url) as at, caller(shim, issuer) as ann:
        await at.announce()
        assert (await ann.post("/api/v1/jobs/chat", json=CHAT)).status_code == 202
        asked = issuer.asked
        for _ in range(20):
            assert (await ann.get("/api/v1/caller")).status_code == 200

        assert issuer.asked == asked


async def _until_closed(socket: Any) -> None:
    try:
        while True:
            await socket.recv()
    except ConnectionClosed:
        return


def test_callers_with_tokens_take_turns_by_their_tenants_as_those_with_keys_do() -> None:
    here = Authenticator.__new__(Authenticator)
    here._table = ApiKeyTable()
    entry: Any = SimpleNamespace(owner=SimpleNamespace(name="ann"))
    here._tokens = SimpleNamespace(known={"a token": entry}.get)  # type: ignore[assignment]

    assert [here.known_tenant(key) for key in ("a token", "another", None)] == ["ann", "", ""]
