"""Whatever a backend sends, each adapter ends with an answer or an error of our tree.

Every adapter runs every request that it supports once, and the server's responses are recorded.
Then the same responses are sent again, one of them changed: a value replaced, a field removed,
bytes cut or swapped.

Subjects: workers/backends/http/client.py, workers/backends/protocols.py.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from functools import cache
from typing import Any

import httpx
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import images
from support.backends import (
    ENCODERS,
    NETWORKED,
    FunctionTransport,
    Packets,
    against_imitation,
    against_server,
    chat_request,
    make,
)

from contract.chat import CountRequest, Message, Tool
from contract.embeddings import EmbedRequest
from contract.errors import BackendError, RequestError
from contract.events import Event, EventId, Frame
from contract.images import ImageRequest
from contract.models import (
    CreateRequest,
    LoadRequest,
    PullRequest,
    RunningRequest,
    ShowRequest,
    UnloadRequest,
)
from contract.rerank import RerankRequest
from workers.backends.openai.lmstudio import LmStudio
from workers.run import stream

TOOL = Tool(name="lookup", parameters={"type": "object"})
CHAT = "scripted-echo"
EMBED = "scripted-embed:dim=4"
REQUESTS = [
    chat_request(CHAT, "one two"),
    chat_request("scripted-tools:calls=2", tools=(TOOL,)),
    chat_request("scripted-think:think=2,chunks=1"),
    EmbedRequest(model=EMBED, input=("a", "b")),
    CountRequest(model=CHAT, messages=(Message(role="user", content="one two"),), tools=(TOOL,)),
    RerankRequest(model="scripted-rerank", query="a", documents=("a", "b")),
    ImageRequest(model="scripted-image", prompt="a cat", width=48, height=32, partial_images=1),
    RunningRequest(),
    LoadRequest(model="scripted-story"),
    UnloadRequest(model="scripted-story"),
    PullRequest(model="new"),
    ShowRequest(model="scripted-story"),
    CreateRequest(model="made", source="scripted-story"),
]
Key = tuple[str, str, str]
"""Method, path, and the model that the body names."""
Reply = tuple[int, str, bytes]
LIMIT_S = 5.0
EXAMPLES = int(os.environ.get("LLM_FLEET_EXAMPLES", "60"))
"""The usual ones are the same each time; for changes of an adapter run 1,000 others."""


class Recording(httpx.AsyncBaseTransport):
    """Passes everything on and keeps what was answered, by method and path."""

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self.replies: dict[Key, Reply] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._inner.handle_async_request(request)
        body = await answer.aread()
        kept = answer.status_code, answer.headers.get("content-type", ""), body
        self.replies.setdefault(key_of(request), kept)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=Packets([body]))

    async def aclose(self) -> None:
        await self._inner.aclose()


def key_of(request: httpx.Request) -> Key:
    body = json.loads(request.content) if request.content else {}
    model = body.get("model") if isinstance(body, dict) else None
    return request.method, request.url.path, str(model)


async def ask(backend: Any, request: Any) -> list[Event]:
    async with asyncio.timeout(LIMIT_S):
        return [event async for event in stream(request, backend)]


async def ask_everything(backend: Any, model: str | None = None) -> None:
    """All that it can do; what it cannot is refused."""
    for question in (backend.check, backend.models):
        await settled(question())
    for request in REQUESTS:
        changed = request
        if model and isinstance(request, ImageRequest):
            changed = request.model_copy(update={"model": model})
        await settled(ask(backend, changed))


async def settled(question: Any) -> None:
    try:
        events = await question
    except (BackendError, RequestError, TimeoutError):
        pass  # an answer as good as any; a download that never ends is the deadline's
    else:
        for event in events if isinstance(events, list) else ():
            if isinstance(event, Event):
                body = Frame.of(EventId(1, 1), 1.0, event).body
                json.loads(body, parse_constant=pytest.fail)


@asynccontextmanager
async def recorded(type: str, transport: FunctionTransport) -> AsyncIterator[Any]:
    if type in images.NETWORKED:
        async with images.serve() as server:
            yield images.make(type, server.url, transport=transport)
        return
    against = against_imitation if type == "llamacpp-router" else against_server
    arguments = ("scripted-story", CHAT, EMBED) if type == "llamacpp-router" else ()
    async with against(type, *arguments, transport=transport) as (backend, _):
        yield backend


@cache
def answers_of(type: str) -> dict[Key, Reply]:
    async def record() -> dict[Key, Reply]:
        transport = Recording()
        async with recorded(type, FunctionTransport(transport)) as backend:
            await ask_everything(backend, images.MODELS.get(type))
            await backend.aclose()
        return transport.replies

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(record())


ODD = st.sampled_from(
    [None, True, False, 0, -1, 7, 10**400, 1.5, float("nan"), float("inf"), -1e308, "", "x", "1",
     "\u2028", "http://x", [], [None], [1], ["x"], [[]], [{}], {}, {"x": 1}, {"error": 3}]
)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a value with every key in it."""
    found = []
    for key in value if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += places(value[key])
    return found


