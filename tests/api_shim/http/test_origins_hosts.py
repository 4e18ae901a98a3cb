"""A page is refused whose own name leads to a shim, and one that embeds what a shim serves.

Subjects: api_shim/http/origins.py, api_shim/settings.py, api_shim/ollama/route.py.
"""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.keys import bearer, keyed
from support.redis_server import RedisServer
from support.shim import CHAT, problem, serving
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from api_shim.http.origins import Hosts
from api_shim.settings import ShimSettings
from contract.errors import InvalidSetting

OURS, THEIRS = "fleet.example.com", "evil.example"


@pytest.fixture(scope="module")
def insecure(redis_server: RedisServer) -> Iterator[str]:
    with serving(redis_server.url, insecure=True, hosts=OURS) as url:
        yield url


def called(shim: str, host: str, path: str = "/api/v1/jobs") -> httpx.Response:
    return httpx.get(f"{shim}{path}", headers={"Host": host})


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("localhost", True),
        ("app.localhost", True),
        ("10.0.0.7", True),
        ("fe80::1", True),
        ("shim", True),
        ("shim.", True),
        (OURS, True),
        (f"{OURS}.", True),
        ("a.b.lan", True),
        (f"www.{OURS}", False),
        (f"{OURS}.{THEIRS}", False),
        (THEIRS, False),
        ("10.0.0.7.evil.example", False),
        ("localhost.evil.example", False),
        ("lan", True),
        ("1.2.3", False),
    ],
)
def test_only_names_that_nobody_else_can_direct_here_are_ours(host: str, is_allowed: bool) -> None:  # noqa: FBT001
    assert Hosts((OURS, "*.lan")).allow(host) is is_allowed


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/v1/models", "/api/tags"])
def test_an_insecure_shim_is_called_by_its_names_alone(insecure: str, path: str) -> None:
    port = insecure.rpartition(":")[2]

    assert called(insecure, f"{OURS}:{port}", path).status_code == 200
    assert called(insecure, f"10.0.0.9:{port}", path).status_code == 200
    assert called(insecure, f"{THEIRS}:{port}", path).status_code == 403
    assert "FLEET_HOSTS" in called(insecure, THEIRS, path).text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/jobs/chat"])
def test_the_short_way_checks_the_name_too(insecure: str, path: str) -> None:
    answer = httpx.post(f"{insecure}{path}", json=CHAT, headers={"Host": THEIRS})

    assert answer.status_code == 403


async def test_a_socket_is_closed_for_a_name_that_is_not_ours(insecure: str) -> None:
    url = f"ws://{THEIRS}/api/v1/jobs/{'0' * 32}/events"
    port = int(insecure.rpartition(":")[2])
    async with connect(url, host="127.0.0.1", port=port, proxy=None) as line:
        with pytest.raises(ConnectionClosed):
            await line.recv()

        assert (line.close_code, (line.close_reason or "")[:12]) == (4403, "unknown_host")


async def test_where_names_are_set_a_key_does_not_open_others(own_redis: RedisServer) -> None:
    with keyed(own_redis.url, hosts=OURS) as fleet:

        def jobs(host: str) -> httpx.Response:
            headers = {**bearer(fleet.key), "Host": host}
            return httpx.get(f"{fleet.url}/api/v1/jobs", headers=headers)

        assert jobs(OURS).status_code == 200
        problem(jobs(THEIRS), 403, "unknown_host")


async def test_without_names_a_key_is_asked_for_and_no_name(own_redis: RedisServer) -> None:
    with keyed(own_redis.url) as fleet:
        headers = {**bearer(fleet.key), "Host": THEIRS}

        assert httpx.get(f"{fleet.url}/api/v1/jobs", headers=headers).status_code == 200


def test_what_a_page_of_another_site_embeds_is_refused_and_a_link_is_not(shim: str) -> None:
    def get(mode: str, site: str = "cross-site") -> int:
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
        return httpx.get(f"{shim}/api/v1/jobs", headers=headers).status_code

    assert (get("no-cors"), get("navigate"), get("cors", "same-origin")) == (403, 200, 200)


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed", "/api/show"])
@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Dest": "document"},
        {"sec-fetch-user": "?1"},
        {"Sec-Fetch-Storage-Access": "none"},
        {"Origin": "own"},
    ],
)
def test_a_browser_must_say_json_to_ollamas_routes_and_curl_need_not(
    shim: str, path: str, sent: dict[str, str]
) -> None:
    headers: dict[str, Any] = {
        name: shim if name == "Origin" else text for name, text in sent.items()
    }

    def is_read(media_type: str) -> bool:
        kind = {"Content-Type": media_type}
        answer = httpx.post(f"{shim}{path}", content=b"[]", headers={**headers, **kind})
        assert answer.status_code == 400
        return "Content-Type" not in answer.text

    assert is_read("application/json")
    assert is_read("application/x-www-form-urlencoded") is not bool(headers)


@pytest.mark.parametrize("name", ["Sec-Fetch-Dest", "Sec-Fetch-User"])
def test_no_route_reads_a_body_of_a_browser_that_does_not_say_json(shim: str, name: str) -> None:
    paths = httpx.get(f"{shim}/openapi.json").json()["paths"]
    read = "application/json"
    posts = [
        (method, path)
        for path, methods in paths.items()
        for method, operation in methods.items()
        if read in operation.get("requestBody", {}).get("content", {})
    ]
    headers = {name: "?1", "Content-Type": "text/plain"}
    answers = [
        httpx.request(method, shim + re.sub("{[^}]*}", "a", path), content=b"{}", headers=headers)
        for method, path in posts
    ]

    assert len(posts) > 30
    assert not [answer for answer in answers if "Content-Type" not in answer.text]


@pytest.mark.parametrize("mode", ["navigate", "websocket"])
async def test_a_socket_of_another_site_is_closed(shim: str, mode: str) -> None:
    url = f"{shim.replace('http', 'ws', 1)}/api/v1/jobs/{'0' * 32}/events"
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode}
    async with connect(url, proxy=None, additional_headers=headers) as line:
        with pytest.raises(ConnectionClosed):
            await line.recv()

        assert (line.close_code, (line.close_reason or "")[:12]) == (4403, "cross_origin")


@pytest.mark.parametrize("given", ["https://fleet.example.com", "fleet:8700", "a b", "*", "ü.de"])
def test_what_is_no_host_name_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_HOSTS", given)
    with pytest.raises(InvalidSetting, match=r"^FLEET_HOSTS = .*no host name"):
        ShimSettings()
