"""The scripted servers behind the workers, which know by name whose stream is still open."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakSet

from pydantic_core import from_json
from typing_extensions import override

from workers.scripted.http import HttpRequest, Reply, ScriptedConnection, StreamedReply
from workers.scripted.server import ScriptedServer


class Streams:
    """The open streams of a server by model, and when each model's last one closed."""

    def __init__(self) -> None:
        """Nothing asked yet."""
        self.asked: Counter[str] = Counter()
        self.open: Counter[str] = Counter()
        self.closed_at: dict[str, float] = {}

    def began(self, model: str) -> None:
        """A request for a model that answers as a stream."""
        self.asked[model] += 1
        self.open[model] += 1

    def ended(self, model: str) -> None:
        """Its answer is over, or its client is gone."""
        self.open[model] -= 1
        self.closed_at[model] = time.monotonic()


class _Watched(ScriptedConnection):
    """A connection that tells which model's stream it carries."""

    def __init__(self, server: ScriptedServer, streams: Streams) -> None:
        super().__init__(self._answered, server.seen)
        self._server = server
        self._streams = streams
        self._model: str | None = None

    def _answered(self, request: HttpRequest) -> Reply | StreamedReply | None:
        self._over()
        answer = self._server.answer(request)
        if isinstance(answer, StreamedReply):
            self._model = str(from_json(request.body).get("model"))
            self._streams.began(self._model)
        return answer

    def _over(self) -> None:
        if self._model is not None:
            self._streams.ended(self._model)
            self._model = None

    @override
    def _end(self, ending: str) -> None:
        super()._end(ending)  # type: ignore[arg-type]
        if ending != "stall":
            self._over()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._over()


@asynccontextmanager
async def watched_server() -> AsyncGenerator[tuple[int, Streams]]:
    """A scripted server on a free port of loopback, and its streams."""
    server, streams = ScriptedServer(), Streams()
    connections: WeakSet[_Watched] = WeakSet()

    def connect() -> _Watched:
        connection = _Watched(server, streams)
        connections.add(connection)
        return connection

    loop = asyncio.get_running_loop()
    listener = await loop.create_server(connect, "127.0.0.1", 0, backlog=512)
    try:
        yield listener.sockets[0].getsockname()[1], streams
    finally:
        listener.close()
        for connection in list(connections):
            connection.abort()
