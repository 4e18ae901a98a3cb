"""The layer around every route, of today and tomorrow: no call passes without being let in.

It stands before the body is read, and puts the caller's key into the scope's state, from where
`auth.Caller` takes it; a route that this layer had not seen would have none, and break.
"""

import asyncio
from typing import Any, Final

from fastapi import WebSocket
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_shim.http.authentication import Authenticator, Ended, subprotocols
from api_shim.http.problems import Refusal, response_to
from api_shim.http.websockets import refuse
from contract.errors import FleetError, NotAuthenticated, RelayUnavailable
from relay.api_keys import ApiKeyEntry

OPEN_PATHS: Final = frozenset(
    {"/", "/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json"}
)
"""What probes and people ask for before they have a key; nothing there tells of jobs."""
_OPEN_FOLDER: Final = "/static-offline-docs/"


class AuthMiddleware:
    """Asks the door about every call."""

    def __init__(self, app: ASGIApp) -> None:
        """Guard this application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on if it may come in; else say why not."""
        path = scope.get("path", "")
        is_open = path in OPEN_PATHS or path.startswith(_OPEN_FOLDER)
        if scope["type"] not in {"http", "websocket"} or is_open:
            await self._app(scope, receive, send)
            return
        authenticator = scope["app"].state.authenticator
        connection = HTTPConnection(scope)
        send_with_subprotocol = _with_subprotocol(connection, send)
        try:
            entry = await _admitted(connection, authenticator)
        except (FleetError, Refusal) as error:
            await _reject(error, scope, receive, send_with_subprotocol)
            return
        scope.setdefault("state", {})["key"] = entry
        with authenticator.call(entry) as ended:
            call = _Call(scope, receive, send_with_subprotocol, ended)
            await self._app(scope, call.receive, call.send)
            await call.finish()


async def _admitted(connection: HTTPConnection, authenticator: Authenticator) -> ApiKeyEntry | None:
    """The caller's key. Raises NotAuthenticated, NotAllowed, RelayUnavailable, Refusal.

    A handshake that waits for Redis when the process stops would be ended by the server, with 500.
    """
    if connection.scope["type"] == "http":
        return await authenticator.admit(connection)
    found: list[ApiKeyEntry | None] = []

    async def admit() -> None:
        found.append(await authenticator.admit(connection))

    if not await connection.app.state.complete(admit()):
        raise RelayUnavailable("the shim restarts: come back with your cursor", retry_after_s=1)
    return found[0]


class _Call:
    """A call that ends early when its key is revoked."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, ended: Ended) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._ended = ended
        self._has_asked = False
        """Whether all of the request has come, so that what follows is only its end."""
        self._is_open = False
        """Whether an answer has begun and not ended."""

    async def receive(self) -> Message:
        """What the caller says; that it has left, once its key is revoked."""
        if not self._has_asked:
            message = await self._receive()
            self._has_asked = not message.get("more_body", False)
            return message
        hearing = asyncio.ensure_future(self._receive())
        either: set[asyncio.Future[Any]] = {hearing, self._ended}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                return hearing.result()
            return {"type": f"{self._scope['type']}.disconnect", "code": 1008}
        finally:
            if not hearing.done():
                hearing.cancel()
                await asyncio.wait({hearing})

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        kind = message["type"]
        if kind in {"http.response.start", "websocket.accept"}:
            self._is_open = True
        elif kind == "websocket.close":
            self._is_open = False
        elif kind == "http.response.body":
            self._is_open = message.get("more_body", False)
        await self._send(message)

    async def finish(self) -> None:
        """End what the application has left open because the key was revoked."""
        if not self._ended.done() or not self._is_open:
            return
        if self._scope["type"] == "http":
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        revoked = NotAuthenticated("the key was revoked or has expired")
        reason = f"{revoked.code}: {revoked.message}"
        await self._send({"type": "websocket.close", "code": 4401, "reason": reason})


def _with_subprotocol(connection: HTTPConnection, send: Send) -> Send:
    """Agree to the first subprotocol that a WebSocket offers and that is no key.

    A browser that has offered some hangs up unless one is chosen.
    """
    offered, keys = subprotocols(connection)
    if not (offered and keys):
        return send

    async def agreeing(message: Message) -> None:
        if message["type"] == "websocket.accept" and not message.get("subprotocol"):
            message = {**message, "subprotocol": offered[0]}
        await send(message)

    return agreeing


async def _reject(error: FleetError | Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await response_to(error, scope)(scope, receive, send)
        return
    socket = WebSocket(scope, receive, send)
    # Accepted first: a refused handshake cannot carry a close code.
    await socket.accept()
    await refuse(socket, error)
