"""Fetches the images that a message names by URL, within limits.

A URL in a request makes this machine send a request of the client's choice: `public_web.py` of
`outbound` says to which addresses, and judges each redirect like the first one. Only images by
their first bytes, at most LIMIT_BYTES in LIMIT_S seconds each, FLEET_MAX_IMAGES_BYTES in REQUEST_S
of a request, and FLEET_IMAGES_AT_ONCE_BYTES of all chats of the worker, held as long as their jobs
run.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from yarl import URL

from contract.chat import ChatRequest, ImagePart, Message, Part
from contract.errors import (
    BackendBusy,
    BackendError,
    BackendRejected,
    NotSupported,
)
from contract.images import data_url, inline_bytes
from outbound.public_web import (
    AddressRefused,
    PublicWeb,
    Unreachable,
    first_bytes,
    is_web_address,
)
from relay.admission.byte_budget import ByteBudget

LIMIT_BYTES: Final = 20 * 2**20
LIMIT_S: Final = 30.0
REQUEST_S: Final = 120.0
REDIRECTS: Final = 3
_ROOM_S: Final = 60.0
"""For room for a request's images."""
_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class ImageFetcher:
    """Fetches the images of all chats of a worker."""

    def __init__(self, *, most_bytes: int, at_once_bytes: int, private: bool = False) -> None:
        """`most_bytes` are of a request, `at_once_bytes` of all, both of images as files.

        `private` permits addresses that are not public.
        """
        self._most_bytes = most_bytes
        self._private = private
        self.memory = ByteBudget(at_once_bytes, _ROOM_S)
        """For what was fetched."""

    @asynccontextmanager
    async def fetched(self, request: ChatRequest, tenant: str) -> AsyncGenerator[ChatRequest]:
        """The request with each http(s) URL of an image replaced by a data URL.

        Until this ends the images count as held. Raises BackendRejected if one may not or cannot
        be fetched or all are too large together, NotSupported if one is not an image, BackendBusy
        if other chats have so many that there is no room for a minute.
        """
        images = [image for message in request.messages for image in message.images]
        urls = {image for image in images if is_web_address(image)}
        if not urls:
            yield request
            return
        held = min(len(urls) * LIMIT_BYTES, self._most_bytes)
        await self._take(held, tenant)
        try:
            left = self._most_bytes - sum(map(inline_bytes, images))
            fitted, size_bytes = await self._fetch(request, left)
            self.memory.give_back(held - size_bytes, tenant)
            held = size_bytes
            del request
            yield fitted
        finally:
            self.memory.give_back(held, tenant)

    async def _take(self, size_bytes: int, tenant: str) -> None:
        try:
            await self.memory.take(size_bytes, tenant)
        except TimeoutError:
            raise BackendBusy(
                "the images of other chats fill FLEET_IMAGES_AT_ONCE_BYTES of this worker",
                scope="request",
            ) from None

    async def _fetch(self, request: ChatRequest, most_bytes: int) -> tuple[ChatRequest, int]:
        """The request with data URLs, and the bytes of what was fetched."""
        async with PublicWeb(private=self._private, total_s=LIMIT_S) as web:
            fetching = _Fetching(web, most_bytes)
            try:
                async with asyncio.timeout(REQUEST_S):
                    messages = [await fetching.message(each) for each in request.messages]
            except TimeoutError:
                raise _refused(f"all images of a request took more than {REQUEST_S:g} s") from None
        return request.model_copy(update={"messages": tuple(messages)}), fetching.held_bytes


class _Fetching:
    """Fetches the images of one request; each address once."""

    def __init__(self, web: PublicWeb, most_bytes: int) -> None:
        self._web = web
        self._left = most_bytes
        self._fetched: dict[str, str] = {}

    @property
    def held_bytes(self) -> int:
        return sum(map(inline_bytes, self._fetched.values()))

    async def message(self, message: Message) -> Message:
        """The message with data URLs."""
        if isinstance(message.content, str):
            return message
        parts: list[Part] = []
        for part in message.content:
            if isinstance(part, ImagePart) and is_web_address(part.image):
                image = await self._image(part.image)
                parts.append(ImagePart.model_construct(type="image", image=image))  # checked
            else:
                parts.append(part)
        return message.model_copy(update={"content": tuple(parts)})

    async def _image(self, image: str) -> str:
        found = self._fetched.get(image)
        if found is None:
            found = self._fetched[image] = await self._follow(image)
        self._left -= inline_bytes(found)
        if self._left < 0:
            raise _too_large()
        return found

    async def _follow(self, address: str) -> str:
        host: str | None = None
        try:
            for _ in range(REDIRECTS + 1):
                async with self._web.request("GET", address) as response:
                    host = response.url.host
                    if response.status not in _REDIRECTS:
                        return await _read(response, self._left)
                    address = _location(response)
        except AddressRefused as error:
            # Not its host: the addresses of backends are replaced in errors, and whoever names one
            # would learn that it is one.
            raise _refused(f"its address {error.why}") from error
        except Unreachable as error:
            raise _refused(str(error)) from error
        raise _refused(f"{host} redirects more than {REDIRECTS} times")


def _location(response: aiohttp.ClientResponse) -> str:
    """Where a redirect leads; empty, which is no address, if it is no URL."""
    try:
        return str(response.url.join(URL(response.headers.get("location", ""))))
    except ValueError:
        return ""


async def _read(response: aiohttp.ClientResponse, most_bytes: int) -> str:
    """The body as a data URL."""
    host = response.url.host
    if response.status != _OK:
        raise _refused(f"{host} answered {response.status}")
    data = await first_bytes(response, min(LIMIT_BYTES, most_bytes))
    if data is None and most_bytes < LIMIT_BYTES:
        raise _too_large()
    if data is None:
        raise _refused(f"{host} sent more than {LIMIT_BYTES} bytes")
    try:
        return await asyncio.to_thread(data_url, data)
    except ValueError:
        raise NotSupported(
            f"an image of the messages: {host} sent no PNG, JPEG, GIF, WebP or BMP image, but "
            f"{response.content_type}"
        ) from None


def _too_large() -> BackendError:
    return _refused(
        "all images of a request have more bytes than FLEET_MAX_IMAGES_BYTES: send fewer or "
        "smaller ones"
    )


def _refused(why: str) -> BackendError:
    return BackendRejected(f"an image of the messages was not fetched: {why}")
