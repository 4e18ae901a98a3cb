"""PNG images of scripted models: a two-colour pattern derived from a text."""

import asyncio
import base64
import hashlib
import struct
import zlib
from collections.abc import AsyncGenerator
from functools import lru_cache
from typing import Any, Final

from contract.events import Image, Phase
from contract.images import ImageRequest
from workers.scripted.script import IMAGE, Script

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
CELLS: Final = 8
"""Squares per side of a final image; a preview has fewer."""
STEPS: Final = 4
"""Steps if neither the request nor the script sets them."""


@lru_cache(maxsize=64)
def png(text: str, width: int, height: int, cells: int = CELLS) -> bytes:
    """A PNG of `width` times `height` pixels, always the same for the same text."""
    digest = hashlib.sha256(text.encode()).digest()
    rows = []
    for row in range(cells):
        # The right half mirrors the left one.
        bits = [digest[6 + row] >> min(at, cells - 1 - at) & 1 for at in range(cells)]
        rows.append(b"\0" + bytes(bits[x * cells // width] for x in range(width)))
    pixels = b"".join(rows[y * cells // height] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # palette, 8 bits per pixel
    chunks = ((b"IHDR", head), (b"PLTE", digest[:6]), (b"IDAT", zlib.compress(pixels)))
    return SIGNATURE + b"".join(_chunk(*each) for each in (*chunks, (b"IEND", b"")))


def words_of(
    prompt: str, *, negative: str = "", start: str = "", strength: Any = None, seed: Any = None
) -> str:
    """The text from which the image of a request is derived."""
    origin = hashlib.sha256(start.encode()).hexdigest() if start else ""
    return "\n".join((prompt, negative, origin, str(strength), str(seed)))


def script_in(prompt: str) -> str:
    """The script for a server of one model: the first word of the prompt, if it is a script."""
    first = prompt.split(maxsplit=1)[0] if prompt.split() else ""
    return first if first.partition(":")[0] == IMAGE else IMAGE


async def drawn(
    script: Script, request: ImageRequest, *, until: int | None = None
) -> AsyncGenerator[Phase | Image, None]:
    """Draw step by step, with `request.partial_images` previews; stop before the step `until`."""
    words = words_of(
        request.prompt,
        negative=request.negative_prompt,
        start=request.image or "",
        strength=request.strength,
        seed=request.seed,
    )
    await asyncio.sleep(script.first)
    steps = script.chunks or request.steps or STEPS
    shown = 0
    for step in range(steps):
        if step == until:
            return
        yield Phase(phase="generating", progress=step / steps)
        if step / steps >= (shown + 1) / (request.partial_images + 1):
            shown += 1
            yield _image(words, request, 0, cells=2**shown, is_partial=True)
        await asyncio.sleep(1 / script.rate if script.rate else 0)
    for index in range(request.count if until is None else 0):
        yield _image(words if not index else f"{words}\n{index}", request, index)


def _image(
    words: str, request: ImageRequest, index: int, *, cells: int = CELLS, is_partial: bool = False
) -> Image:
    picture = png(words, request.width, request.height, cells)
    return Image(index=index, data=base64.b64encode(picture).decode(), partial=is_partial)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
