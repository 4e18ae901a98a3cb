"""The HTTP client of the backends: long answers, no read timeout, errors of our own tree.

A cold model may load for minutes, so nothing times out between a request and its first word.
Once the words have begun, silence longer than `idle_s` is `BackendStalled`: llama-server falls
silent for ever when it is told to stop. Closing an answer closes its socket.

Which requests are sent twice: those that may be (a GET, and a POST that only asks: `repeats`),
once, and only if a connection that had been used before was closed under them before a byte of an
answer came. Servers close kept connections when they like (llama-server after every stream, after
100 requests and after 5 s), and a request that crosses that on its way has reached nobody (RFC
9112, 9.3.1). Everything else (delete, create, pull, load, an image that costs money) gets a
connection of its own, which nobody can have closed for being idle, and is sent once; what becomes
of its job then is decided by workers/retry.py, which counts and waits (docs/adr/0025).
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
from pydantic_core import from_json, to_json

from contract.errors import (
    BackendError,
    BackendStalled,
    BackendUnreachable,
    BadEndpoint,
)
from contract.sse import BYTE_ORDER_MARK
from workers.backends.http.error_table import error_from
from workers.backends.http.foreign_errors import FOREIGN_ERRORS, foreign_errors, was_dropped
from workers.backends.shapes import ANYTHING, Shape


class IdleTimeout:
    """Cancels the task that waits between `begin` and `end` for longer than `limit_s`."""

    __slots__ = ("_cancelling", "_has_expired", "_loop", "_since", "_task", "_timer", "limit_s")

    def __init__(self) -> None:
        """Without a limit until `limit_s` is set."""
        self.limit_s: float | None = None
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._has_expired = False
        self._cancelling = 0

    def begin(self) -> None:
        """The current task starts to wait."""
        if self.limit_s is None:
            return
        self._since = self._loop.time()
        if self._task is None:
            self._task = asyncio.current_task()
        if self._timer is None:
            self._timer = self._loop.call_later(self.limit_s, self._check)

    def end(self) -> None:
        """It waits no more."""
        self._since = None

    def expired(self) -> bool:
        """Whether the cancellation that just arrived is ours alone; takes it back if so."""
        if not self._has_expired or self._task is None:
            return False
        self._has_expired = False
        return self._task.uncancel() <= self._cancelling

    def close(self) -> None:
        """Stop looking."""
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
"""For questions that no model is needed to answer: is it up, what does it have."""
ERROR_BODY_BYTES: Final = 64 * 1024
KEEP_IDLE_S: Final = 4.0
"""llama-server closes an idle connection after 5 s; we leave first."""
STALE_S: Final = 1.0
"""A connection that was closed before our request came tells so within a round trip. Later it is
the request that the server died of, and that is not sent again at once."""
_ONLY_ASKS: Final = frozenset({"GET", "HEAD"})
_reused: ContextVar[list[bool]] = ContextVar("reused")
"""Where the connection of the request that is being sent notes that it was used before."""


class EncodedBody(NamedTuple):
    """A request's body that is no JSON, such as a form with files."""

    content: bytes
    content_type: str


