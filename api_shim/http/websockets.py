"""How a WebSocket ends: with a code and words, unless its other side was faster."""

from contextlib import suppress
from typing import Final

from fastapi import WebSocket, WebSocketDisconnect

from api_shim.http.problems import Refusal, status_of
from contract.errors import FleetError

_PRIVATE_CLOSE: Final = 4000
"""A WebSocket closes with this plus the HTTP status that the problem would have had."""


async def refuse(socket: WebSocket, error: FleetError | Refusal) -> None:
    """Close an accepted socket with what would have been a problem document."""
    if isinstance(error, Refusal):
        status, words = error.status_code, error.detail
    else:
        status, words = status_of(type(error)), error.message
    await close(socket, _PRIVATE_CLOSE + status, f"{error.code}: {words}")


async def close(socket: WebSocket, code: int, reason: str) -> None:
    """Close, unless the other side or the server was faster; a reason has up to 123 bytes."""
    with suppress(RuntimeError, WebSocketDisconnect):
        await socket.close(code, reason.encode()[:120].decode(errors="ignore"))
