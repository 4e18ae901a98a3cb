"""Closing a WebSocket with a code and a reason."""

from contextlib import suppress
from typing import Final

from fastapi import WebSocket, WebSocketDisconnect

from api_shim.http.problems import Refusal, status_of
from contract.errors import FleetError

_PRIVATE_CLOSE: Final = 4000
"""Added to the problem's HTTP status, it is the close code."""


async def refuse(socket: WebSocket, error: FleetError | Refusal) -> None:
    """Close an accepted WebSocket with the code and message of a problem."""
    if isinstance(error, Refusal):
        status, words = error.status_code, error.detail
    else:
        status, words = status_of(type(error)), error.message
    await close(socket, _PRIVATE_CLOSE + status, f"{error.code}: {words}")


async def close(socket: WebSocket, code: int, reason: str) -> None:
    """Close, unless it is closed already; the reason is cut at 120 bytes (RFC 6455 allows 123)."""
    with suppress(RuntimeError, WebSocketDisconnect):
        await socket.close(code, reason.encode()[:120].decode(errors="ignore"))
