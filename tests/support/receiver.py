"""A receiver of webhooks on a loopback port, which verifies with the package of the standard."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from standardwebhooks import Webhook


class Received(NamedTuple):
    """One request that came."""

    id: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.body)
        return told

    @property
    def type(self) -> str:
        told: str = self.event["type"]
        return told

    @property
    def subject(self) -> str:
        told: str = self.event["data"]["id"]
        return told

    def verified(self, secret: str) -> dict[str, Any]:
        """The event, as a receiver in the field reads it; raises if the signature is wrong."""
        told: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return told


Answer = tuple[int, dict[str, str]]


class Receiver:
    """Keeps what it gets; `answer` says how it answers the next requests."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer: Callable[[Received], Answer | None] = lambda _: (204, {})
        """None: it closes the connection without a word."""
        self.pause_s = 0.0
        """Before each answer."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                got = Received(headers["webhook-id"], self.path, headers, body)
                receiver.received.append(got)
                time.sleep(receiver.pause_s)
                answer = receiver.answer(got)
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer[0])
                for name, value in answer[1].items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hooks"

    def wait_for(self, count: int, within_s: float = 60.0) -> list[Received]:
        """The requests so far, once there are so many."""
        give_up_at = time.monotonic() + within_s
        while len(self.received) < count:
            assert time.monotonic() < give_up_at, [(each.type, each.id) for each in self.received]
            time.sleep(0.01)
        return list(self.received)

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    try:
        yield made
    finally:
        made.stop()
