"""Requests to an address that a client names: a picture's, a webhook's.

Such an address makes this machine send a request of the client's choice. So only http and https, no
user or password, and only public addresses, which is judged for each request: of a literal address
before, of a name when it is resolved, and the connection goes to the address that was judged. No
redirect is followed, no proxy of the environment used, and no cookie kept.

    async with PublicWeb(private=False, total_s=30) as web:
        async with web.request("POST", address, data=body) as response:
            text = await first_bytes(response, 4096)
"""

import ipaddress
import os
import re
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from typing_extensions import override
from yarl import URL

_SCHEMES: Final = frozenset({"http", "https"})
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""The only IPv6 addresses of the open internet (RFC 4291)."""
_HOLD_IPV4: Final = tuple(
    ipaddress.IPv6Network(prefix)
    for prefix in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")
)
"""IPv6 addresses with an IPv4 address in their last 32 bits, to which a network may pass them on:
compatible, mapped (RFC 4291), translated (RFC 7915) and NAT64 (RFC 6052)."""
_NOT_PUBLIC: Final = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "3fff::/20"))
)
"""What not every Python's table knows: addresses of protocols (RFC 6890; metadata of clouds are at
192.0.0.192), relays of 6to4 (RFC 7526), the host of a machine at Azure, and documentation
(RFC 9637)."""
_FAILURES: Final = (aiohttp.ClientError, OSError, UnicodeError)
"""What a request fails with; a name that IDNA does not allow is a UnicodeError."""
_NUMERIC: Final = re.compile(r"(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+))*\.?", re.IGNORECASE)
"""What the C library reads as an IPv4 address: no name ends in a number (RFC 3696, 2)."""
_LOOPBACK: Final = ".localhost"
"""Names below it are this machine, whatever a resolver says (RFC 6761, 6.3)."""
_NOT_FOUND: Final = "has no public address, or its name could not be resolved"
"""One text for both: else whoever names a host would learn which names this network has."""
_LONGEST: Final = 8192
"""Characters of an address."""


class AddressRefused(ValueError):
    """No request is sent to this address; the text never holds its user, password or path."""

    def __init__(self, why: str, host: str = "") -> None:
        """`why` goes on where a sentence has named the address."""
        super().__init__(f"{host or 'its address'} {why}")
        self.why = why


class NotPublic(AddressRefused):
    """It is no address of the open internet, where only those get requests."""


class Unreachable(OSError):
    """The address did not answer; the text names its host and what failed."""


def is_web_address(text: str) -> bool:
    """Whether a text begins as an http or https URL does."""
    return text.partition("://")[0].lower() in _SCHEMES


def is_public(address: str) -> bool:
    """Return whether an IP address is public; raises ValueError if it is no address.

    An IPv6 address that holds an IPv4 address is as public as that.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if any(ip in network for network in _HOLD_IPV4):
            ip = ipaddress.IPv4Address(ip.packed[-4:])
        elif ip.sixtofour is not None:  # 2002::/16 (RFC 3056)
            ip = ip.sixtofour
        elif ip not in _UNICAST:
            return False
    is_listed = any(ip in network for network in _NOT_PUBLIC)
    return ip.is_global and not ip.is_multicast and not is_listed


def allowed_address(text: str, *, private: bool) -> URL:
    """The address, if a request may be sent there; raises AddressRefused.

    `private` permits addresses that are not public. A name is resolved, and judged, by the request.
    """
    try:
        url = URL(text) if len(text) <= _LONGEST else None
    except ValueError:
        url = None  # yarl's error repeats the URL, which may contain a password
    if url is None:
        raise AddressRefused("is not a URL, or redirects to what is none")
    host = "" if url.scheme not in _SCHEMES else _host(url)
    if not host:
        raise AddressRefused("is no http or https URL")
    if url.user is not None or url.password is not None:
        raise AddressRefused("has a user or a password in its address", host)
    if not private and _is_refused_literal(host):
        raise NotPublic("is not a public address", host)
    return url


