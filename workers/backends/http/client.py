"""The HTTP client of the backends: streaming responses, idle timeout, `contract.errors`.

A cold model may load for minutes, so there is no timeout between a request and its first token.
After the first token, `idle_s` seconds without a byte raise BackendStalled: llama-server sends
nothing more after a stop. Closing a response closes its connection.

Only requests that read are sent a second time by the client: a GET, a HEAD, and a POST with
`reads` (such as a show), once, if it was sent on a reused connection that was closed before any
byte of a response. Servers close idle connections at any time (llama-server after every stream,
after 100 requests and after 5 s). A prompt is never repeated here, because the server may have
died of it: a POST with `pooled` may use an idle connection, but if that was closed it raises
StaleConnection, and workers/retry.py retries the job at once, counted. All other requests (delete,
create, pull, load, images) use a new connection each (docs/adr/0025).
"""

import asyncio
import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
)
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import Any, Final, NamedTuple, cast

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from pydantic_core import to_json

from contract.errors import (
    BackendError,
    BackendStalled,
    BackendUnreachable,
    BadEndpoint,
    StaleConnection,
)
from contract.sse import BYTE_ORDER_MARK
from workers.backends.http.error_table import error_from
from workers.backends.http.foreign_errors import FOREIGN_ERRORS, foreign_errors, was_dropped
from workers.backends.http.json_text import parse_json
from workers.backends.shapes import ANYTHING, Shape


class IdleTimeout:
    """Cancels a task that waits longer than `limit_s` seconds between `begin` and `end`."""

    __slots__ = ("_cancelling", "_has_expired", "_loop", "_since", "_task", "_timer", "limit_s")

    def __init__(self) -> None:
        """Inactive until `limit_s` is set; one event loop."""
        self.limit_s: float | None = None
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._has_expired = False
        self._cancelling = 0

    def begin(self) -> None:
        """The current task starts to wait for a packet."""
        if self.limit_s is None:
            return
        self._since = self._loop.time()
        if self._task is None:
            self._task = asyncio.current_task()
        if self._timer is None:
            self._timer = self._loop.call_later(self.limit_s, self._check)

    def end(self) -> None:
        """The packet has arrived."""
        self._since = None

    def expired(self) -> bool:
        """Whether this timeout alone caused the current cancellation; uncancels the task if so."""
        if not self._has_expired or self._task is None:
            return False
        self._has_expired = False
        return self._task.uncancel() <= self._cancelling

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        limit_s = self.limit_s or 0.0
        waited_s = 0.0 if self._since is None else self._loop.time() - self._since
        if self._since is not None and self._task is not None and waited_s >= limit_s:
            self._has_expired = True
            self._cancelling = self._task.cancelling()
            self._task.cancel()
            return
        self._timer = self._loop.call_later(limit_s - waited_s, self._check)


CONNECT_S: Final = 10.0
QUICK_S: Final = 10.0
"""Timeout in seconds for requests that need no model: health, version, lists."""
ERROR_BODY_BYTES: Final = 64 * 1024
_DISTRUST_S: Final = 600.0
"""Prompts use new connections for so long after one has met a closed one: this server closes idle
connections sooner than KEEP_IDLE_S."""
KEEP_IDLE_S: Final = 4.0
"""Seconds; llama-server closes an idle connection after 5 s, so the client closes it first."""
STALE_S: Final = 1.0
"""Seconds. A connection that was already closed fails within a round trip; after a later failure
the job waits, because the server may have died of the request."""
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_reused: ContextVar[list[bool]] = ContextVar("reused")
"""One item once the request in flight uses a reused connection."""


class EncodedBody(NamedTuple):
    """A request body that is not JSON, such as a multipart form."""

    content: bytes
    content_type: str


class _Request(NamedTuple):
    """What is sent."""

    method: str
    url: str
    content: bytes | None
    headers: dict[str, str]


