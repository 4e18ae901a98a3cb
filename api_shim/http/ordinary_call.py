"""What a direct route reads of a request's head, and of its client: nothing but the ordinary.

`ordinary_head` reads the head in one pass. It returns None for every request with anything special
or wrong in its head, which FastAPI's route then serves or refuses: no error is written twice.
"""

import re
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from api_shim.http.authentication import PROXIED, CallEnded, revoked
from api_shim.http.headers import BACKEND_NAME, SESSION, Preferences
from api_shim.http.listening import is_loopback
from contract.conversations import LONGEST_KEY, key_of

_SPECIAL: Final = frozenset(
    {
        b"idempotency-key", b"x-fleet-priority", b"x-fleet-on-disconnect", b"x-fleet-on-no-worker",
        b"x-fleet-not-before", b"content-encoding", b"origin", b"x-fleet-conversation-policy",
        b"sec-fetch-site", b"x-fleet-busy-wait", b"x-fleet-webhook", b"x-fleet-retention",
    }
)  # fmt: skip
_SESSION: Final = SESSION.encode()
_PROXIED: Final = frozenset(name.encode() for name in PROXIED)
_BACKEND: Final = re.compile(BACKEND_NAME)
_LOCAL_HOST: Final = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")
_BEARER: Final = b"Bearer "
_PORT: Final = re.compile(r":[0-9]{1,5}$")


class OrdinaryHead(NamedTuple):
    """The head of a request that a direct route serves."""

    preferences: Preferences
    key: str | None
    """The API key that the client sent."""
    host: str
    """The name that it called, without the port."""
    is_local: bool
    """Whether the client is a program on this machine, with no proxy between."""


def ordinary_head(scope: Scope, max_bytes: int, query: bytes = b"") -> OrdinaryHead | None:
    """The head of a POST with a JSON body of at most `max_bytes`; None if anything is special.

    `query` is the one that changes nothing, besides none.
    """
    headers: dict[bytes, bytes] = dict(scope["headers"])
    if (
        scope["method"] != "POST"
        or scope["query_string"] not in {b"", query}
        or len(headers) != len(scope["headers"])
        or headers.get(b"content-type") != b"application/json"
        or not _SPECIAL.isdisjoint(headers)
        or not _is_bounded(headers.get(b"content-length", b""), max_bytes)
    ):
        return None
    backend = headers.get(b"x-fleet-backend")
    name = None if backend is None else backend.decode("latin-1")
    if name is not None and not _BACKEND.match(name):
        return None
    conversation = headers.get(b"x-fleet-conversation")
    if conversation is not None and not 0 < len(conversation) <= LONGEST_KEY:
        return None
    session = headers.get(_SESSION)
    key = _key(headers)
    if key == "":
        return None
    spoken = _text(conversation) if conversation is not None else key_of(_text(session))
    preferences = Preferences(backend=name, conversation=spoken)
    host = _PORT.sub("", headers.get(b"host", b"").decode("latin-1")).lower()
    return OrdinaryHead(preferences, key, host, _is_local(scope, headers))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _is_bounded(announced: bytes, max_bytes: int) -> bool:
    return announced.isdigit() and 0 < int(announced) <= max_bytes


def _key(headers: dict[bytes, bytes]) -> str | None:
    """The client's key; empty if it is not sent in one of the two usual ways."""
    bearer, key = headers.get(b"authorization"), headers.get(b"x-api-key")
    if bearer is None:
        return None if key is None else key.decode("latin-1").strip()
    if key is not None or not bearer.startswith(_BEARER):
        return ""
    return bearer[len(_BEARER) :].decode("latin-1").strip()


def _is_local(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """As `authentication.is_local`; False also for unusual names of this machine."""
    client = scope["client"]
    return (
        client is not None
        and is_loopback(client[0])
        and _LOCAL_HOST.fullmatch(headers.get(b"host", b"")) is not None
        and _PROXIED.isdisjoint(headers)
    )


class OrdinaryClient:
    """The `receive` of a direct call: what the client sends, and when it has left.

    A client whose key is revoked counts as one that has left.
    """

    def __init__(self, receive: Receive, key_ended: CallEnded) -> None:
        """`receive` is the server's, for a call whose key is valid until `key_ended` is done."""
        self._receive = receive
        self._key_ended = key_ended

    async def __call__(self) -> Message:
        """The next message of the client."""
        return await self._receive()

    @property
    def is_revoked(self) -> bool:
        """Whether its key is no longer valid."""
        return self._key_ended.done()

    async def body(self) -> bytes:
        """The whole body; raises ClientDisconnect if the client leaves before its end.

        Raises NotAuthenticated if its key was revoked meanwhile.
        """
        pieces: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            pieces.append(message.get("body", b""))
            if not message.get("more_body"):
                if self.is_revoked:
                    raise revoked()
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def watch(self, on_disconnect: Callable[[], None]) -> Callable[[], None]:
        """Call `on_disconnect` once, when the client has left; returns what ends the watch.

        The server's `receive` is stepped by callbacks: a task costs twice as much.
        """
        watch = _Watch(self._receive, on_disconnect)
        self._key_ended.add_done_callback(watch.end)
        return watch.close


class _Watch:
    """Waits for the client's disconnect without a task."""

    def __init__(self, receive: Receive, on_disconnect: Callable[[], None]) -> None:
        self._receive = receive
        self._on_disconnect = on_disconnect
        self._receiving: Coroutine[Any, Any, Message] | None = receive()  # type: ignore[assignment]
        self._step()

    def _step(self, _: object = None) -> None:
        """Run `receive` up to its next wait; its wait continues here."""
        while (receiving := self._receiving) is not None:
            try:
                waits_for = receiving.send(None)
            except StopIteration as received:
                if received.value["type"] == "http.disconnect":
                    self.end()
                else:
                    self._receiving = self._receive()  # type: ignore[assignment]
                continue
            # What asyncio's tasks do with the future that a coroutine yields.
            waits_for._asyncio_future_blocking = False  # noqa: SLF001
            waits_for.add_done_callback(self._step)
            return

    def end(self, _: object = None) -> None:
        if self._receiving is not None:
            self.close()
            self._on_disconnect()

    def close(self) -> None:
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            receiving.close()
