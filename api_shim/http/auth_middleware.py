"""The middleware that authenticates every call, before its body is read.

It stores the client's key in the scope's state, where `authentication.Caller` reads it. A route
outside this middleware has no key there and fails.
"""

import asyncio
from typing import Any, Final

from fastapi import WebSocket
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_shim.http.authentication import (
    REVOKED,
    Authenticator,
    CallEnded,
    last_words,
    revoked,
    subprotocols,
)
from api_shim.http.origins import Origins
from api_shim.http.problems import Refusal, error_response
from api_shim.http.websockets import refuse
from contract.errors import FleetError, NotAuthenticated, RelayUnavailable
from relay.api_keys import ApiKeyEntry
from relay.connection import soon

OPEN_PATHS: Final = frozenset(
    {"/", "/healthz", "/livez", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json"}
)
"""Paths that need no key: probes and documentation, none of which shows jobs."""
METRICS_PATHS: Final = frozenset({"/metrics", "/metrics/targets"})
"""The only paths that FLEET_METRICS_KEY opens."""
_SCRAPED: Final = METRICS_PATHS | {"/api/v1/scale"}
"""Paths that programs ask every few seconds, which do not wait long for Redis."""
_EVENTS: Final = frozenset({b"text/event-stream", b"application/x-ndjson"})
"""Types of bodies that are whole only with their last event."""
_OPEN_FOLDERS: Final = ("/static-offline-docs/", "/page/")
"""Static files, which show nothing of this fleet."""


class AuthMiddleware:
    """Authenticates every call."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        """Wrap this application; browsers may call it from pages of these origins."""
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the call if it is authenticated; else send the reason."""
        path = scope.get("path", "")
        is_open = path in OPEN_PATHS or path.startswith(_OPEN_FOLDERS)
        if scope["type"] not in {"http", "websocket"} or is_open:
            await self._app(scope, receive, send)
            return
        authenticator = scope["app"].state.authenticator
        connection = HTTPConnection(scope)
        if path in METRICS_PATHS and authenticator.may_read_metrics(connection):
            scope.setdefault("state", {})["key"] = None
            await self._app(scope, receive, send)
            return
        send_with_subprotocol = _with_subprotocol(connection, send)
        try:
            self._origins.check(connection)
            entry = await _authenticate(connection, authenticator)
        except (FleetError, Refusal) as error:
            await reject(error, scope, receive, send_with_subprotocol)
            return
        scope.setdefault("state", {})["key"] = entry
        with authenticator.track(entry) as ended:
            scope["state"]["key_ended"] = ended
            call = _Call(scope, receive, send_with_subprotocol, ended)
            try:
                await self._app(scope, call.receive, call.send)
            except ClientDisconnect:
                if not ended.done():
                    raise
            await call.finish()


async def _authenticate(
    connection: HTTPConnection, authenticator: Authenticator
) -> ApiKeyEntry | None:
    """The client's key. Raises NotAuthenticated, NotAllowed, RelayUnavailable, Refusal.

    A WebSocket handshake that waits for Redis while the process shuts down would get the server's
    500.
    """
    if connection.scope["type"] == "http":
        if connection.scope["path"] in _SCRAPED:
            async with soon():
                return await authenticator.authenticate(connection)
        return await authenticator.authenticate(connection)
    found: list[ApiKeyEntry | None] = []

    async def admit() -> None:
        found.append(await authenticator.authenticate(connection))

    if not await connection.app.state.complete(admit()):
        raise RelayUnavailable("the shim restarts: reconnect with your cursor", retry_after_s=1)
    return found[0]


class _Call:
    """A call that ends early when its key is revoked: nothing more is read, nothing more is sent.

    If it waited, its response becomes a 401. A stream of events ends, on drop-in surfaces with an
    error; any other body stays without its end, so that no client takes it for whole. A call that
    did neither, and has its response ready, sends that: it tells what was done.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, ended: CallEnded) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._ended = ended
        self._has_request = False
        """Whether the whole request was received; after that only a disconnect can follow."""
        self._begin: Message | None = None
        """The message with which a response has begun, or a WebSocket was accepted."""
        self._is_responding = False
        """Whether a response has begun and not ended."""
        self._is_cut = False
        """Whether the application was told of a disconnect because the key was revoked."""

    async def receive(self) -> Message:
        """The next message of the client; a disconnect once its key is revoked."""
        if not self._has_request and not self._ended.done():
            message = await self._receive()
            if not self._ended.done():
                self._has_request = not message.get("more_body", False)
                return message
            # The rest of an upload that had paused: it would have been whole.
            return self._cut()
        receiving = asyncio.ensure_future(self._receive())
        either: set[asyncio.Future[Any]] = {receiving, self._ended}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            return self._cut()
        finally:
            if not receiving.done():
                receiving.cancel()
                await asyncio.wait({receiving})

    def _cut(self) -> Message:
        self._is_cut = True
        return {"type": f"{self._scope['type']}.disconnect", "code": 1008}

    async def send(self, message: Message) -> None:
        """Send a message of the application, unless its call was cut off."""
        if self._is_cut:
            return
        kind = message["type"]
        if kind in {"http.response.start", "websocket.accept"}:
            self._begin = message
            self._is_responding = True
        elif kind == "websocket.close":
            self._is_responding = False
        elif kind == "http.response.body":
            self._is_responding = message.get("more_body", False)
        await self._send(message)

    async def finish(self) -> None:
        """End the call if it was cut off before its response was complete."""
        if not self._is_cut or (self._begin is not None and not self._is_responding):
            return
        if self._scope["type"] == "websocket":
            await _close_revoked(self._send, is_open=self._begin is not None)
        elif self._begin is None:
            await error_response(revoked(), self._scope)(self._scope, self._receive, self._send)
        elif _has_events(self._begin):
            body = last_words(self._scope)
            await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _has_events(begin: Message) -> bool:
    """Whether a response is a stream of events, whose last one says that it is whole."""
    types = (value for name, value in begin.get("headers", ()) if name.lower() == b"content-type")
    return next(types, b"").partition(b";")[0] in _EVENTS


async def _close_revoked(send: Send, *, is_open: bool) -> None:
    if not is_open:
        await send({"type": "websocket.accept"})
    reason = f"{NotAuthenticated.code}: {REVOKED}"
    await send({"type": "websocket.close", "code": 4401, "reason": reason})


def _with_subprotocol(connection: HTTPConnection, send: Send) -> Send:
    """Accept the first subprotocol that a WebSocket offers and that is no key.

    A browser that has offered some closes the connection unless one is accepted.
    """
    offered, keys = subprotocols(connection)
    if not (offered and keys):
        return send

    async def accepting(message: Message) -> None:
        if message["type"] == "websocket.accept" and not message.get("subprotocol"):
            message = {**message, "subprotocol": offered[0]}
        await send(message)

    return accepting


async def reject(error: FleetError | Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Send an error in place of a call's response, to a WebSocket as its close code."""
    if scope["type"] == "http":
        await error_response(error, scope)(scope, receive, send)
        return
    socket = WebSocket(scope, receive, send)
    # Accepted first: a refused handshake cannot carry a close code.
    await socket.accept()
    await refuse(socket, error)
