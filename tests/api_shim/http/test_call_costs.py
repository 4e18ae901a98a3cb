"""What an ordinary call costs a shim, counted without a clock: tasks, messages, commands.

Subjects: api_shim/http/direct_route.py, api_shim/following/shutdown.py, relay/subscriber.py.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr
from starlette.types import ASGIApp
from support.redis_server import RedisServer
from support.relay import relay_on, words
from support.shim import CHAT, Stage

from api_shim.app import create_app, with_direct_routes
from api_shim.settings import ShimSettings


class Client:
    """The server's side of one call: what it sends, and what it was sent."""

    def __init__(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> None:
        self.path = path
        self.data = json.dumps(body).encode()
        self.sent: list[dict[str, Any]] = []
        self.waits_for_a_disconnect = 0

    async def run(self, app: ASGIApp) -> None:
        headers = {
            "host": "127.0.0.1",
            "content-type": "application/json",
            "content-length": str(len(self.data)),
        }
        scope = {
            "type": "http", "method": "POST", "path": self.path, "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1), "state": {},
        }  # fmt: skip
        await app(scope, self.receive, self.send)

    async def receive(self) -> dict[str, Any]:
        if self.data:
            body, self.data = self.data, b""
            return {"type": "http.request", "body": body, "more_body": False}
        self.waits_for_a_disconnect += 1
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


@asynccontextmanager
async def served(redis: RedisServer) -> AsyncGenerator[tuple[Stage, ASGIApp]]:
    """A shim in this loop, which is ready for the job of its first call."""
    settings = ShimSettings(redis_url=SecretStr(redis.url), files_url="memory://costs")
    app = create_app(settings)
    async with relay_on(redis.url) as relay, app.router.lifespan_context(app):
        at = Stage(None, relay)  # type: ignore[arg-type]
        await at.announce()
        direct = with_direct_routes(app, settings)
        warm = asyncio.create_task(Client(CHAT).run(direct))
        await answered(at)
        await warm
        yield at, direct


async def answered(at: Stage) -> None:
    """A worker's part of one job."""
    async with asyncio.timeout(5):
        while (claim := await at.relay.start_next("scripted.chat", "w1")) is None:
            await asyncio.sleep(0.01)
        await at.relay.run(claim, *words(16))


async def cost(at: Stage, app: ASGIApp, client: Client) -> list[str]:
    """The tasks that a call makes."""
    made: list[str] = []
    loop = asyncio.get_running_loop()
    calling = asyncio.create_task(client.run(app))

    def make(loop: Any, coroutine: Any, **arguments: Any) -> Any:
        made.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **arguments)

    loop.set_task_factory(make)
    try:
        await answered(at)
        await calling
    finally:
        loop.set_task_factory(None)
    return [each for each in made if not each.startswith(("Followers.", "Publisher."))]


async def test_a_call_makes_no_task_and_sends_head_and_body(own_redis: RedisServer) -> None:
    async with served(own_redis) as (at, app):
        client = Client(CHAT)
        tasks = await cost(at, app, client)

    assert tasks == []
    assert [each["type"] for each in client.sent] == ["http.response.start", "http.response.body"]
    assert json.loads(client.sent[1]["body"])["choices"][0]["message"]["content"].endswith("w15 ")
    assert client.waits_for_a_disconnect == 1


async def test_a_message_makes_no_task_either(own_redis: RedisServer) -> None:
    async with served(own_redis) as (at, app):
        client = Client({**CHAT, "max_tokens": 9}, "/v1/messages")
        tasks = await cost(at, app, client)

    assert tasks == []
    assert json.loads(client.sent[1]["body"])["content"][0]["text"].endswith("w15 ")


async def test_a_stream_sends_once_for_events_that_come_together(own_redis: RedisServer) -> None:
    async with served(own_redis) as (at, app):
        client = Client({**CHAT, "stream": True})
        tasks = await cost(at, app, client)
    bodies = [each["body"] for each in client.sent if each["type"] == "http.response.body"]

    assert tasks == []
    assert b"".join(bodies).count(b"data: ") == 16 + 3
    assert len(client.sent) <= 4


async def test_a_call_sends_redis_no_command_to_follow_its_job(own_redis: RedisServer) -> None:
    async with served(own_redis) as (at, app):
        before = await calls(at)
        await cost(at, app, Client(CHAT))
        after = await calls(at)

    assert after.get("subscribe", 0) == before.get("subscribe", 0)
    assert after.get("xrange", 0) == before.get("xrange", 0)


async def calls(at: Stage) -> dict[str, int]:
    stats: dict[str, Any] = await at.relay.connection.command("INFO", "commandstats")
    return {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()}
