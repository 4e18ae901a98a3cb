"""Every surface that streams, with one client for all: it asks, reads, leaves and comes back."""

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from contract.events import Delta, Event, Image
from support import stream_grammar
from support.stream_grammar import Heard

WITHIN_S = 20.0
"""For a client that waits for something that must come."""
ANTHROPIC = {"anthropic-version": "2023-06-01"}
NDJSON = "application/x-ndjson"
Read = Callable[..., Heard]


def _turn(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@dataclass(frozen=True)
class Surface:
    """A surface: how it is asked, and what of its stream is particular to it."""

    name: str
    path: str
    read: Read
    """The grammar of its stream."""
    prompt: Callable[[str], dict[str, Any]]
    """The body of a request, without `model` and `stream`."""
    text_of: Callable[[Any], str]
    """The text of the response that is not streamed."""
    code_of: Callable[[Any], str]
    """The code of an error response."""
    kind: str = "chat"
    headers: dict[str, str] = field(default_factory=dict)
    resumes: str | None = None
    """The path under which a stream can be read again, for `.format(job=...)`."""
    cursor: str = "after"
    """The parameter of that path with the last cursor that was read."""
    begins_at_once: bool = False
    """Whether the stream's head does not wait for the first word: failures are events."""
    is_native: bool = False
    """Whether it shows every event of the log, a reset and a terminal event of any kind."""
    is_socket: bool = False

    def word(self, text: str) -> Event:
        """An event that adds this text to the stream at once."""
        if self.kind == "image":
            return Image(index=0, data=_encoded(text), partial=True)
        return Delta(content=text)

    def answer(self, *words: str) -> list[Event]:
        """The events of a whole answer, before `done`."""
        events = [self.word(text) for text in words]
        return (
            [*events, Image(index=0, data=_encoded("".join(words)))]
            if self.kind == "image"
            else events
        )

    def sent_headers(self, more: Mapping[str, str]) -> dict[str, str]:
        """The surface's own headers and more, whose names have underscores."""
        return self.headers | {name.replace("_", "-"): value for name, value in more.items()}

    def body(self, text: str, model: str = "m", *, stream: bool = True) -> dict[str, Any]:
        body = {"model": model, **self.prompt(text)}
        return body if self.is_native else {**body, "stream": stream}

    async def whole(
        self, http: httpx.AsyncClient, text: str, model: str = "m", **headers: str
    ) -> str:
        """The text of the response that is not streamed."""
        given = self.sent_headers(headers)
        answer = await http.post(
            self.path, json=self.body(text, model, stream=False), headers=given
        )
        if self.is_native:
            answer = await http.get(f"/api/v1/jobs/{answer.json()['id']}", params={"wait_s": 30})
        assert answer.status_code == 200, answer.text
        return self.text_of(answer.json())


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Client:
    """One call, read in a task of its own as fast as bytes come."""

    def __init__(self, surface: Surface, opened: "Open", *, resumed: bool = False) -> None:
        self._surface = surface
        self._resumed = resumed
        self._opened = opened
        self._news = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self.received = bytearray()
        self.status = 0
        self.headers: httpx.Headers = httpx.Headers()
        self.job = ""
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            async with self._opened(self) as pieces:
                self._news.set()
                async for piece in pieces:
                    self.received += piece
                    self._news.set()
                    await self._may_read.wait()
        finally:
            self._news.set()

    @property
    def raw(self) -> bytes:
        """All that has come of the body."""
        return bytes(self.received)

    @property
    def heard(self) -> Heard:
        """What has come so far; fails if it breaks the grammar."""
        return self._surface.read(self.raw, resumed=self._resumed)

    @property
    def code(self) -> str:
        """The code of the error response."""
        return self._surface.code_of(httpx.Response(200, content=self.raw).json())

    async def until(self, holds: Callable[[Heard], object]) -> Heard:
        """Read until this holds; fails if the stream ends before."""
        async with asyncio.timeout(WITHIN_S):
            while not holds(heard := self.heard):
                assert not self._task.done(), self._task.exception() or self.raw
                self._news.clear()
                await self._news.wait()
            return heard

    async def until_head(self) -> None:
        """Wait until status and headers have come."""
        await self.until(lambda _: self.status)

    async def closed(self) -> None:
        """Read to the end of the connection, whatever comes."""
        self._may_read.set()
        async with asyncio.timeout(WITHIN_S):
            await self._task

    async def ended(self) -> Heard:
        """What came until the end of the connection."""
        await self.closed()
        return self.heard

    def pause(self) -> None:
        """Read nothing more, and keep the connection."""
        self._may_read.clear()

    async def leave(self) -> None:
        """Close the connection without a word."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


Open = Callable[[Client], Any]
"""Opens the connection of a client: an async context manager of the pieces of its body."""


def ask(
    surface: Surface,
    http: httpx.AsyncClient,
    text: str = "hello",
    model: str = "m",
    **headers: str,
) -> Client:
    """Send a request and read its stream."""
    given = surface.sent_headers(headers)

    @asynccontextmanager
    async def opened(client: Client) -> AsyncGenerator[AsyncIterator[bytes]]:
        body = surface.body(text, model)
        if not surface.is_native:
            async with _streamed(client, http, "POST", surface.path, given, json=body) as pieces:
                yield pieces
            return
        answer = await http.post(surface.path, json=body, headers=given)
        client.status, client.headers = answer.status_code, answer.headers
        if answer.status_code != 202:
            client.received += answer.content
            yield _nothing()
            return
        client.job = answer.json()["id"]
        async with _followed(surface, client, http, given) as pieces:
            yield pieces

    return Client(surface, opened)


def resume(surface: Surface, http: httpx.AsyncClient, job: str, after: str = "") -> Client:
    """Come back to a job and read on after a cursor."""

    @asynccontextmanager
    async def opened(client: Client) -> AsyncGenerator[AsyncIterator[bytes]]:
        client.job = job
        if surface.is_native:
            async with _followed(surface, client, http, surface.headers, after) as pieces:
                yield pieces
            return
        assert surface.resumes
        url = surface.resumes.format(job=job)
        url += f"&{surface.cursor}={after}" if after else ""
        async with _streamed(client, http, "GET", url, surface.headers) as pieces:
            yield pieces

    return Client(surface, opened, resumed=bool(after))


@asynccontextmanager
async def _streamed(
    client: Client, http: httpx.AsyncClient, method: str, url: str, headers: Any, **body: Any
) -> AsyncGenerator[AsyncIterator[bytes]]:
    async with http.stream(method, url, headers=headers, **body) as response:
        client.status, client.headers = response.status_code, response.headers
        client.job = response.headers.get("x-fleet-job", "")
        async with aclosing(response.aiter_raw()) as pieces:
            yield pieces


@asynccontextmanager
async def _followed(
    surface: Surface, client: Client, http: httpx.AsyncClient, headers: Any, after: str = ""
) -> AsyncGenerator[AsyncIterator[bytes]]:
    url = f"/api/v1/jobs/{client.job}/events" + (f"?after={after}" if after else "")
    if not surface.is_socket:
        async with _streamed(client, http, "GET", url, headers) as pieces:
            yield pieces
        return
    address = str(http.base_url).replace("http", "ws", 1).rstrip("/") + url
    key = http.headers.get("authorization")
    more = {"authorization": key} if key else {}
    # Through TLS with the authorities of SSL_CERT_FILE.
    async with connect(address, proxy=None, max_size=None, additional_headers=more) as socket:
        client.status = 200
        yield _messages(socket)


async def _messages(socket: ClientConnection) -> AsyncGenerator[bytes]:
    with suppress(ConnectionClosed):  # a shim that stops says 1012: come back with your cursor
        while True:
            yield f"{await socket.recv()}\n".encode()


async def _nothing() -> AsyncGenerator[bytes]:
    return
    yield b""


def _native(name: str, read: Read, **more: Any) -> Surface:
    return Surface(
        name,
        "/api/v1/jobs/chat",
        read,
        lambda text: {"messages": _turn(text)},
        lambda body: body["result"]["content"],
        lambda body: body["code"],
        begins_at_once=True,
        is_native=True,
        **more,
    )


def _openai_code(body: Any) -> str:
    return str(body["error"]["code"])


SURFACES: Sequence[Surface] = (
    _native("native-sse", stream_grammar.native_sse, headers={"Accept": "text/event-stream"}),
    _native("native-ndjson", stream_grammar.native_lines, headers={"Accept": NDJSON}),
    _native("native-websocket", stream_grammar.native_lines, is_socket=True),
    Surface(
        "openai-chat", "/v1/chat/completions", stream_grammar.openai_chunks,
        lambda text: {"messages": _turn(text)},
        lambda body: body["choices"][0]["message"]["content"], _openai_code,
    ),
    Surface(
        "openai-completions", "/v1/completions", stream_grammar.openai_chunks,
        lambda text: {"prompt": text, "max_tokens": 5000},
        lambda body: body["choices"][0]["text"], _openai_code,
    ),
    Surface(
        "openai-responses", "/v1/responses", stream_grammar.responses,
        lambda text: {"input": text},
        lambda body: "".join(part["text"] for item in body["output"] for part in item["content"]),
        _openai_code,
        resumes="/v1/responses/resp_{job}?stream=true",
        cursor="starting_after",
        begins_at_once=True,
    ),
    Surface(
        "openai-images", "/v1/images/generations", stream_grammar.image_events,
        lambda text: {"prompt": text, "partial_images": 3},
        lambda body: base64.b64decode(body["data"][0]["b64_json"]).decode("latin-1"), _openai_code,
        kind="image",
    ),
    Surface(
        "anthropic-messages", "/v1/messages", stream_grammar.messages,
        lambda text: {"messages": _turn(text), "max_tokens": 5000},
        lambda body: "".join(block["text"] for block in body["content"]), _openai_code,
        headers=ANTHROPIC,
        resumes="/v1/messages/msg_{job}?stream=true",
    ),
    Surface(
        "ollama-chat", "/api/chat", stream_grammar.ollama_lines,
        lambda text: {"messages": _turn(text)},
        lambda body: body["message"]["content"], lambda body: body["code"],
    ),
    Surface(
        "ollama-generate", "/api/generate", stream_grammar.ollama_lines,
        lambda text: {"prompt": text},
        lambda body: body["response"], lambda body: body["code"],
    ),
)  # fmt: skip
