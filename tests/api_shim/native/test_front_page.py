"""`/` is a page for a browser and a heartbeat for clients of Ollama; the page loads nothing."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import httpx
import pytest

from api_shim.native.front_page import HEARTBEAT, wants_html

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


class Links(HTMLParser):
    """What a page would load, and where it leads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.loads: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a":
            self.hrefs.append(given.get("href") or "")
        elif tag in {"script", "link", "img", "iframe"} or "src" in given:
            self.loads.append(tag)


@pytest.mark.parametrize("accept", ["*/*", "application/json", "", "text/plain", "text/html;q=0"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_clients_of_ollama_receive_their_heartbeat(shim: str, method: str, accept: str) -> None:
    beat = httpx.request(method, shim, headers={"accept": accept})

    assert (beat.status_code, beat.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert beat.text == (HEARTBEAT if method == "GET" else "")
    assert beat.headers["content-length"] == str(len(HEARTBEAT))


def test_a_browser_sees_a_page_whose_links_lead_somewhere(shim: str) -> None:
    answer = httpx.get(shim, headers={"accept": CHROME})
    found = Links(answer.text)

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["vary"] == "Accept"
    assert "/docs" in found.hrefs
    for href in found.hrefs:
        assert href.startswith("/")
        assert httpx.get(shim + href).status_code in {200, 503}, href
    head = httpx.head(shim, headers={"accept": CHROME})
    assert head.headers["content-type"] == answer.headers["content-type"]


def test_the_page_loads_and_runs_nothing_and_its_policy_forbids_it(shim: str) -> None:
    answer = httpx.get(shim, headers={"accept": CHROME})
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()

    assert Links(answer.text).loads == []
    assert "://" not in answer.text
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


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
