"""A server that answers what it is told to, byte for byte, and a fleet in front of it."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from typing_extensions import override

from support.processes import worker
from support.redis_server import RedisServer
from support.shim import serving

READY_WITHIN_S = 30.0
PING_S = 0.1


class FixedAnswers:
    """Bodies by model, for an OpenAI-shaped server and for Ollama's paths; one may be replaced."""

    def __init__(self) -> None:
        self.streams: dict[str, list[bytes]] = {}
        """Packets of a chat; one that is empty waits until the client has gone."""
        self.rows: dict[str, str] = {}
        """The JSON of each text's vector."""
        self.asked: list[dict[str, Any]] = []

    def deltas(self, model: str, *deltas: dict[str, Any], finish: str = "stop") -> None:
        """An answer that streams these deltas."""
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": finish})
        packets = [b"data: %s\n\n" % json.dumps({"choices": [each]}).encode() for each in choices]
        self.streams[model] = [*packets, b"data: [DONE]\n\n"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: FixedAnswers

    def do_GET(self) -> None:
        names = [*self.answers.streams, "m"]
        self._whole(json.dumps({"data": [{"id": name} for name in names]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.answers.asked.append(body)
        if self.path.endswith("/embeddings"):
            rows = [self.answers.rows[text] for text in body["input"]]
            data = [f'{{"index":{at},"embedding":{row}}}' for at, row in enumerate(rows)]
            self._whole(f'{{"data":[{",".join(data)}]}}'.encode())
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for packet in self.answers.streams[body["model"]]:
            if not packet:
                self._wait()
                return
            self.wfile.write(packet)
            self.wfile.flush()

    def _wait(self) -> None:
        try:
            while True:
                self.wfile.write(b": ping\n\n")
                time.sleep(PING_S)
        except OSError:
            return

    def _whole(self, raw: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    @override
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def _listening(answers: FixedAnswers) -> Iterator[str]:
    handler = type("Handler", (_Handler,), {"answers": answers})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def answering(folder: Path, answers: FixedAnswers) -> Iterator[tuple[str, str]]:
    """A fleet in front of such a server; yields the shim's address and Redis's."""
    with ExitStack() as stack:
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        address = stack.enter_context(_listening(answers))
        url = stack.enter_context(serving(redis.url, data_dir=folder / "data"))
        dsn = {"LLM_ODD": f"generic+http://{address}/v1", "FLEET_RETRY_PATIENCE": "0"}
        stack.enter_context(worker(redis.url, folder, "odd", **dsn))
        give_up_at = time.monotonic() + READY_WITHIN_S
        while not any(
            each["healthy"] for each in httpx.get(f"{url}/api/v1/backends").json()["backends"]
        ):
            assert time.monotonic() < give_up_at
            time.sleep(PING_S)
        yield url, redis.url
