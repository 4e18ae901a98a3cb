"""Requests go to public addresses only, judged each time, and follow nothing."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from outbound.public_web import (
    AddressRefused,
    PublicWeb,
    Unreachable,
    allowed_address,
    first_bytes,
    is_public,
)


@asynccontextmanager
async def receiver() -> AsyncGenerator[str]:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read(), headers={"Set-Cookie": "a=b"})

    async def away(_: web.Request) -> web.Response:
        raise web.HTTPFound("http://169.254.169.254/latest")

    async def cookies(request: web.Request) -> web.Response:
        return web.Response(text=request.headers.get("cookie", "none"))

    app = web.Application()
    app.router.add_post("/echo", echo)
    app.router.add_get("/away", away)
    app.router.add_get("/cookies", cookies)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_body_is_sent_and_the_response_is_read_up_to_a_bound() -> None:
    async with receiver() as url, PublicWeb(private=True, total_s=5) as outside:
        async with outside.request("POST", f"{url}/echo", data=b"twelve bytes") as response:
            whole = await first_bytes(response, 12)
        async with outside.request("POST", f"{url}/echo", data=b"twelve bytes") as response:
            cut = await first_bytes(response, 11)

    assert (whole, cut) == (b"twelve bytes", None)


async def test_a_redirect_is_a_response() -> None:
    async with (
        receiver() as url,
        PublicWeb(private=True, total_s=5) as outside,
        outside.request("GET", f"{url}/away") as response,
    ):
        assert response.status == 302


async def test_no_cookie_is_kept() -> None:
    async with receiver() as url, PublicWeb(private=True, total_s=5) as outside:
        async with outside.request("POST", f"{url}/echo"):
            pass
        async with outside.request("GET", f"{url}/cookies") as response:
            sent = await first_bytes(response, 100)

    assert sent == b"none"


async def test_nothing_that_is_not_public_is_connected_to() -> None:
    async with receiver() as url, PublicWeb(private=False, total_s=5) as outside:
        port = url.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            with pytest.raises(AddressRefused, match="public address"):
                async with outside.request("GET", f"http://{host}:{port}/cookies"):
                    pass


async def test_names_that_are_private_and_names_that_are_none_are_refused_alike() -> None:
    told = []
    async with PublicWeb(private=False, total_s=5) as outside:
        for host in (socket.gethostname(), "no-such-name.invalid", "a" * 64):
            with pytest.raises(AddressRefused) as refused:
                async with outside.request("GET", f"http://{host}/"):
                    pass
            told.append(refused.value.why)

    assert told == ["has no public address, or its name could not be resolved"] * 3


async def test_silence_is_unreachable_and_names_the_host_alone() -> None:
    async with PublicWeb(private=True, total_s=5) as outside:
        with pytest.raises(Unreachable) as found:
            async with outside.request("GET", "http://127.0.0.1:1/hook?token=abc"):
                pass

    assert str(found.value) == "127.0.0.1 could not be reached: Connection refused"


@pytest.mark.parametrize("host", ["a..example", "a" * 64])
async def test_a_name_that_cannot_be_looked_up_is_unreachable(host: str) -> None:
    async with PublicWeb(private=True, total_s=5) as outside:
        with pytest.raises(Unreachable, match="name could not be resolved"):
            async with outside.request("GET", f"http://{host}/"):
                pass


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "its answer broke off"),
        (b"HTTP/1.1 2", "closed the connection without an answer"),
        (b"\0\0\r\n\r\n", "its answer was not HTTP"),
    ],
)
async def test_half_an_answer_is_unreachable_in_plain_words(answer: bytes, words: str) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, PublicWeb(private=True, total_s=5) as outside:
        with pytest.raises(Unreachable, match=words):
            async with outside.request("GET", url) as response:
                await first_bytes(response, 100)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ftp://example.com/x", "is no http or https URL"),
        ("/relative", "is no http or https URL"),
        ("http://", "URL"),
        ("http://[::1", "is not a URL"),
        ("http://me:secret@example.com/", "a user or a password"),
        ("http://example.com/" + "x" * 9000, "is not a URL"),
        ("http://xn--/", "is not a URL.* with xn-- is no name"),
        ("http://xn--a/", "is not a URL.* with xn-- is no name"),
        ("http://xn--.com/", "is not a URL.* with xn-- is no name"),
        ("http://a.xn--/", "is not a URL.* with xn-- is no name"),
        ("HTTPS://XN--/", "is not a URL.* with xn-- is no name"),
        ("http://me:secret@xn--a/", "is not a URL.* with xn-- is no name"),
        ("https://10.0.0.1/x", "10.0.0.1 is not a public address"),
        ("https://127.1/x", "127.1 is not a public address"),
        ("https://2130706433/x", "2130706433 is not a public address"),
        ("https://0x7f.1/x", "0x7f.1 is not a public address"),
        ("https://0177.0.0.1./x", "0177.0.0.1. is not a public address"),
    ],
)
def test_an_address_is_refused_without_repeating_it(address: str, reason: str) -> None:
    with pytest.raises(AddressRefused, match=reason) as refused:
        allowed_address(address, private=False)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("192.168.1.1", False),
        ("fe80::1%eth0", False),
        ("224.0.0.1", False),
        ("100.64.0.1", False),
        ("2606:4700::1111", True),
        ("fec0::1", False),
        ("ff0e::1", False),
        ("::1", False),
        ("::", False),
        ("::ffff:8.8.8.8", True),
        ("::ffff:10.0.0.1", False),
        ("::8.8.8.8", True),
        ("::10.0.0.1", False),
        ("::ffff:0:169.254.169.254", False),
        ("64:ff9b::8.8.8.8", True),
        ("64:ff9b::169.254.169.254", False),
        ("64:ff9b:1::1", False),
        ("2002:808:808::1", True),
        ("2002:c0a8:101::1", False),
        ("2001:0:1::1", False),
        ("64:ff9b::224.0.0.1", False),
        ("2001:db8::1", False),
        ("192.0.0.192", False),
        ("::ffff:192.0.0.192", False),
        ("2002:c000:c0::1", False),
        ("192.88.99.1", False),
        ("168.63.129.16", False),
        ("168.63.129.17", True),
        ("3fff::1", False),
    ],
)
def test_only_addresses_of_the_open_internet_are_public(address: str, public: bool) -> None:  # noqa: FBT001
    assert is_public(address) is public
