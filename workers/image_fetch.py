"""Fetches the images that a message names by URL, within limits.

A URL in a request makes this machine send a request of the client's choice. So only http and https,
only public addresses (checked after the name is resolved, when connecting and after each redirect;
the connection goes to the address that was checked), no user or password, only images by their
first bytes, at most LIMIT_BYTES in LIMIT_S seconds each, REQUEST_BYTES in REQUEST_S of a request.
"""

import asyncio
import base64
import ipaddress
import socket
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from typing_extensions import override
from yarl import URL

from contract.chat import ChatRequest, ImagePart, Message, Part
from contract.errors import (
    BackendError,
    BackendRejected,
    NotSupported,
)
from contract.images import normalized

LIMIT_BYTES: Final = 20 * 2**20
LIMIT_S: Final = 30.0
REQUEST_BYTES: Final = 64 * 2**20
REQUEST_S: Final = 120.0
REDIRECTS: Final = 3
_SCHEMES: Final = frozenset({"http", "https"})
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""The only IPv6 addresses of the open internet (RFC 4291)."""
_HOLD_IPV4: Final = tuple(
    ipaddress.IPv6Network(prefix)
    for prefix in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")
)
"""IPv6 addresses with an IPv4 address in their last 32 bits, to which a network may pass them on:
compatible, mapped (RFC 4291), translated (RFC 7915) and NAT64 (RFC 6052)."""


class _PublicResolver(AbstractResolver):
    """Resolves names to public addresses only; raises BackendRejected if there is none."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        public = [each for each in found if is_public(each["host"])]
        if not public:
            raise _refused(f"{host} has no public address")
        return public

    @override
    async def close(self) -> None:
        await self._resolver.close()


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
    return ip.is_global and not ip.is_multicast


async def with_images(request: ChatRequest, *, private: bool = False) -> ChatRequest:
    """Return the request with each http(s) URL of an image replaced by a data URL.

    `private` permits addresses that are not public. Raises BackendRejected if an image may not or
    cannot be fetched or all are more than REQUEST_BYTES, NotSupported if one is not an image.
    """
    if not any(_is_url(image) for message in request.messages for image in message.images):
        return request
    resolver = None if private else _PublicResolver()
    connector = aiohttp.TCPConnector(resolver=resolver, limit=4)
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        fetching = _Fetching(session, private=private)
        try:
            async with asyncio.timeout(REQUEST_S):
                messages = [await fetching.message(each) for each in request.messages]
        except TimeoutError:
            raise _refused(f"all images of a request took more than {REQUEST_S:g} s") from None
    return request.model_copy(update={"messages": tuple(messages)})


class _Fetching:
    """Fetches the images of one request; each address once."""

    def __init__(self, session: aiohttp.ClientSession, *, private: bool) -> None:
        self._session = session
        self._private = private
        self._left = REQUEST_BYTES
        self._fetched: dict[str, str] = {}

    async def message(self, message: Message) -> Message:
        """The message with data URLs."""
        if isinstance(message.content, str):
            return message
        parts: list[Part] = []
        for part in message.content:
            if isinstance(part, ImagePart) and _is_url(part.image):
                parts.append(ImagePart(image=await self._image(part.image)))
            else:
                parts.append(part)
        return message.model_copy(update={"content": tuple(parts)})

    async def _image(self, image: str) -> str:
        if image not in self._fetched:
            self._fetched[image] = await self._follow(_parsed(image))
        found = self._fetched[image]
        self._left -= len(found)
        if self._left < 0:
            raise _refused(f"all images of a request may have {REQUEST_BYTES} bytes as base64")
        return found

    async def _follow(self, url: URL) -> str:
        try:
            for _ in range(REDIRECTS + 1):
                _check(url, private=self._private)
                async with self._session.get(url, allow_redirects=False) as response:
                    if response.status in {301, 302, 303, 307, 308}:
                        url = url.join(_parsed(response.headers.get("location", "")))
                        continue
                    return await _data_url(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _refused(f"{url.host} could not be reached: {type(error).__name__}") from error
        raise _refused(f"{url.host} redirects more than {REDIRECTS} times")


def _is_url(image: str) -> bool:
    return image.partition("://")[0].lower() in _SCHEMES


def _parsed(address: str) -> URL:
    try:
        return URL(address)
    except ValueError:
        # The error does not repeat it: a URL may contain a password.
        raise _refused("its address, or what that redirects to, is not a URL") from None


def _check(url: URL, *, private: bool) -> None:
    if url.scheme not in _SCHEMES or not url.host:
        raise _refused("only http and https URLs are fetched")
    if url.user is not None or url.password is not None:
        raise _refused(f"the address at {url.host} has a user or a password in it")
    if private:
        return
    try:
        literal = is_public(url.host)
    except ValueError:
        return  # a name: the resolver checks its addresses
    if not literal:
        raise _refused(f"{url.host} is not a public address")


async def _data_url(response: aiohttp.ClientResponse) -> str:
    host = response.url.host
    if response.status != 200:  # noqa: PLR2004 - HTTP's own number
        raise _refused(f"{host} answered {response.status}")
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > LIMIT_BYTES:
            raise _refused(f"{host} sent more than {LIMIT_BYTES} bytes")
    encoded = await asyncio.to_thread(base64.b64encode, bytes(data))
    try:
        return normalized(f"data:;base64,{encoded.decode('ascii')}")
    except ValueError:
        raise NotSupported(
            f"an image of the messages: {host} sent no PNG, JPEG, GIF, WebP or BMP image, but "
            f"{response.content_type}"
        ) from None


def _refused(why: str) -> BackendError:
    return BackendRejected(f"an image of the messages was not fetched: {why}")
