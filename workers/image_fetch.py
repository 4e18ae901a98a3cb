"""Fetches the images that a message names by URL, within limits.

A URL in a request makes this machine send a request of the client's choice: `public_web.py` of
`outbound` says to which addresses, and judges each redirect like the first one. Only images by
their first bytes, at most LIMIT_BYTES in LIMIT_S seconds each, REQUEST_BYTES in REQUEST_S of a
request.
"""

import asyncio
import base64
from typing import Final

import aiohttp
from yarl import URL

from contract.chat import ChatRequest, ImagePart, Message, Part
from contract.errors import (
    BackendError,
    BackendRejected,
    NotSupported,
)
from contract.images import normalized
from outbound.public_web import (
    AddressRefused,
    PublicWeb,
    Unreachable,
    first_bytes,
    is_web_address,
)

LIMIT_BYTES: Final = 20 * 2**20
LIMIT_S: Final = 30.0
REQUEST_BYTES: Final = 64 * 2**20
REQUEST_S: Final = 120.0
REDIRECTS: Final = 3
_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


async def with_images(request: ChatRequest, *, private: bool = False) -> ChatRequest:
    """Return the request with each http(s) URL of an image replaced by a data URL.

    `private` permits addresses that are not public. Raises BackendRejected if an image may not or
    cannot be fetched or all are more than REQUEST_BYTES, NotSupported if one is not an image.
    """
    if not any(is_web_address(image) for message in request.messages for image in message.images):
        return request
    async with PublicWeb(private=private, total_s=LIMIT_S) as web:
        fetching = _Fetching(web)
        try:
            async with asyncio.timeout(REQUEST_S):
                messages = [await fetching.message(each) for each in request.messages]
        except TimeoutError:
            raise _refused(f"all images of a request took more than {REQUEST_S:g} s") from None
    return request.model_copy(update={"messages": tuple(messages)})


class _Fetching:
    """Fetches the images of one request; each address once."""

    def __init__(self, web: PublicWeb) -> None:
        self._web = web
        self._left = REQUEST_BYTES
        self._fetched: dict[str, str] = {}

    async def message(self, message: Message) -> Message:
        """The message with data URLs."""
        if isinstance(message.content, str):
            return message
        parts: list[Part] = []
        for part in message.content:
            if isinstance(part, ImagePart) and is_web_address(part.image):
                parts.append(ImagePart(image=await self._image(part.image)))
            else:
                parts.append(part)
        return message.model_copy(update={"content": tuple(parts)})

    async def _image(self, image: str) -> str:
        if image not in self._fetched:
            self._fetched[image] = await self._follow(image)
        found = self._fetched[image]
        self._left -= len(found)
        if self._left < 0:
            raise _refused(f"all images of a request may have {REQUEST_BYTES} bytes as base64")
        return found

    async def _follow(self, address: str) -> str:
        host: str | None = None
        try:
            for _ in range(REDIRECTS + 1):
                async with self._web.request("GET", address) as response:
                    host = response.url.host
                    if response.status not in _REDIRECTS:
                        return await _data_url(response)
                    address = _location(response)
        except (AddressRefused, Unreachable) as error:
            raise _refused(str(error)) from error
        raise _refused(f"{host} redirects more than {REDIRECTS} times")


def _location(response: aiohttp.ClientResponse) -> str:
    """Where a redirect leads; empty, which is no address, if it is no URL."""
    try:
        return str(response.url.join(URL(response.headers.get("location", ""))))
    except ValueError:
        return ""


async def _data_url(response: aiohttp.ClientResponse) -> str:
    host = response.url.host
    if response.status != _OK:
        raise _refused(f"{host} answered {response.status}")
    data = await first_bytes(response, LIMIT_BYTES)
    if data is None:
        raise _refused(f"{host} sent more than {LIMIT_BYTES} bytes")
    encoded = await asyncio.to_thread(base64.b64encode, data)
    try:
        return normalized(f"data:;base64,{encoded.decode('ascii')}")
    except ValueError:
        raise NotSupported(
            f"an image of the messages: {host} sent no PNG, JPEG, GIF, WebP or BMP image, but "
            f"{response.content_type}"
        ) from None


def _refused(why: str) -> BackendError:
    return BackendRejected(f"an image of the messages was not fetched: {why}")
