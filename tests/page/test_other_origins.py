"""A page of another origin calls the fleet from a real browser, if FLEET_ORIGINS names it.

Subjects: api_shim/http/origins.py.
"""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from support.page import Watched

STREAM = """
async ([url, key, body]) => {
  const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json" };
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST", headers, body: JSON.stringify(body),
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const came = [];
  for (let part = await reader.read(); !part.done; part = await reader.read())
    came.push(part.value);
  return { came, job: response.headers.get("X-Fleet-Job") };
}
"""
SOCKET = """
([url, key, job]) => new Promise((resolve) => {
  const path = `/api/v1/jobs/${job}/events`;
  const socket = new WebSocket(url.replace("http", "ws") + path, ["x", key]);
  const types = [];
  socket.onmessage = (message) => types.push(JSON.parse(message.data).type);
  socket.onclose = (closed) => resolve({ types, code: closed.code });
})
"""
BODY = {
    "model": "scripted-story:chunks=40,rate=40",
    "messages": [{"role": "user", "content": "hello"}],
    "stream": True,
}


class _Blank(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a web server; as `localhost` its pages have an origin that the fleet allows."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Blank) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_an_allowed_page_reads_a_stream_as_it_comes_and_its_headers(
    watched: Watched, chromium: Any, port: int
) -> None:
    page = chromium.new_page()
    page.goto(f"http://localhost:{port}/")

    told = page.evaluate(STREAM, [watched.url, watched.key, BODY])
    heard = page.evaluate(SOCKET, [watched.url, watched.key, told["job"]])

    assert len(told["came"]) > 10
    assert "".join(told["came"]).endswith("data: [DONE]\n\n")
    assert (heard["types"][0], heard["types"][-1], heard["code"]) == ("queued", "done", 1000)
    page.close()


def test_another_page_gets_neither_an_answer_nor_a_stream(
    watched: Watched, chromium: Any, port: int
) -> None:
    page = chromium.new_page()
    page.goto(f"http://127.0.0.1:{port}/")
    job = watched.enqueue()

    with pytest.raises(Exception, match="Failed to fetch"):
        page.evaluate(STREAM, [watched.url, watched.key, BODY])
    heard = page.evaluate(SOCKET, [watched.url, watched.key, job])

    assert heard == {"types": [], "code": 4403}
    assert watched.http.delete(f"/api/v1/jobs/{job}").status_code == 200
    page.close()
