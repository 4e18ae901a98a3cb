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
from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol

from pydantic_core import to_json

from contract.errors import (
    BackendError,
    BackendStalled,
    BackendUnreachable,
    BadEndpoint,
    StaleConnection,
)
from contract.json_texts.json_scan import TooMuch
from contract.sse import BYTE_ORDER_MARK
from telemetry.plain_text import spellings
from workers.backends.http.connections import (
    Connections,
    HttpTransport,
    Incoming,
    Outgoing,
    watch_reuse,
)
from workers.backends.http.error_table import ERROR_BODY_BYTES, error_from
from workers.backends.http.foreign_errors import (
    FOREIGN_ERRORS,
    to_backend_error,
    was_dropped,
)
from workers.backends.http.idle_timeout import IdleTimeout
from workers.backends.http.json_text import LISTING, WHOLE, AnswerSize, parse_json
from workers.backends.http.missing_paths import as_missing
from workers.backends.http.read_pace import ReadPace
from workers.backends.shapes import ANYTHING, Shape, invalid_json

MOST_PACKET_BYTES: Final = 16 * 1024
"""A fast backend fills the socket's buffer with a thousand chunks, which take a megabyte or two as
parsed JSON: so many of each of its streams were in memory at once."""


QUICK_S: Final = 10.0
"""Timeout in seconds for requests that need no model: health, version, lists."""
_LARGE_BYTES: Final = 2**20
"""More JSON is counted in a thread."""
_DISTRUST_S: Final = 600.0
"""Prompts use new connections for so long after one has met a closed one: this server closes idle
connections sooner than KEEP_IDLE_S."""
STALE_S: Final = 1.0
"""Seconds. A connection that was already closed fails within a round trip; after a later failure
the job waits, because the server may have died of the request."""
_END_S: Final = 0.25
"""For how long the end of a body may come after the last event of its stream."""
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_UNAUTHORIZED: Final = 401


class EncodedBody(NamedTuple):
    """A request body that is not JSON, such as a multipart form."""

    content: bytes
    content_type: str


