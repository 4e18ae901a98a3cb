"""Images named by URL are fetched within limits, and from public addresses only."""

import base64
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from contract.chat import ChatRequest, ImagePart, Message, TextPart
from contract.errors import (
    BackendBusy,
    BackendRejected,
    NotSupported,
)
from outbound import public_web
from outbound.public_web import is_public
from workers import image_fetch
from workers.image_fetch import ImageFetcher

JPEG = b"\xff\xd8\xff\xe0" + bytes(30)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(30)


async def with_images(
    request: ChatRequest, *, private: bool = False, most_bytes: int = 2**26
) -> ChatRequest:
    fetcher = ImageFetcher(most_bytes=most_bytes, at_once_bytes=2**27, private=private)
    async with fetcher.fetched(request, "a") as fetched:
        return fetched


def chat_request(*images: str) -> ChatRequest:
    parts = (TextPart(text="look"), *(ImagePart(image=image) for image in images))
    return ChatRequest(model="m", messages=(Message(role="user", content=parts),))


async def labelled(_: web.Request) -> web.Response:
    return web.Response(body=JPEG, content_type="application/octet-stream")


async def inside(request: web.Request) -> web.Response:
    raise web.HTTPFound(f"http://me:secret@{request.host}/image")


@asynccontextmanager
async def server() -> AsyncGenerator[str]:
    async def image(_: web.Request) -> web.Response:
        return web.Response(body=PNG, content_type="image/png")

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>", content_type="text/html")

    async def huge(_: web.Request) -> web.Response:
        return web.Response(body=bytes(image_fetch.LIMIT_BYTES + 1), content_type="image/png")

    async def drawing(_: web.Request) -> web.Response:
        return web.Response(body=b"<svg></svg>", content_type="image/svg+xml")

    async def again(request: web.Request) -> web.Response:
        left = int(request.query["left"])
        raise web.HTTPFound(f"/again?left={left - 1}" if left else "/image")

    async def nowhere(_: web.Request) -> web.Response:
        raise web.HTTPFound("http://xn--a/image")

    app = web.Application()
    for handler in (image, page, huge, drawing, again, labelled, inside, nowhere):
        app.router.add_get(f"/{handler.__name__}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_url_is_replaced_by_a_data_url() -> None:
    async with server() as url:
        fitted = await with_images(chat_request(f"{url}/image", "iVBORw0KGgo="), private=True)

    assert fitted.messages[0].images == (
        "data:image/png;base64," + base64.b64encode(PNG).decode(),
        "iVBORw0KGgo=",
    )


async def test_a_request_without_urls_is_unchanged() -> None:
    request = chat_request("iVBORw0KGgo=", "data:image/png;base64,iVBORw0KGgo=")

    assert await with_images(request) is request


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/x",
        "http://[::1]/x",
        "http://10.0.0.7/x",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:127.0.0.1]/x",
        "http://localhost:1/x",
        "http://0.0.0.0/x",
        "http://[64:ff9b::127.0.0.1]/x",
        "http://[2002:a9fe:a9fe::1]/x",
        "http://[::127.0.0.1]/x",
        "http://127.1/x",
        "http://2130706433/x",
        "http://0x7f.1/x",
    ],
)
async def test_an_address_that_is_not_public_gets_no_request(url: str) -> None:
    with pytest.raises(BackendRejected, match=r"its address (is not|is no|has no)") as refused:
        await with_images(chat_request(url))

    # Nor is it named: what is replaced in errors tells who guesses that it is a backend's.
    assert str(URL(url).host) not in refused.value.message


async def test_a_host_that_is_no_name_is_refused_also_where_a_redirect_leads_to_it() -> None:
    async with server() as url:
        for address in ("http://xn--/", "HTTPS://a.XN--/x", "http://xn--a:80/", f"{url}/nowhere"):
            with pytest.raises(BackendRejected, match=r"not a URL.* with xn-- is no name"):
                await with_images(chat_request(address), private=True)


async def test_a_response_that_is_no_image_is_refused() -> None:
    async with server() as url:
        with pytest.raises(NotSupported, match="text/html"):
            await with_images(chat_request(f"{url}/page"), private=True)


