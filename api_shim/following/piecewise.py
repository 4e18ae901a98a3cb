"""Responses that are made a piece at a time, because all of one may be tens of megabytes."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

from starlette.responses import Response, StreamingResponse

_SMALL_BYTES: Final = 64 * 1024


def in_pieces(pieces: Iterator[bytes], headers: Mapping[str, str]) -> Response:
    """A response of JSON in these pieces; whole if they are small, which costs far less to send."""
    begun: list[bytes] = []
    size_bytes = 0
    for piece in pieces:
        begun.append(piece)
        size_bytes += len(piece)
        if size_bytes > _SMALL_BYTES:
            rest = _unhurried(chain(begun, pieces))
            return StreamingResponse(rest, 200, headers, media_type="application/json")
    return Response(b"".join(begun), 200, headers, media_type="application/json")


def items_in_pieces(items: Iterable[bytes]) -> Iterator[bytes]:
    """The items of a list of JSON, some at a time, with the commas between them."""
    comma, piece = b"", bytearray()
    for item in items:
        piece += comma + item
        comma = b","
        if len(piece) >= _SMALL_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


async def _unhurried(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield to the event loop after each piece."""
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)
