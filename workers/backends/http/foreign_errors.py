"""Mapping of aiohttp's exceptions to `contract.errors.BackendError`.

Invariant: every exception class of the library that a request can raise is mapped; a test
enumerates them.
"""

from typing import Final

import aiohttp
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
    aiohttp.ClientError: BackendUnreachable,
    aiohttp.ClientResponseError: BadEndpoint,
    aiohttp.InvalidURL: BadEndpoint,
    aiohttp.NonHttpUrlClientError: BadEndpoint,
    aiohttp.RedirectClientError: BadEndpoint,
    # A wrong certificate stays wrong: not retryable.
    aiohttp.ClientConnectorCertificateError: BadEndpoint,
    aiohttp.ServerFingerprintMismatch: BadEndpoint,
    http_exceptions.HttpProcessingError: BadEndpoint,
    # A name that cannot be encoded for DNS; aiohttp does not wrap it.
    UnicodeError: BadEndpoint,
    OSError: BackendUnreachable,
    TimeoutError: BackendUnreachable,
}
"""The error before a response begins; the nearest class in the MRO decides."""

FOREIGN_ERRORS: Final = tuple(BEFORE_RESPONSE)
_REFUSED: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
)
_DROPPED: Final = (
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientConnectionResetError,
    aiohttp.ClientOSError,
    ConnectionError,
)


def to_backend_error(
    error: BaseException, address: str, *, began: bool = False, secrets: tuple[str, ...] = ()
) -> BackendError:
    """The BackendError for an exception of aiohttp; `secrets` are redacted from its message.

    Before a response: BadEndpoint, ConnectionDropped or BackendUnreachable. After it `began`:
    BackendStalled for a timeout, else TruncatedStream.
    """
    reason = redacted(" ".join(str(error).split()), secrets)[:MESSAGE_LIMIT]
    reason = reason or type(error).__name__
    if began:
        if isinstance(error, TimeoutError):
            return BackendStalled(
                f"{address} sent nothing more in the middle of its answer: {reason}"
            )
        return Truncated(f"the answer of {address} was cut off: {reason}")
    kind = next(
        (BEFORE_RESPONSE[line] for line in type(error).__mro__ if line in BEFORE_RESPONSE),
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
    return isinstance(error, _DROPPED) and not isinstance(error, _REFUSED)
