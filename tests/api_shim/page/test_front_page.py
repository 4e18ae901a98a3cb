"""`/` is a page for a browser and a heartbeat for clients of Ollama."""

import base64
import hashlib
import re

import httpx
import pytest

from api_shim.page.front_page import HEARTBEAT, wants_html

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize("accept", ["*/*", "application/json", "", "text/plain", "text/html;q=0"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_clients_of_ollama_receive_their_heartbeat(shim: str, method: str, accept: str) -> None:
    beat = httpx.request(method, shim, headers={"accept": accept})

    assert (beat.status_code, beat.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert beat.text == (HEARTBEAT if method == "GET" else "")
    assert beat.headers["content-length"] == str(len(HEARTBEAT))


def asset(text: str, name: str) -> str:
    found = re.search(rf'"(/page/[0-9a-f]{{16}}/{re.escape(name)})"', text)
    assert found, name
    return found[1]


def test_a_browser_gets_the_page_and_every_file_that_it_names(shim: str) -> None:
    answer = httpx.get(shim, headers={"accept": CHROME})
    named = re.findall(r'"(/page/[^"]+[.]\w+)"', answer.text)

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    assert len(set(named)) > 10
    for path in named:
        assert httpx.get(shim + path).status_code == 200, path
    head = httpx.head(shim, headers={"accept": CHROME})
    assert head.headers["content-type"] == answer.headers["content-type"]


def test_the_policy_allows_this_origin_and_one_script_by_its_hash(shim: str) -> None:
    answer = httpx.get(shim, headers={"accept": CHROME})
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    (inline,) = re.findall(r"<script type=.importmap.>(.*?)</script>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()

    assert "://" not in answer.text
    assert "style=" not in answer.text
    assert policy["default-src"] == "'self'"
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"
    assert policy["style-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["frame-ancestors"] == "'none'"


def test_files_are_kept_forever_and_the_page_itself_is_asked_for_again(shim: str) -> None:
    document = httpx.get(shim, headers={"accept": CHROME})
    main = httpx.get(shim + asset(document.text, "main.js"))
    again = httpx.get(shim, headers={"accept": CHROME, "if-none-match": document.headers["etag"]})
    other = httpx.get(f"{shim}/page/0123456789abcdef/main.js")

    assert "immutable" in main.headers["cache-control"]
    assert main.headers["content-type"] == "text/javascript; charset=utf-8"
    assert main.headers["content-encoding"] == "gzip"
    assert (again.status_code, again.content) == (304, b"")
    assert document.headers["cache-control"] == "no-cache"
    assert other.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["nothing.js", "../front_page.py", "%2e%2e/front_page.py", ""])
def test_no_other_file_is_served(shim: str, path: str) -> None:
    assert httpx.get(f"{shim}/page/0123456789abcdef/{path}").status_code == 404


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (CHROME, True),
        ("text/html", True),
        ("TEXT/HTML;q=0.5", True),
        ("text/plain, text/html;q=0.5", False),
        ("text/html;q=x", False),
        ("*/*", False),
    ],
)
def test_html_must_be_named_and_wanted(accept: str, expected: bool) -> None:  # noqa: FBT001
    assert wants_html(accept) is expected
