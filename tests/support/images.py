"""Image backends under test: each adapter against the scripted server, and what it tells."""

import base64
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from contract.images import ImageRequest
from workers.backends.diffusion.a1111 import A1111
from workers.backends.diffusion.sdcpp import MODEL, Sdcpp
from workers.scripted.backend import Scripted
from workers.scripted.picture import SIGNATURE
from workers.scripted.server import ScriptedServer, serve

NETWORKED = ("sd", "a1111")
ALL = (*NETWORKED, "scripted")
MODELS = {"sd": MODEL, "a1111": "scripted-image", "scripted": "scripted-image"}


def make(type: str, url: str, **options: Any) -> Any:
    """A backend of a type for a server's root."""
    match type:
        case "sd":
            return Sdcpp(type, url, **options)
        case "a1111":
            return A1111(type, url, poll_s=0.02, **options)
        case _:
            return Scripted(type)


@asynccontextmanager
async def against_server(type: str) -> AsyncIterator[tuple[Any, ScriptedServer]]:
    """A backend and the scripted server that it talks to."""
    async with serve() as server:
        backend = make(type, server.url)
        try:
            yield backend, server
        finally:
            await backend.aclose()


def drawing(type: str, script: str = "", **fields: Any) -> ImageRequest:
    """A small cat; a script is the model's name, or the first word where one model is all."""
    name = f"scripted-image:{script}"
    model, prompt = (name, "a cat") if type == "scripted" else (MODELS[type], f"{name} a cat")
    return ImageRequest(
        model=model if script else MODELS[type],
        prompt=prompt if script else "a cat",
        **{"width": 48, "height": 32} | fields,
    )


async def collected(stream: Any) -> list[Any]:
    """Every event."""
    return [event async for event in stream]


def pictures(events: list[Any], *, partial: bool = False) -> list[bytes]:
    """The images, decoded."""
    found = (event for event in events if event.type == "image" and event.partial is partial)
    return [base64.b64decode(event.data, validate=True) for event in found]


def size_of(image: bytes) -> tuple[int, int]:
    """Width and height of a PNG in pixels; raises ValueError if it is invalid or truncated."""
    if not image.startswith(SIGNATURE + struct.pack(">I", 13) + b"IHDR"):
        raise ValueError("not a PNG")
    at, kind, body = len(SIGNATURE), b"", b""
    try:
        while kind != b"IEND":
            length, kind = struct.unpack_from(">I4s", image, at)
            data = image[at + 8 : at + 8 + length]
            if image[at + 8 + length : at + 12 + length] != struct.pack(
                ">I", zlib.crc32(kind + data)
            ):
                raise ValueError(f"the chunk {kind!r} is broken")
            body += data if kind == b"IDAT" else b""
            at += 12 + length
        zlib.decompress(body)
    except (struct.error, zlib.error) as error:
        raise ValueError(f"truncated: {error}") from error
    width, height = struct.unpack_from(">II", image, 16)
    return width, height