class BackendResponse:
    """A response whose body is being received."""

    def __init__(self, response: httpx.Response, address: str, secrets: tuple[str, ...]) -> None:
        """Wrap a response of `send(stream=True)`; errors redact `secrets`."""
        self.status = response.status_code
        self.headers = response.headers
        self.content_type = response.headers.get("content-type", "").partition(";")[0].strip()
        self._read_packet = body_reader(response)
        self._address = address
        self._secrets = secrets
        self._idle = IdleTimeout()

    def start_idle_timeout(self, idle_s: float) -> None:
        """Raise BackendStalled after `idle_s` seconds without a byte, from now on."""
        self._idle.limit_s = idle_s

    async def packets(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as received; no packet is empty.

        Raises BackendStalled after an idle timeout, TruncatedStream if the connection breaks.
        """
        idle, read_packet = self._idle, self._read_packet
        try:
            with foreign_errors(self._address, began=True, secrets=self._secrets):
                while True:
                    idle.begin()
                    packet = await read_packet()
                    idle.end()
                    if not packet:
                        return
                    yield packet
        except asyncio.CancelledError:
            if idle.expired():
                raise BackendStalled(
                    f"{self._address} sent nothing for {idle.limit_s:g} s in the middle of its"
                    " answer (limit: idle_s)"
                ) from None
            raise
        finally:
            idle.close()

    async def read(self, limit_bytes: int | None = None) -> bytes:
        """The rest of the body, or its first `limit_bytes`, without a byte-order mark."""
        pieces: list[bytes] = []
        size_bytes = 0
        async for packet in self.packets():
            pieces.append(packet)
            size_bytes += len(packet)
            if limit_bytes is not None and size_bytes >= limit_bytes:
                break
        return b"".join(pieces)[:limit_bytes].removeprefix(BYTE_ORDER_MARK)


class BackendClient:
    """An HTTP client for one base URL."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        auth: httpx.Auth | None = None,
        secrets: tuple[str, ...] = (),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`url` has no credentials; `key` is sent as a bearer token; tests pass a transport.

        `auth` signs each request. Errors redact `key` and `secrets` (values in `headers`).
        """
        self.url = url.rstrip("/")
        self.secrets = (*((key,) if key else ()), *secrets)
        sent = {"accept-encoding": "identity", "content-type": "application/json"}
        sent |= {"authorization": f"Bearer {key}"} if key else {}
        sent |= headers or {}
        self._fresh_until = 0.0
        # The second never reuses a connection.
        self._clients = tuple(
            httpx.AsyncClient(
                transport=transport or _transport(self.url, is_fresh=is_fresh),
                timeout=httpx.Timeout(None, connect=CONNECT_S),
                headers=sent,
                auth=auth,
            )
            for is_fresh in (False, True)
        )

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        accept: str = "*/*",
        reads: bool = False,
        pooled: bool = False,
    ) -> AsyncIterator[BackendResponse]:
        """Send a request; the response is open inside the block and closed after it.

        `body` is encoded as JSON unless it is an EncodedBody. `reads`: a POST that may be sent
        twice, because it changes nothing and generates nothing; a GET always may. `pooled`: it may
        use an idle connection. Raises the BackendError that the status and body mean
        (error_table.py), or the broken connection (foreign_errors.py, StaleConnection).
        """
        with foreign_errors(self.url, secrets=self.secrets):
            request = _Request(method, self.url + path, *_encoded(body, accept))
            if reads or method in _SAFE_METHODS:
                response = await self._send_reading(request)
            elif pooled:
                response = await self._send_once(request)
            else:
                response = await self._send(request, is_fresh=True)
        answer = BackendResponse(response, self.url, self.secrets)
        try:
            await self._demand_success(answer)
            yield answer
        finally:
            with suppress(aiohttp.ClientError, httpx.HTTPError, OSError):
                await response.aclose()

    async def json(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        limit_s: float | None = None,
        shape: Shape[Any] = ANYTHING,
        reads: bool = False,
        pooled: bool = False,
    ) -> dict[str, Any]:
        """Send a request as `open` does and return the JSON object of the response.

        A list becomes `{"data": [...]}`, an empty body {}. `limit_s` bounds the whole exchange.
        Raises BackendError: BackendUnreachable after `limit_s`, BadEndpoint for a body that is
        not JSON, BadAnswer for fields that do not match `shape`.
        """
        try:
            async with asyncio.timeout(limit_s):
                async with self.open(
                    method, path, body, accept="application/json", reads=reads, pooled=pooled
                ) as answer:
                    raw = await answer.read()
        except TimeoutError:
            raise BackendUnreachable(
                f"{self.url}{path} did not answer within {limit_s:g} s"
            ) from None
        if not raw.strip():
            return {}
        try:
            parsed = parse_json(raw)
        except ValueError:
            raise BadEndpoint(f"{self.url}{path} did not answer with JSON") from None
        # LM Studio responds to unknown paths with status 200 and an `error`.
        if isinstance(parsed, dict) and parsed.get("error"):
            raise error_from(answer.status, raw, answer.headers, secrets=self.secrets)
        fields: dict[str, Any] = shape.read(
            parsed if isinstance(parsed, dict) else {"data": parsed}
        )
        return fields

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self._clients:
            await client.aclose()

    async def _send_reading(self, request: "_Request") -> httpx.Response:
        """Send a request that may be repeated: again on a new connection if its own was stale."""
        reused = _watch_reuse()
        try:
            return await self._send(request)
        except FOREIGN_ERRORS as error:
            if not (reused and was_dropped(error)):
                raise
        return await self._send(request, is_fresh=True)

    async def _send_once(self, request: "_Request") -> httpx.Response:
        """Send a request that must not be repeated, on an idle connection if one is sound.

        Raises StaleConnection if that was closed at once; then new connections are used for a
        while.
        """
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        if sent_at < self._fresh_until:
            return await self._send(request, is_fresh=True)
        # The event loop reads what has arrived on idle connections, so that the pool drops those
        # that the server has closed: the selector is polled in the second turn.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        reused = _watch_reuse()
        try:
            return await self._send(request)
        except FOREIGN_ERRORS as error:
            is_late = loop.time() - sent_at > STALE_S
            if not (reused and was_dropped(error)) or is_late:
                raise
            self._fresh_until = loop.time() + _DISTRUST_S
            raise StaleConnection(
                f"{self.url} closed an idle connection when it was used again"
            ) from error

    async def _send(self, request: "_Request", *, is_fresh: bool = False) -> httpx.Response:
        client = self._clients[is_fresh]
        built = client.build_request(
            request.method, request.url, content=request.content, headers=request.headers
        )
        return await client.send(built, stream=True)

    async def _demand_success(self, answer: BackendResponse) -> None:
        status = answer.status
        if 300 <= status < 400:  # noqa: PLR2004 - a key must not be sent to another address
            target = answer.headers.get("location", "")
            raise error_from(
                status, f"redirects to {target}: configure that address", secrets=self.secrets
            )
        is_page = answer.content_type == "text/html"
        if status < 300 and not is_page:  # noqa: PLR2004 - the class of status
            return
        body = b""
        with suppress(TimeoutError, BackendError):  # the status is enough
            async with asyncio.timeout(QUICK_S):
                body = await answer.read(ERROR_BODY_BYTES)
        raise error_from(status, body, answer.headers, secrets=self.secrets)


def _encoded(body: Any, accept: str) -> tuple[bytes | None, dict[str, str]]:
    """Content and headers of a request."""
    if isinstance(body, EncodedBody):
        return body.content, {"accept": accept, "content-type": body.content_type}
    return None if body is None else to_json(body), {"accept": accept}


def _watch_reuse() -> list[bool]:
    """A list that has an item once the next request of this task uses a reused connection."""
    reused: list[bool] = []
    _reused.set(reused)
    return reused


def body_reader(response: httpx.Response) -> Callable[[], Awaitable[bytes]]:
    """A function that returns the next bytes of a body, b"" at its end.

    Reads aiohttp's StreamReader directly where there is one: the generators around it cost 25 %
    (bench/client.py: 12.2 and 9.7 us a chunk). Its errors are mapped like httpx's. A test fails
    if the libraries move it; other transports are read through httpx.
    """
    inside = getattr(response.stream, "_stream", None)
    content = getattr(getattr(inside, "_aiohttp_response", None), "content", None)
    if isinstance(content, aiohttp.StreamReader):
        return content.readany
    stream = aiter(cast("AsyncIterable[bytes]", response.stream))

    async def read() -> bytes:
        async for packet in stream:
            if packet:
                return packet
        return b""

    return read


def _transport(url: str, *, is_fresh: bool) -> AiohttpTransport:
    """A transport without a connection limit; uses environment proxies for https only."""
    is_secure = url.startswith("https:")
    # Loading the certificates takes 20 ms; plain http needs none.
    certificates: ssl.SSLContext | bool = _certificates() if is_secure else False

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=certificates or True,
            force_close=is_fresh,
            keepalive_timeout=None if is_fresh else KEEP_IDLE_S,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=is_secure,
            trace_configs=[_tracing()],
        )
        # aiohttp's own retry repeats a DELETE, and also on new connections.
        session._retry_connection = False  # noqa: SLF001 - as aiohttp's own test client does
        return session

    return AiohttpTransport(client=session, verify=certificates)


def _tracing() -> aiohttp.TraceConfig:
    """Records for each request whether its connection was reused."""

    async def note(*_: object) -> None:
        _reused.get([]).append(True)

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(note)
    return tracing


@cache
def _certificates() -> ssl.SSLContext:
    return httpx.create_ssl_context()