async def test_an_image_of_an_unknown_format_is_refused() -> None:
    async with server() as url:
        with pytest.raises(NotSupported, match="sent no PNG, JPEG, GIF, WebP or BMP image"):
            await with_images(chat_request(f"{url}/drawing"), private=True)


async def test_the_type_is_that_of_the_bytes_whatever_the_server_says() -> None:
    async with server() as url:
        fitted = await with_images(chat_request(f"{url}/labelled"), private=True)

    assert fitted.messages[0].images[0].startswith("data:image/jpeg;base64,")


async def test_a_redirect_to_a_url_with_a_password_is_refused_without_repeating_it() -> None:
    async with server() as url:
        with pytest.raises(BackendRejected, match="a user or a password") as refused:
            await with_images(chat_request(f"{url}/inside"), private=True)

    assert "secret" not in str(refused.value)


async def test_the_images_of_a_request_are_bounded_together() -> None:
    async with server() as url:
        two, three = chat_request(*[f"{url}/image"] * 2), chat_request(*[f"{url}/image"] * 3)
        # An image of 38 bytes is some 55 characters with its head.
        await with_images(two, private=True, most_bytes=120)
        with pytest.raises(BackendRejected, match="more bytes than FLEET_MAX_IMAGES_BYTES"):
            await with_images(three, private=True, most_bytes=120)


async def test_images_of_all_chats_share_a_room_that_no_tenant_has_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_fetch, "_ROOM_S", 0.05)
    fetcher = ImageFetcher(most_bytes=1000, at_once_bytes=2000, private=True)
    async with server() as url:
        one = chat_request(f"{url}/image")
        async with fetcher.fetched(one, "a"):
            held = fetcher.memory.held_bytes
            await fetcher.memory.take(1000 - held, "a")
            with pytest.raises(BackendBusy, match="FLEET_IMAGES_AT_ONCE_BYTES"):
                async with fetcher.fetched(one, "a"):
                    pass
            async with fetcher.fetched(one, "b"):
                pass

    assert 0 < held < 100


async def test_a_fetch_that_fails_holds_nothing() -> None:
    fetcher = ImageFetcher(most_bytes=1000, at_once_bytes=2000, private=True)
    with pytest.raises(BackendRejected):
        async with fetcher.fetched(chat_request("http://127.0.0.1:1/x"), "a"):
            pass

    assert fetcher.memory.held_bytes == 0


async def test_the_connection_goes_to_the_address_that_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name whose next answer is another address (DNS rebinding) gets no second question."""
    answers = iter(["127.0.0.1", "10.0.0.7"])

    async def resolve(_: object, host: str, port: int = 0, family: object = None) -> list[object]:
        return [
            {
                "hostname": host, "host": next(answers), "port": port,
                "family": socket.AF_INET, "proto": 0, "flags": socket.AI_NUMERICHOST,
            }
        ]  # fmt: skip

    checked: list[str] = []

    def judge(address: str) -> bool:
        is_public(address)  # raises for a name
        checked.append(address)
        return True

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    monkeypatch.setattr(public_web, "is_public", judge)
    async with server() as url:
        port = url.rpartition(":")[2]
        fitted = await with_images(chat_request(f"http://rebinds.test:{port}/image"))

    assert fitted.messages[0].images[0].startswith("data:image/png")
    assert checked == ["127.0.0.1"]
    assert next(answers) == "10.0.0.7"


async def test_too_many_bytes_are_refused() -> None:
    async with server() as url:
        with pytest.raises(BackendRejected, match="more than"):
            await with_images(chat_request(f"{url}/huge"), private=True)


async def test_some_redirects_are_followed_and_not_more() -> None:
    async with server() as url:
        fitted = await with_images(chat_request(f"{url}/again?left=2"), private=True)
        with pytest.raises(BackendRejected, match="redirects more than 3 times"):
            await with_images(chat_request(f"{url}/again?left=9"), private=True)

    assert fitted.messages[0].images[0].startswith("data:image/png")


async def test_a_server_that_does_not_answer_is_a_rejection() -> None:
    with pytest.raises(BackendRejected, match="could not be reached"):
        await with_images(chat_request("http://127.0.0.1:1/x"), private=True)