class Signer(Protocol):
    """Signs requests with tokens that expire."""

    async def sign(self, refused: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """The headers to add, in lower case; others than `refused`, which got a 401.

        Raises BackendError.
        """
        ...


def basic_authorization(user: str, password: str) -> dict[str, str]:
    """The header of a user and a password (RFC 7617, in UTF-8)."""
    return {"authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}


class BackendResponse:
    """A response whose body is being received."""

    __slots__ = (
        "_address", "_idle", "_incoming", "_is_paced", "_pace", "_secrets",
        "content_type", "headers", "status",
    )  # fmt: skip

    def __init__(
        self, incoming: Incoming, address: str, secrets: tuple[str, ...], pace: ReadPace
    ) -> None:
        """Read a response; errors redact `secrets`; `pace` is that of a client's streams."""
        self.status = incoming.status
        self.headers = incoming.headers
        kind = incoming.headers.get("content-type", "")
        self.content_type = kind.partition(";")[0].strip()
        self._incoming = incoming
        self._address = address
        self._secrets = secrets
        self._idle = IdleTimeout()
        self._pace = pace
        self._is_paced = False

    def start_idle_timeout(self, idle_s: float) -> None:
        """Raise BackendStalled after `idle_s` seconds without a byte, from now on.

        From now on it is read at the pace of the client's streams.
        """
        self._idle.limit_s = idle_s
        if not self._is_paced:
            self._is_paced = True
            self._pace.streams += 1

    async def packets(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as received, at most `MOST_PACKET_BYTES` at once; no packet is empty.

        Raises BackendStalled after an idle timeout, TruncatedStream if the connection breaks.
        """
        idle, pace, read_packet = self._idle, self._pace, self._incoming.read_packet
        read_at = 0.0
        try:
            while True:
                if self._is_paced and pace.interval_s:
                    read_at = await pace.next_read(read_at)
                idle.begin()
                packet = await read_packet()
                idle.end()
                if not packet:
                    return
                for start in range(0, len(packet), MOST_PACKET_BYTES):
                    yield packet[start : start + MOST_PACKET_BYTES]
        except FOREIGN_ERRORS as error:
            raise to_backend_error(
                error, self._address, began=True, secrets=self._secrets
            ) from error
        except asyncio.CancelledError:
            if idle.expired():
                raise BackendStalled(
                    f"{self._address} sent nothing for {idle.limit_s:g} s in the middle of its"
                    " answer (limit: idle_s)"
                ) from None
            raise
        finally:
            idle.close()

    def close(self) -> None:
        """Give the connection back, or close it if the body was not read to its end."""
        self.leave_pace()
        with suppress(*FOREIGN_ERRORS):
            self._incoming.close()

    def leave_pace(self) -> None:
        """Count no longer as one of the client's streams: all of it that is wanted was read."""
        if self._is_paced:
            self._is_paced = False
            self._pace.streams -= 1

    @property
    def is_complete(self) -> bool:
        """Whether the end of the body has arrived."""
        return self._incoming.is_complete()

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

    async def whole(self, most_bytes: int) -> bytes:
        """The rest of the body; raises BadEndpoint for a larger one."""
        pieces: list[bytes] = []
        size_bytes = 0
        async for packet in self.packets():
            pieces.append(packet)
            size_bytes += len(packet)
            if size_bytes > most_bytes:
                raise BadEndpoint(f"{self._address} answered more than {most_bytes} bytes of JSON")
        return b"".join(pieces).removeprefix(BYTE_ORDER_MARK)


class BackendClient:
    """An HTTP client for one base URL."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        signer: Signer | None = None,
        secrets: tuple[str, ...] = (),
        transport: HttpTransport | None = None,
    ) -> None:
        """`url` has no credentials; `key` is sent as a bearer token; tests pass a transport.

        `signer` signs each request. Errors redact `key` and `secrets` (what `headers` hold, before
        it was encoded), however they are spelled.
        """
        self.url = url.rstrip("/")
        self.secrets = spellings((key or "", *secrets))
        self._headers = {
            "user-agent": "llm-fleet",
            "accept-encoding": "identity",
            "content-type": "application/json",
            **({"authorization": f"Bearer {key}"} if key else {}),
            **{name.lower(): value for name, value in (headers or {}).items()},
        }
        self._signer = signer
        self._fresh_until = 0.0
        self._ending: dict[BackendResponse, asyncio.TimerHandle] = {}
        self._pace = ReadPace()
        self._transport = transport or Connections(self.url)

    def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        accept: str = "*/*",
        reads: bool = False,
        pooled: bool = False,
        backend: str = "",
    ) -> "OpenResponse":
        """Send a request; the response is open inside the block and closed after it.

        `body` is encoded as JSON unless it is an EncodedBody. `reads`: a POST that may be sent
        twice, because it changes nothing and generates nothing; a GET always may. `pooled`: it may
        use an idle connection. `backend`, a name: without that path at the server NotSupported is
        raised. Else raises the BackendError that the status and body mean
        (error_table.py), or the broken connection (foreign_errors.py, StaleConnection).
        """
        may_repeat = reads or method in _SAFE_METHODS
        request = Outgoing(method, self.url + path, *self._encoded(body, accept))
        return OpenResponse(
            self, request, may_repeat=may_repeat, pooled=pooled, backend=backend, path=path
        )

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
        size: AnswerSize | None = None,
    ) -> dict[str, Any]:
        """Send a request as `open` does and return the JSON object of the response.

        A list becomes `{"data": [...]}`, an empty body {}. `limit_s` bounds the whole exchange.
        `size`: how large it may be; if not said, LISTING for a GET, else WHOLE.
        Raises BackendError: BackendUnreachable after `limit_s`, BadEndpoint for a body that is
        not JSON or too large, BadAnswer for fields that do not match `shape`, or too many values.
        """
        most = size or (LISTING if method == "GET" else WHOLE)
        try:
            async with asyncio.timeout(limit_s):
                async with self.open(
                    method, path, body, accept="application/json", reads=reads, pooled=pooled
                ) as answer:
                    raw = await answer.whole(most.size_bytes)
        except TimeoutError:
            raise BackendUnreachable(
                f"{self.url}{path} did not answer within {limit_s:g} s"
            ) from None
        if raw.isspace() or not raw:
            return {}
        parsed = await self._parsed(raw, most, path)
        # LM Studio responds to unknown paths with status 200 and an `error`.
        if isinstance(parsed, dict) and parsed.get("error"):
            raise error_from(answer.status, raw, answer.headers, secrets=self.secrets)
        fields: dict[str, Any] = shape.read(
            parsed if isinstance(parsed, dict) else {"data": parsed}
        )
        return fields

    async def _parsed(self, raw: bytes, size: AnswerSize, path: str) -> Any:
        """The value of a body; raises BadAnswer for too much, BadEndpoint for no JSON."""
        try:
            if len(raw) > _LARGE_BYTES:
                return await asyncio.to_thread(parse_json, raw, size.bounds)
            return parse_json(raw, size.bounds)
        except TooMuch as error:
            raise invalid_json(error, is_cut=False) from None
        except ValueError:
            raise BadEndpoint(f"{self.url}{path} did not answer with JSON") from None

    async def aclose(self) -> None:
        """Close every connection."""
        for answer, timer in list(self._ending.items()):
            timer.cancel()
            self._end(answer)
        await self._transport.aclose()

    def finish(self, answer: BackendResponse) -> None:
        """Close a response when the end of its body has arrived, or `_END_S` have passed.

        A stream's last event and the end of its body may come in two packets: to close between
        them would cost the next request a new connection.
        """
        answer.leave_pace()
        if answer.is_complete:
            answer.close()
        else:
            loop = asyncio.get_running_loop()
            self._ending[answer] = loop.call_later(_END_S, self._end, answer)

    def _end(self, answer: BackendResponse) -> None:
        del self._ending[answer]
        answer.close()

    async def send(self, request: Outgoing, *, may_repeat: bool, pooled: bool) -> BackendResponse:
        """Send a request as `open` says; close the response at the end. Raises BackendError."""
        try:
            if may_repeat:
                incoming = await self._send_reading(request)
            elif pooled:
                incoming = await self._send_once(request)
            else:
                incoming = await self._send(request, is_fresh=True)
        except FOREIGN_ERRORS as error:
            raise to_backend_error(error, self.url, secrets=self.secrets) from error
        answer = BackendResponse(incoming, self.url, self.secrets, self._pace)
        try:
            await self._demand_success(answer)
        except BaseException:
            answer.close()
            raise
        return answer

    async def _send_reading(self, request: Outgoing) -> Incoming:
        """Send a request that may be repeated: again on a new connection if its own was stale."""
        reused = watch_reuse()
        try:
            return await self._send(request)
        except FOREIGN_ERRORS as error:
            if not (reused and was_dropped(error)):
                raise
        return await self._send(request, is_fresh=True)

    async def _send_once(self, request: Outgoing) -> Incoming:
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
        reused = watch_reuse()
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

    async def _send(self, request: Outgoing, *, is_fresh: bool = False) -> Incoming:
        if self._signer is None:
            return await self._transport.send(request, is_fresh=is_fresh)
        signed = await self._signer.sign()
        incoming = await self._transport.send(_with(request, signed), is_fresh=is_fresh)
        if incoming.status != _UNAUTHORIZED:
            return incoming
        # It was not processed, so this repeats nothing.
        incoming.close()
        signed = await self._signer.sign(refused=signed)
        return await self._transport.send(_with(request, signed), is_fresh=is_fresh)

    def _encoded(self, body: Any, accept: str) -> tuple[bytes | None, Mapping[str, str]]:
        """Content and headers of a request."""
        if isinstance(body, EncodedBody):
            own = {"accept": accept, "content-type": body.content_type}
            return body.content, {**self._headers, **own}
        return None if body is None else to_json(body), {**self._headers, "accept": accept}

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


def _with(request: Outgoing, headers: Mapping[str, str]) -> Outgoing:
    return request._replace(headers={**request.headers, **headers})


class OpenResponse:
    """A context: the request is sent at its begin, the response is closed at its end."""

    __slots__ = ("_answer", "_backend", "_client", "_may_repeat", "_path", "_pooled", "_request")

    def __init__(
        self, client: BackendClient, request: Outgoing, *,
        may_repeat: bool, pooled: bool, backend: str, path: str,
    ) -> None:  # fmt: skip
        """Made by `BackendClient.open`, which says what is raised at the begin."""
        self._client = client
        self._request = request
        self._may_repeat = may_repeat
        self._pooled = pooled
        self._backend = backend
        self._path = path
        self._answer: BackendResponse | None = None

    async def __aenter__(self) -> BackendResponse:
        try:
            self._answer = await self._client.send(
                self._request, may_repeat=self._may_repeat, pooled=self._pooled
            )
        except BadEndpoint as error:
            if not self._backend:
                raise
            raise as_missing(error, self._backend, self._client.url, self._path) from error
        return self._answer

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._answer is None:
            return
        if kind is None:
            self._client.finish(self._answer)
        else:
            self._answer.close()
