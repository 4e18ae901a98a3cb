"""Pages of other origins may call a shim from a browser only if a setting names their origin.

Subjects: api_shim/http/origins.py, api_shim/settings.py.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.redis_server import RedisServer
from support.shim import CHAT, serving, stage
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from api_shim.settings import ShimSettings
from contract.errors import InvalidSetting

PAGE, OTHER = "https://chat.example.com", "https://evil.example"
ALLOWED = f"{PAGE.upper()}/, http://localhost:*,"
FILE: dict[str, Any] = {"files": {"file": ("a.jsonl", b"{}\n")}, "data": {"purpose": "batch"}}
SURFACES = (
    ("POST", "/api/v1/jobs/chat"),
    ("DELETE", "/api/v1/jobs/0123456789abcdef0123456789abcdef"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/files"),
    ("POST", "/api/chat"),
    ("GET", "/healthz"),
)


@pytest.fixture(scope="module")
def open_shim(redis_server: RedisServer) -> Iterator[str]:
    with serving(redis_server.url, origins=ALLOWED) as url:
        yield url


def preflight(shim: str, origin: str, method: str, path: str) -> httpx.Response:
    asked = "authorization, content-type, x-fleet-priority, anthropic-version"
    return httpx.options(
        f"{shim}{path}",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": asked,
        },
    )


@pytest.mark.parametrize(("method", "path"), SURFACES)
@pytest.mark.parametrize("origin", [PAGE, "http://localhost:5173"])
def test_every_surface_lets_an_allowed_page_ask(
    open_shim: str, origin: str, method: str, path: str
) -> None:
    answer = preflight(open_shim, origin, method, path)

    assert answer.status_code == 200, answer.text
    assert answer.headers["access-control-allow-origin"] == origin
    assert method in answer.headers["access-control-allow-methods"]
    assert "x-fleet-priority" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [OTHER, f"{PAGE}.evil.example", "http://chat.example.com", "http://localhost:1@x", "null", "["],
)
def test_a_page_that_is_not_named_gets_no_leave(open_shim: str, origin: str) -> None:
    asked = preflight(open_shim, origin, "POST", "/v1/chat/completions")
    models = httpx.get(f"{open_shim}/v1/models", headers={"Origin": origin})

    assert asked.status_code == 400
    assert "access-control-allow-origin" not in {**asked.headers, **models.headers}


@pytest.mark.parametrize(("method", "path"), SURFACES[:1] + SURFACES[2:6])
def test_a_refused_preflight_request_has_the_error_of_its_surface(
    open_shim: str, method: str, path: str
) -> None:
    by_origin = preflight(open_shim, OTHER, method, path)
    by_method = preflight(open_shim, PAGE, "TRACE", path)

    for refused, word in ((by_origin, "FLEET_ORIGINS"), (by_method, "TRACE")):
        assert (refused.status_code, word in refused.text) == (400, True)
        assert "cross_origin" in refused.text
        assert "json" in refused.headers["content-type"]
        assert "Origin" in refused.headers["vary"]
        told = refused.json() if path.startswith(("/api/v1", "/v1/messages")) else {}
        assert told.get("request_id", True)
        assert refused.headers["x-request-id"]


def test_without_the_setting_nothing_allows_any_page(shim: str) -> None:
    asked = preflight(shim, PAGE, "POST", "/v1/chat/completions")
    models = httpx.get(f"{shim}/v1/models", headers={"Origin": PAGE})

    assert (asked.status_code, models.status_code) == (403, 403)
    assert "access-control-allow-origin" not in {**asked.headers, **models.headers}


async def test_a_page_reads_answers_their_headers_and_errors(
    open_shim: str, redis_url: str
) -> None:
    async with stage(open_shim, redis_url) as at:
        await at.announce()
        http = {"headers": {"Origin": PAGE}}
        accepted = await at.http.post("/api/v1/jobs/chat", json=CHAT, **http)
        refused = await at.http.post("/v1/chat/completions", json={"model": 1}, **http)
        lost = await at.http.get("/nowhere", **http)

    answers = (accepted, refused, lost)
    assert [answer.status_code for answer in answers] == [202, 400, 404]
    assert {answer.headers["access-control-allow-origin"] for answer in answers} == {PAGE}
    assert {answer.headers["access-control-expose-headers"] for answer in answers} == {"*"}
    assert all("Origin" in answer.headers["vary"] for answer in answers)


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/files", FILE),
        ("/v1/batches/batch_0/cancel", {}),
        ("/api/generate", {"content": b"{}", "headers": {"Content-Type": "text/plain"}}),
    ],
)
def test_what_browsers_send_without_asking_is_refused_from_other_pages(
    open_shim: str, path: str, sent: dict[str, Any]
) -> None:
    def post(origin: str) -> httpx.Response:
        headers = {**sent.get("headers", {}), "Origin": origin}
        return httpx.post(f"{open_shim}{path}", **{**sent, "headers": headers})

    refused = post(OTHER)

    assert (refused.status_code, "FLEET_ORIGINS" in refused.text) == (403, True)
    assert {post(PAGE).status_code, post(open_shim).status_code}.isdisjoint({403, 415})


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
def test_another_page_may_not_call_any_method_without_a_key(open_shim: str, method: str) -> None:
    def call(**headers: str) -> int:
        url = f"{open_shim}/api/v1/aliases/a"
        return httpx.request(method, url, headers=headers, json={"model": "m"}).status_code

    assert call(origin=OTHER) == call(origin="null") == 403
    own = {"origin": open_shim}
    assert 403 not in {call(**own), call(origin=PAGE), call(origin=OTHER, authorization="Bearer a")}


def test_a_form_with_a_key_was_asked_for_and_may_come_from_anywhere(open_shim: str) -> None:
    headers = {"Origin": OTHER, "X-Api-Key": "any"}
    answer = httpx.post(f"{open_shim}/v1/files", headers=headers, **FILE)

    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


async def test_a_socket_of_another_page_is_closed_with_the_reason(
    open_shim: str, redis_url: str
) -> None:
    async with stage(open_shim, redis_url) as at:
        job = await at.relay.enqueue()
        url = f"{open_shim.replace('http', 'ws', 1)}/api/v1/jobs/{job}/events"
        async with connect(url, origin=OTHER, proxy=None) as line:
            with pytest.raises(ConnectionClosed):
                await line.recv()
            assert (line.close_code, (line.close_reason or "")[:12]) == (4403, "cross_origin")
        for origin in (PAGE, open_shim, None):
            async with connect(url, origin=origin, proxy=None) as line:
                assert '"queued"' in str(await line.recv())


def test_every_page_may_call_a_shim_that_allows_any(redis_server: RedisServer) -> None:
    with serving(redis_server.url, origins=("*",)) as url:
        asked = preflight(url, OTHER, "POST", "/api/chat")
        answer = httpx.get(f"{url}/api/version", headers={"Origin": "null"})

    assert asked.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ("", ()),
        (ALLOWED, (PAGE, "http://localhost:*")),
        (["https://a.example:443", "http://[::1]:80"], ("https://a.example", "http://[::1]")),
        ("*", ("*",)),
        ("chrome-extension://*,NULL", ("chrome-extension://*", "null")),
    ],
)
def test_origins_are_kept_as_browsers_send_them(given: Any, origins: tuple[str, ...]) -> None:
    assert ShimSettings(origins=given).origins == origins


@pytest.mark.parametrize(
    "given", ["chat.example.com", "https://a/b", "https://u@a", "https://", "a b", "https://ü.de"]
)
def test_what_is_no_origin_is_refused_with_an_example(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_ORIGINS", given)
    with pytest.raises(InvalidSetting, match=r"^FLEET_ORIGINS = .*as in "):
        ShimSettings()