class BackendResponse:
    """A response whose body is still on its way."""

    def __init__(self, response: httpx.Response, address: str, secrets: tuple[str, ...]) -> None:
        """Take over a response that was sent with `stream=True`."""
        self.status = response.status_code
        self.headers = response.headers
        self.content_type = response.headers.get("content-type", "").partition(";")[0].strip()
        self._read_packet = body_reader(response)
        self._address = address
        self._secrets = secrets
        self._idle = IdleTimeout()

    def start_idle_timeout(self, idle_s: float) -> None:
        """From now on, `idle_s` seconds without a byte are too many."""
        self._idle.limit_s = idle_s

    async def packets(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes; no packet is empty."""
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
        """The rest of the body, or its first `limit_bytes`."""
        pieces: list[bytes] = []
        size_bytes = 0
        async for packet in self.packets():
            pieces.append(packet)
            size_bytes += len(packet)
            if limit_bytes is not None and size_bytes >= limit_bytes:
                break
        return b"".join(pieces)[:limit_bytes].removeprefix(BYTE_ORDER_MARK)


class BackendClient:
    """Speaks HTTP to one endpoint."""

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
        """`url` has no credentials in it; `key` is sent as a bearer token; tests give a transport.

        `auth` signs each request, `secrets` stand in `headers`: no error shows them.
        Of the two clients the second never reuses a connection: it is for what must not be sent
        twice, and for the one repetition of what may.
        """
        self.url = url.rstrip("/")
        self.secrets = (*((key,) if key else ()), *secrets)
        sent = {"accept-encoding": "identity", "content-type": "application/json"}
        sent |= {"authorization": f"Bearer {key}"} if key else {}
        sent |= headers or {}
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
        repeatable: bool = False,
    ) -> AsyncIterator[BackendResponse]:
        """Send a request; the answer is open inside the block, and its socket closed after it.

        `repeats` says that the server may be asked twice for it; a GET always may.
        Raises the BackendError that the status and body mean, or that a broken connection means.
        """
        with foreign_errors(self.url, secrets=self.secrets):
            may_repeat = repeatable or method in _ONLY_ASKS
            response = await self._send(method, path, body, accept, may_repeat=may_repeat)
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
        repeatable: bool = False,
    ) -> dict[str, Any]:
        """The JSON object that answers a request, its fields as `shape` says; raises BackendError.

        It is sent as `open` does.

        A list comes as `{"data": [...]}`, an empty body as an empty object.
        """
        try:
            async with asyncio.timeout(limit_s):
                async with self.open(
                    method, path, body, accept="application/json", repeatable=repeatable
                ) as answer:
                    raw = await answer.read()
        except TimeoutError:
            raise BackendUnreachable(
                f"{self.url}{path} did not answer within {limit_s:g} s"
            ) from None
        if not raw.strip():
            return {}
        try:
            parsed = from_json(raw)
        except ValueError:
            raise BadEndpoint(f"{self.url}{path} did not answer with JSON") from None
        # LM Studio answers what it does not know with 200 and an `error`.
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

    async def _send(
        self, method: str, path: str, body: Any, accept: str, *, may_repeat: bool
    ) -> httpx.Response:
        pooled, fresh = self._clients
        headers = {"accept": accept}
        content: bytes | None
        if isinstance(body, EncodedBody):
            content, headers["content-type"] = body
        else:
            content = None if body is None else to_json(body)
        url = self.url + path
        if may_repeat:
            request = pooled.build_request(method, url, content=content, headers=headers)
            reused: list[bool] = []
            _reused.set(reused)
            sent_at = asyncio.get_running_loop().time()
            try:
                return await pooled.send(request, stream=True)
            except FOREIGN_ERRORS as error:
                is_late = asyncio.get_running_loop().time() - sent_at > STALE_S
                if not (reused and was_dropped(error)) or is_late:
                    raise
        request = fresh.build_request(method, url, content=content, headers=headers)
        return await fresh.send(request, stream=True)

    async def _demand_success(self, answer: BackendResponse) -> None:
        status = answer.status
        if 300 <= status < 400:  # noqa: PLR2004 - a key must not follow to another address
            target = answer.headers.get("location", "")
            raise error_from(
                status, f"redirects to {target}: configure that address", secrets=self.secrets
            )
        is_page = answer.content_type == "text/html"
        if status < 300 and not is_page:  # noqa: PLR2004 - the class of status
            return
        body = b""
        with suppress(TimeoutError, BackendError):  # the status says enough
            async with asyncio.timeout(QUICK_S):
                body = await answer.read(ERROR_BODY_BYTES)
        raise error_from(status, body, answer.headers, secrets=self.secrets)


def body_reader(response: httpx.Response) -> Callable[[], Awaitable[bytes]]:
    """What gives the next bytes of a body, and none at its end.

    aiohttp's own body_reader, if the transport is aiohttp's: the generators around it cost a quarter
    of aiohttp again (bench/client.py: 12.2 and 9.7 us a chunk). Its errors are mapped as httpx's
    are. A test fails if the libraries move it; other transports are read the long way.
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
    """A transport without bounds on connections; proxies of the environment are for https only."""
    is_secure = url.startswith("https:")
    # Reading the certificates takes 20 ms; a server that speaks http needs none of them.
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
        # Its own repetition takes a DELETE for harmless, and a new connection for an old one.
        session._retry_connection = False  # noqa: SLF001 - as aiohttp's own test client does
        return session

    return AiohttpTransport(client=session, verify=certificates)


def _tracing() -> aiohttp.TraceConfig:
    """Notes for each request whether its connection had been used before."""

    async def note(*_: object) -> None:
        _reused.get([]).append(True)

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(note)
    return tracing


@cache
def _certificates() -> ssl.SSLContext:
    return httpx.create_ssl_context()