def _host(url: URL) -> str:
    """The host as it is read, empty if there is none; yarl decodes it here, not when it parses."""
    try:
        return url.host or ""
    except UnicodeError:
        raise AddressRefused(
            "is not a URL, or redirects to what is none: a part of its host with xn-- is no name"
        ) from None


def _is_refused_literal(host: str) -> bool:
    try:
        return not is_public(host)
    except ValueError:
        if f".{host.lower().removesuffix('.')}".endswith(_LOOPBACK):
            return True
        # A name, whose addresses the resolver judges; but what looks like an IPv4 address (127.1,
        # 2130706433) might be connected to without being resolved.
        return _NUMERIC.fullmatch(host) is not None


class _PublicResolver(AbstractResolver):
    """Resolves names to public addresses only; raises AddressRefused if there is none."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        public = [each for each in found if is_public(each["host"])]
        if not public:
            raise NotPublic(_NOT_FOUND, host)
        return public

    @override
    async def close(self) -> None:
        await self._resolver.close()


class PublicWeb:
    """Sends requests to addresses that clients name, from one event loop."""

    def __init__(self, *, private: bool, total_s: float, connections: int = 4) -> None:
        """`private` permits addresses that are not public; a request has `total_s` seconds."""
        self._private = private
        self._total_s = total_s
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the session; no request is sent."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=None if self._private else _PublicResolver(), limit=self._connections
            ),
            timeout=aiohttp.ClientTimeout(total=self._total_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close its connections."""
        assert self._session is not None  # noqa: S101 - for the type checker: entered above
        await self._session.close()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        address: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The head of the response, whose body is not read yet; a redirect is a response.

        Raises AddressRefused, Unreachable; both also while the body is read.
        """
        assert self._session is not None  # noqa: S101 - for the type checker: entered above
        url = allowed_address(address, private=self._private)
        options: dict[str, Any] = {"headers": headers, "data": data, "allow_redirects": False}
        try:
            async with self._session.request(method, url, **options) as response:
                yield response
        except _FAILURES as error:
            if isinstance(error, Unreachable):
                raise
            if _is_not_found(error) and not self._private:
                raise NotPublic(_NOT_FOUND, url.host or "") from error
            raise _unreachable(url, error) from error


def _is_not_found(error: BaseException) -> bool:
    return isinstance(error, aiohttp.ClientConnectorDNSError | UnicodeError)


async def first_bytes(response: aiohttp.ClientResponse, most: int) -> bytes | None:
    """The whole body; None, unread from there on, if it has more than `most` bytes.

    Raises Unreachable if it breaks off, or does not end in time.
    """
    data = bytearray()
    try:
        async for piece in response.content.iter_any():
            data += piece
            if len(data) > most:
                return None
    except _FAILURES as error:
        raise _unreachable(response.url, error) from error
    return bytes(data)


def _unreachable(url: URL, error: BaseException) -> Unreachable:
    """The error of a request; its text says what failed, and never more of the URL than its host.

    The order matters: most of aiohttp's errors are of several kinds.
    """
    match error:
        case TimeoutError():
            reason = "it did not answer in time"
        case _ if _is_not_found(error):
            reason = "its name could not be resolved"
        case aiohttp.ClientSSLError():
            reason = "no secure connection could be made, or its certificate is not valid"
        case aiohttp.ClientConnectorError(os_error=cause):
            reason = os.strerror(cause.errno) if cause.errno else "the connection failed"
        case aiohttp.ClientPayloadError():
            reason = "its answer broke off"
        case aiohttp.ServerDisconnectedError():
            reason = "it closed the connection without an answer"
        case aiohttp.ClientResponseError():
            reason = "its answer was not HTTP"
        case _:
            reason = type(error).__name__
    return Unreachable(f"{url.host} could not be reached: {reason}")
