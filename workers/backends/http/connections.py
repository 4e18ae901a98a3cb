"""The connections to one backend: sends one request, and returns its response when that has begun.

aiohttp, without the client's conveniences: no cookies, redirects, decompression or resending. It
opens no connection before the first request. Errors are aiohttp's (foreign_errors.py).
"""

import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import cache, partial
from typing import Any, Final, NamedTuple, Protocol

import aiohttp
import certifi
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from typing_extensions import override

CONNECT_S: Final = 10.0
KEEP_IDLE_S: Final = 4.0
"""Seconds; llama-server closes an idle connection after 5 s, so the client closes it first."""
_TIMEOUTS: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
"""None between a request and its first byte: a cold model may load for minutes."""
_FINAL: Final = 200
"""Statuses from here on end an exchange."""
_MOST_WAITING: Final = 100
"""Interim responses before one that ends an exchange, and responses that nobody has read."""
_reused: ContextVar[list[bool] | None] = ContextVar("reused", default=None)


class Outgoing(NamedTuple):
    """A request; the names of its headers are in lower case."""

    method: str
    url: str
    content: bytes | None
    headers: Mapping[str, str]


class Incoming(NamedTuple):
    """A response whose status and headers have arrived."""

    status: int
    headers: Mapping[str, str]
    """Names are compared without case."""
    read_packet: Callable[[], Awaitable[bytes]]
    """The next bytes of the body; b"" at its end."""
    close: Callable[[], Any]
    """Gives the connection back; closes it if the end of the body has not arrived."""
    is_complete: Callable[[], bool] = lambda: True
    """Whether the end of the body has arrived."""


class HttpTransport(Protocol):
    """What sends requests; tests have one that calls a function."""

    async def send(self, request: Outgoing, *, is_fresh: bool) -> Incoming:
        """Send a request once; `is_fresh`: on a new connection, which is closed afterwards.

        Raises errors of aiohttp.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


class Connections:
    """A transport over aiohttp, without a limit of connections.

    Environment proxies are used for https only.
    """

    def __init__(self, url: str) -> None:
        """Connect to nothing yet; `url` is the base of all requests."""
        self._is_secure = url.startswith("https:")
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self.is_closed = False

    async def send(self, request: Outgoing, *, is_fresh: bool) -> Incoming:
        """Send a request; see `HttpTransport`."""
        session = self._sessions.get(is_fresh) or self._open(is_fresh=is_fresh)
        response = await session.request(
            request.method,
            request.url,
            data=request.content or None,
            headers=request.headers,
            allow_redirects=False,
        )
        return Incoming(
            response.status,
            response.headers,
            response.content.readany,
            response.release,
            response.content.is_eof,
        )

    async def aclose(self) -> None:
        """Close every connection; nothing can be sent afterwards."""
        self.is_closed = True
        for session in self._sessions.values():
            await session.close()

    def _open(self, *, is_fresh: bool) -> aiohttp.ClientSession:
        if self.is_closed:
            raise aiohttp.ClientConnectionError("the client is closed")
        connector = _Connector(
            limit=0,
            # Loading the certificates takes 20 ms; plain http needs none.
            ssl=_certificates() if self._is_secure else True,
            force_close=is_fresh,
            keepalive_timeout=None if is_fresh else KEEP_IDLE_S,
        )
        session = self._sessions[is_fresh] = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=self._is_secure,
            timeout=_TIMEOUTS,
            auto_decompress=False,
        )
        # aiohttp's own retry repeats a DELETE, and also on new connections.
        session._retry_connection = False  # noqa: SLF001 - as aiohttp's own test client does
        return session


class _Responses(ResponseHandler):
    """The server's end of a connection, which may not send heads without an end.

    aiohttp passes over interim responses (1xx) for as long as some have come, and keeps responses
    that nobody has asked for.
    """

    _interim = 0

    @override
    def feed_data(self, data: Any, size: int = 0) -> None:
        if self.is_eof():
            return
        self._interim = self._interim + 1 if data[0].code < _FINAL else 0
        if self._interim <= _MOST_WAITING and len(self) < _MOST_WAITING:
            super().feed_data(data, size)
            return
        self._buffer.clear()
        self.set_exception(HttpProcessingError(message="responses without an end"))
        if self.transport is not None:
            self.transport.close()


class _Connector(aiohttp.TCPConnector):
    """Tells the task that waits for a connection whether it was used before."""

    def __init__(self, **options: Any) -> None:
        """As aiohttp's."""
        super().__init__(**options)
        made: Any = partial(_Responses, loop=self._loop)
        self._factory = made

    @override
    async def connect(self, *args: Any, **options: Any) -> aiohttp.connector.Connection:
        connection = await super().connect(*args, **options)
        used: Any = connection.protocol
        if getattr(used, "fleet_has_used", False):
            if (reused := _reused.get()) is not None:
                reused.append(True)
        else:
            used.fleet_has_used = True
        return connection


def watch_reuse() -> list[bool]:
    """A list that has an item once the next request of this task uses a reused connection."""
    reused: list[bool] = []
    _reused.set(reused)
    return reused


@cache
def _certificates() -> ssl.SSLContext:
    """Those of SSL_CERT_FILE or SSL_CERT_DIR, as OpenSSL's own names are, else certifi's."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file or folder:
        return ssl.create_default_context(cafile=file or None, capath=folder or None)
    return ssl.create_default_context(cafile=certifi.where())
