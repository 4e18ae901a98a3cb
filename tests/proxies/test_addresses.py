"""Who a client is, behind nginx and Caddy: its address, the scheme, its page's origin, its name."""

import json
import ssl

import httpx
import pytest
from support.behind import Behind
from support.keys import bearer, keyed
from support.redis_server import RedisServer
from websockets.asyncio.client import connect

FORGED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "http",
    "X-Real-Ip": "203.0.113.9",
    "Forwarded": "for=203.0.113.9",
}


async def address_of_last(behind: Behind) -> str:
    """Of the client, in the newest entry of the audit log."""
    async with behind.shim.admin as admin:
        return str((await admin.get("/api/v1/audit")).json()["entries"][0]["address"])


@pytest.mark.parametrize("headers", [{}, FORGED], ids=["plain", "forged"])
async def test_the_audit_log_has_the_address_of_the_client_whatever_it_says(
    behind: Behind, headers: dict[str, str]
) -> None:
    async with behind.client() as http:
        made = await http.post("/api/v1/keys", json={"tenant": "t"}, headers=headers)
        address = await address_of_last(behind)

        assert made.status_code == 201
        assert address == "127.0.0.2"


async def test_a_client_that_comes_to_the_shim_itself_cannot_name_another_address(
    behind: Behind,
) -> None:
    line = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    headers = bearer(behind.shim.key) | FORGED
    async with httpx.AsyncClient(base_url=behind.shim.url, headers=headers, transport=line) as http:
        made = await http.post("/api/v1/keys", json={"tenant": "t"})

    assert made.status_code == 201
    assert await address_of_last(behind) == "127.0.0.2"


async def test_a_proxy_on_another_machine_is_believed_if_it_is_named(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.2")
    line = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    with keyed(own_redis.url) as shim:
        headers = bearer(shim.key) | {"X-Forwarded-For": "203.0.113.9"}
        async with httpx.AsyncClient(base_url=shim.url, headers=headers, transport=line) as http:
            await http.post("/api/v1/keys", json={"tenant": "t"})
            entries = (await http.get("/api/v1/audit")).json()["entries"]

    assert entries[0]["address"] == "203.0.113.9"


@pytest.mark.parametrize("headers", [{}, FORGED], ids=["plain", "forged"])
async def test_a_link_has_the_address_and_scheme_that_the_client_uses(
    behind: Behind, headers: dict[str, str]
) -> None:
    said = [{"role": "user", "content": "x"}]
    params = {"model": "scripted-story:chunks=1", "max_tokens": 9, "messages": said}
    async with behind.client() as http:
        http.headers.update({"anthropic-version": "2023-06-01", **headers})
        made = await http.post(
            "/v1/messages/batches", json={"requests": [{"custom_id": "a", "params": params}]}
        )
        id = made.json()["id"]
        await http.post(f"/v1/messages/batches/{id}/cancel")
        batch = (await http.get(f"/v1/messages/batches/{id}")).json()
        while batch["processing_status"] != "ended":
            batch = (await http.get(f"/v1/messages/batches/{id}")).json()
        results = await http.get(batch["results_url"])

        assert batch["results_url"] == f"{behind.front.url}/v1/messages/batches/{id}/results"
        assert results.status_code == 200


async def test_a_page_of_the_fleet_may_open_a_websocket_and_another_may_not(
    behind: Behind,
) -> None:
    async with behind.client() as http:
        body = {"model": "scripted-story:chunks=2", "backend": "scripted"}
        said = [{"role": "user", "content": "x"}]
        told = await http.post("/api/v1/jobs/chat", json={**body, "messages": said})
        url = f"{behind.front.socket_url}/api/v1/jobs/{told.json()['id']}/events"
        own = await types(url, behind, behind.front.url)
        with pytest.raises(Exception, match=r"403|4403"):
            await types(url, behind, "https://evil.example")

        assert own[-1] == "done"


async def types(url: str, behind: Behind, origin: str) -> list[str]:
    """Types of the events that a page of this origin gets, with its key as a subprotocol."""
    protocols = ["fleet", behind.shim.key]
    tls: ssl.SSLContext = behind.front.tls
    async with connect(url, proxy=None, ssl=tls, origin=origin, subprotocols=protocols) as socket:
        return [json.loads(each)["type"] async for each in socket]


async def test_an_offer_of_another_protocol_changes_nothing(behind: Behind) -> None:
    h2c = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
    async with behind.client() as http:
        answers = [await http.get(path, headers=h2c) for path in ("/healthz", "/api/v1/queues")]

        assert [each.status_code for each in answers] == [200, 200]
