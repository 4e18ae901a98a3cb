"""Responses of the file and batch routes: list pages, documented errors, downloads."""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote

from fastapi import Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api_shim.following.shutdown import OpenCalls
from api_shim.openai.errors import OpenAIErrorResponse
from contract.batches import StoredFile

_DESCRIPTIONS: Final[Mapping[int, str]] = {
    400: "A field is missing or invalid; `param` names it.",
    401: "`invalid_api_key`: no API key, or an unknown one.",
    403: "The key lacks a permission, or what the batch's jobs need (`not_allowed`); or there are "
    "no keys, and the client is not on this machine (`not_local`).",
    404: "It does not exist, belongs to another tenant, or has expired.",
    409: "It has ended, so it cannot be cancelled (`batch_ended`), or the Idempotency-Key belongs "
    "to another one.",
    413: "The file is larger than FLEET_MAX_FILE_BYTES.",
    415: "The body has another content type.",
    429: "The tenant runs as many batches as it may; Retry-After says when to retry.",
    500: "An internal error.",
    503: "Redis (`relay_unavailable`) or the file storage (`storage_unavailable`) is unavailable.",
}


class FileDeleted(BaseModel):
    """The file that was deleted."""

    id: str
    object: Literal["file"]
    deleted: Literal[True] = True


class _Named(Protocol):
    @property
    def id(self) -> str: ...


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail with these statuses, and with 401, 403 and 500."""
    return {
        status: {"model": OpenAIErrorResponse, "description": _DESCRIPTIONS[status]}
        for status in sorted({*statuses, 401, 403, 500})
    }


def listing(kind: type[BaseModel], data: Sequence[_Named], *, has_more: bool) -> Response:
    """A list page; while `has_more`, clients request the next one `after` its `last_id`."""
    page = kind(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=has_more,
    )
    return Response(page.model_dump_json(), media_type="application/json")


class Download(Response):
    """A file, streamed from the storage; it ends early if the client disconnects or the shim stops.

    The body is then shorter than its Content-Length, so the client downloads it again.
    """

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], file: StoredFile, open_calls: OpenCalls
    ) -> None:
        """Nothing is read before `begin`."""
        self._pieces = pieces
        self._open_calls = open_calls
        self._first: bytes | None = None
        self.status_code = 200
        self.media_type = "application/octet-stream"
        self.background = None
        self.init_headers(
            {
                "Content-Length": str(file.size_bytes),
                "Content-Disposition": f"attachment; filename*=UTF-8''{_last_part(file.filename)}",
                "Cache-Control": "no-store",
            }
        )

    async def begin(self) -> None:
        """Read the first chunk, so that a missing file is a 404 and not a broken body.

        Raises UnknownFile, StorageUnavailable.
        """
        self._first = await anext(self._pieces, None)

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file."""
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        await self._open_calls.run(self._send(send), receive)

    async def _send(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            piece = self._first
            while piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await anext(pieces, None)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _last_part(filename: str) -> str:
    """The name under which a client may store a file, percent-encoded: it leaves no folder."""
    name = re.split(r"[/\\]", filename)[-1]
    return quote("file" if name in {"", ".", ".."} else name, safe="")


class LinesDownload(Response):
    """Lines that are rendered while they are sent; it ends early if the client disconnects.

    If the shim stops, the body has no end, so that the client does not take it for whole.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None], open_calls: OpenCalls) -> None:
        """Nothing is read before `begin`."""
        self._pieces = pieces
        self._open_calls = open_calls
        self._first: bytes | None = None
        self.status_code = 200
        self.media_type = "application/x-jsonl"
        self.background = None
        self.init_headers({"Cache-Control": "no-store"})

    async def begin(self) -> None:
        """Read the first lines, so that a missing file is a 404 and not a broken body.

        Raises UnknownFile, StorageUnavailable.
        """
        self._first = await anext(self._pieces, b"")

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines."""
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        await self._open_calls.run(self._send(send), receive)

    async def _send(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
