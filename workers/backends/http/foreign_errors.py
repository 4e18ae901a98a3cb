"""Mapping of httpx and aiohttp exceptions to `contract.errors.BackendError`.

    with foreign_errors("http://box:11434"):
        ...

Invariant: every exception class of the two libraries that a request can raise is mapped; a test
enumerates them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp
import httpx
from aiohttp import http_exceptions

from contract.errors import (
    BackendError,
    BackendStalled,
    BackendUnreachable,
    BadEndpoint,
    ConnectionDropped,
)
from contract.errors import TruncatedStream as Truncated
from telemetry.plain_text import redacted
from workers.backends.http.error_table import MESSAGE_LIMIT

BEFORE_RESPONSE: Final[dict[type[BaseException], type[BackendError]]] = {
    httpx.HTTPError: BackendUnreachable,
    httpx.UnsupportedProtocol: BadEndpoint,
    httpx.LocalProtocolError: BadEndpoint,
    httpx.DecodingError: BadEndpoint,
    httpx.TooManyRedirects: BadEndpoint,
    httpx.HTTPStatusError: BadEndpoint,
    httpx.InvalidURL: BadEndpoint,
    httpx.CookieConflict: BadEndpoint,
    httpx.StreamError: BackendUnreachable,
    aiohttp.ClientError: BackendUnreachable,
    aiohttp.ClientResponseError: BadEndpoint,
    aiohttp.InvalidURL: BadEndpoint,
    aiohttp.NonHttpUrlClientError: BadEndpoint,
    aiohttp.RedirectClientError: BadEndpoint,
    # A wrong certificate stays wrong: not retryable.
    aiohttp.ClientConnectorCertificateError: BadEndpoint,
    aiohttp.ServerFingerprintMismatch: BadEndpoint,
    http_exceptions.HttpProcessingError: BadEndpoint,
    OSError: BackendUnreachable,
    TimeoutError: BackendUnreachable,
}
"""The error before a response begins; the nearest class in the MRO decides."""

FOREIGN_ERRORS: Final = tuple(BEFORE_RESPONSE)
_REFUSED: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
)
_DROPPED: Final = (
    httpx.NetworkError,
    httpx.RemoteProtocolError,
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientConnectionResetError,
    aiohttp.ClientOSError,
    ConnectionError,
)


@contextmanager
def foreign_errors(
    address: str, *, began: bool = False, secrets: tuple[str, ...] = ()
) -> Iterator[None]:
    """Raise exceptions of httpx and aiohttp as BackendError.

    `began`: the response had begun. `secrets` are redacted from messages.
    """
    try:
        yield
    except FOREIGN_ERRORS as error:
        raise to_backend_error(error, address, began=began, secrets=secrets) from error


def to_backend_error(
    error: BaseException, address: str, *, began: bool = False, secrets: tuple[str, ...] = ()
) -> BackendError:
    """The BackendError for an exception of httpx or aiohttp.

    Before a response: BadEndpoint, ConnectionDropped or BackendUnreachable. After its begin:
    BackendStalled for a timeout, else TruncatedStream.
    """
    cause = _origin(error)
    reason = redacted(" ".join(str(cause).split()), secrets)[:MESSAGE_LIMIT]
    reason = reason or type(cause).__name__
    if began:
        if isinstance(cause, TimeoutError | httpx.TimeoutException):
            return BackendStalled(
                f"{address} sent nothing more in the middle of its answer: {reason}"
            )
        return Truncated(f"the answer of {address} was cut off: {reason}")
    kind = next(
        (BEFORE_RESPONSE[line] for line in type(cause).__mro__ if line in BEFORE_RESPONSE),
        BadEndpoint,
    )
    if kind is BadEndpoint:
        return BadEndpoint(f"{address} cannot be used: {reason}; check the address")
    if was_dropped(error):
        return ConnectionDropped(f"{address} closed the connection before it answered: {reason}")
    return BackendUnreachable(f"{address} cannot be reached: {reason}")


def was_dropped(error: BaseException) -> bool:
    """Whether an open connection was closed before any byte of the response.

    llama-server closes kept-alive connections early, so one retry is justified.
    """
    cause = _origin(error)
    return isinstance(cause, _DROPPED) and not isinstance(cause, _REFUSED)


def _origin(error: BaseException) -> BaseException:
    """The aiohttp exception that httpx wraps: httpx-aiohttp reports a drop as ConnectTimeout."""
    cause = error.__cause__
    if isinstance(error, httpx.TransportError) and isinstance(cause, aiohttp.ClientError):
        return cause
    return error
