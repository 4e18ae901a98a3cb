"""What files and batches share: their pages, their refusals, bytes on their way out."""

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
    400: "A field is missing or wrong; `param` names it.",
    401: "`invalid_api_key`: no API key, or one that is not known.",
    403: "While there are no keys, only callers on this machine are served (`not_local`).",
    404: "There is none, or it is another tenant's, or it has expired.",
    409: "It has ended, so it cannot be cancelled (`batch_ended`), or the Idempotency-Key belongs "
    "to another one.",
    413: "The file is larger than FLEET_MAX_FILE_BYTES.",
    415: "The body has another content type.",
    429: "There are as many under way as may be; Retry-After says when to come back.",
    500: "A defect of ours.",
    503: "Redis (`relay_unavailable`) or the storage of files (`storage_unavailable`) is away.",
}


class FileDeleted(BaseModel):
    """What was deleted."""

    id: str
    object: Literal["file"]
    deleted: Literal[True] = True


class _Named(Protocol):
    @property
    def id(self) -> str: ...


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may refuse with these; 401, 403 and 500 are among them."""
    return {
        status: {"model": OpenAIErrorResponse, "description": _DESCRIPTIONS[status]}
        for status in sorted({*statuses, 401, 403, 500})
    }


def listing(kind: type[BaseModel], data: Sequence[_Named], *, has_more: bool) -> Response:
    """A page; clients go on after its `last_id` while `has_more`."""
    page = kind(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=has_more,
    )
    return Response(page.model_dump_json(), media_type="application/json")


class Download(Response):
    """A file's bytes as they are read; ends when its caller leaves, or when the process stops.

    Then it is shorter than its Content-Length, by which every client knows to fetch it again.
    """

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], file: StoredFile, open_calls: OpenCalls
    ) -> None:
        """Nothing is read before `begin`; `hangup` is the process's."""
        self._pieces = pieces
        self._open_calls = open_calls
        self._first: bytes | None = None
        self.status_code = 200
        self.media_type = "application/octet-stream"
        self.background = None
        self.init_headers(
            {
                "Content-Length": str(file.size_bytes),
                "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.filename)}",
                "Cache-Control": "no-store",
            }
        )

    async def begin(self) -> None:
        """Read the first piece, so that what is missing is an error and no torn answer.

        Raises UnknownFile, StorageUnavailable.
        """
        self._first = await anext(self._pieces, None)

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        await self._open_calls.attend(self._send(send), receive)

    async def _send(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            piece = self._first
            while piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await anext(pieces, None)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
