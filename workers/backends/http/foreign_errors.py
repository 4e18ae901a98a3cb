"""Foreign errors become ours here: whatever httpx and aiohttp raise, one class of our tree.

    with foreign_errors("http://box:11434"):
        ...

Invariant: no exception class of the two libraries that a request can raise passes unmapped; a
test walks all of them.
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
from workers.backends.http.error_table import MESSAGE_LIMIT, redacted

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
    # A wrong certificate does not mend itself, so this is no matter for a retry.
    aiohttp.ClientConnectorCertificateError: BadEndpoint,
    aiohttp.ServerFingerprintMismatch: BadEndpoint,
    http_exceptions.HttpProcessingError: BadEndpoint,
    OSError: BackendUnreachable,
    TimeoutError: BackendUnreachable,
}
"""What an error means before the answer began; the nearest class in an error's line decides."""

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
    """Raise what is foreign as ours; `began` says that the answer had begun."""
    try:
        yield
    except FOREIGN_ERRORS as error:
        raise to_backend_error(error, address, began=began, secrets=secrets) from error


def to_backend_error(
    error: BaseException, address: str, *, began: bool = False, secrets: tuple[str, ...] = ()
) -> BackendError:
    """The error of our tree that a foreign one means."""
    cause = _origin(error)
    reason = redacted(" ".join(str(cause).split()), secrets)[:MESSAGE_LIMIT]
    reason = reason or type(cause).__name__
    if began:
        if isinstance(cause, TimeoutError | httpx.TimeoutException):
            return BackendStalled(f"{address} fell silent in the middle of its answer: {reason}")
        return Truncated(f"the answer of {address} broke off: {reason}")
    kind = next(
        (BEFORE_RESPONSE[line] for line in type(cause).__mro__ if line in BEFORE_RESPONSE),
        BadEndpoint,
    )
    if kind is BadEndpoint:
        return BadEndpoint(f"{address} cannot be spoken to: {reason}; check the address")
    if was_dropped(error):
        return ConnectionDropped(f"{address} closed the connection before it answered: {reason}")
    return BackendUnreachable(f"{address} cannot be reached: {reason}")


def was_dropped(error: BaseException) -> bool:
    """Whether an open connection was closed under the request, before any byte of an answer.

    llama-server closes connections that it promised to keep, so one new try is in order.
    """
    cause = _origin(error)
    return isinstance(cause, _DROPPED) and not isinstance(cause, _REFUSED)


def _origin(error: BaseException) -> BaseException:
    """What aiohttp raised, if httpx only wraps it: httpx-aiohttp calls a drop a ConnectTimeout."""
    cause = error.__cause__
    if isinstance(error, httpx.TransportError) and isinstance(cause, aiohttp.ClientError):
        return cause
    return error
