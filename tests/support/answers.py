"""A server in the test's own loop, with a function per model that returns the response."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic_core import from_json, to_json

from workers.scripted.http import (
    HttpRequest,
    Reply,
    ScriptedConnection,
    ServerStats,
    StreamedReply,
    framed,
)

Answer = Callable[[dict[str, Any]], Reply | StreamedReply | None]
"""Returns the response to a request's JSON; None drops the connection."""


def words(*texts: str, gap_s: float = 0.0, delay_s: float = 0.0) -> StreamedReply:
    """A streamed chat in OpenAI's format."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in texts]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
    lines = [b"data: %s\n\n" % to_json(chunk) for chunk in chunks] + [b"data: [DONE]\n\n"]
    return StreamedReply([framed(line) for line in lines], "text/event-stream", delay_s, gap_s)


def lines(*texts: str, gap_s: float = 0.0, delay_s: float = 0.0) -> StreamedReply:
    """A streamed chat in Ollama's format."""
    items: list[dict[str, Any]] = [{"message": {"content": word}, "done": False} for word in texts]
    items += [{"message": {"content": ""}, "done": True, "done_reason": "stop"}]
    packets = [framed(to_json(each) + b"\n") for each in items]
    return StreamedReply(packets, "application/x-ndjson", delay_s, gap_s)


def failing(message: str, status: int = 500, **headers: str) -> Reply:
    """An error in OpenAI's shape."""
    sent = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Reply(to_json({"error": {"message": message}}), status, headers=sent)


class Server:
    """Responds for each model by its function; `asked` counts requests by model."""

    def __init__(self, models: Mapping[str, Answer]) -> None:
        self.models = dict(models)
        self.asked: Counter[str] = Counter()
        self.seen = ServerStats()
        self.port = 0
        self.list_delay_s = 0.0

    def answer(self, request: HttpRequest) -> Reply | StreamedReply | None:
        match request.path:
            case "/v1/models":
                return Reply(to_json({"data": [{"id": name} for name in self.models]}))
            case "/api/tags":
                listing = to_json({"models": [self._tag(name) for name in self.models]})
                return Reply(listing, delay_s=self.list_delay_s)
            case "/api/ps":
                return Reply(b'{"models":[]}')
            case "/health" | "/version" | "/api/version":
                return Reply(b'{"version":"1"}')
        body = from_json(request.body)
        self.asked[body["model"]] += 1
        return self.models[body["model"]](body)

    @staticmethod
    def _tag(name: str) -> dict[str, Any]:
        return {"name": name, "digest": name, "capabilities": ["completion", "embedding"]}


@asynccontextmanager
async def answering(**models: Answer) -> AsyncGenerator[Server]:
    """Run a server of these models."""
    server = Server(models)
    loop = asyncio.get_running_loop()
    connections: list[ScriptedConnection] = []

    def connected() -> ScriptedConnection:
        connections.append(ScriptedConnection(server.answer, server.seen))
        return connections[-1]

    listener = await loop.create_server(connected, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for connection in connections:
            connection.abort()