def changed(draw: Callable[[Any], Any], text: bytes) -> bytes:
    """A JSON text with one or two values replaced, or gone."""
    value = json.loads(text)
    for _ in range(draw(st.integers(1, 2))):
        found = places(value) if isinstance(value, dict | list) else []
        at = draw(st.integers(0, len(found)))
        if at == len(found):
            return json.dumps(draw(ODD)).encode()
        holder, key = found[at]
        if draw(st.booleans()) or not isinstance(holder, dict):
            holder[key] = deepcopy(draw(ODD))
        else:
            del holder[key]
    return json.dumps(value).encode()


@st.composite
def mutated(draw: Callable[[Any], Any], body: bytes) -> bytes:
    """The body with one line changed, or some of its bytes."""
    lines = body.split(b"\n")
    with_json = [at for at, line in enumerate(lines) if b"{" in line]
    if not with_json or draw(st.integers(0, 9)) == 0:
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 20)))
        return body[:start] + draw(st.binary(max_size=8)) + body[end:]
    at = draw(st.sampled_from(with_json))
    head, brace, rest = lines[at].partition(b"{")
    try:
        lines[at] = head + changed(draw, brace + rest)
    except ValueError:  # JSON over many lines
        return changed(draw, body)
    return b"\n".join(lines)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LmStudio, "poll_s", 0.001)
    monkeypatch.setattr(LmStudio, "stuck_s", 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("type", [*NETWORKED, *ENCODERS, *images.NETWORKED])
@settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES == 60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_no_answer_of_a_backend_is_a_defect_of_ours(type: str, data: st.DataObject) -> None:
    known = answers_of(type)
    key = data.draw(st.sampled_from(sorted(known)))
    status, kind, body = known[key]
    odd = status, kind, data.draw(mutated(body))

    def answer(request: httpx.Request) -> httpx.Response:
        status, kind, body = odd if key_of(request) == key else known.get(key_of(request), LOST)
        return httpx.Response(status, headers={"content-type": kind}, stream=Packets([body]))

    async def everything() -> None:
        transport = FunctionTransport(answer)
        is_image = type in images.NETWORKED
        make_it = images.make if is_image else make
        backend = make_it(type, "http://backend.test", transport=transport)
        await ask_everything(backend, images.MODELS.get(type))
        await backend.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(everything())


LOST: Reply = (404, "application/json", b'{"error":{"message":"not here"}}')


@pytest.mark.parametrize("type", [*NETWORKED, *images.NETWORKED])
def test_what_is_changed_were_good_answers(type: str) -> None:
    good = [key for key, (status, _, body) in answers_of(type).items() if status == 200 and body]

    assert len(good) >= (3 if type in images.NETWORKED else 5), good
