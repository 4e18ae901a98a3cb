"""Request bodies: bounded while they arrive, JSON only, parsed strictly.

The bound is an ASGI middleware, so it holds for every route and for bodies without a
Content-Length. The parser is pydantic's: Python's own accepts NaN and lone surrogates, which no
other process could encode again. Large bodies are counted, parsed and validated in a thread, one at
a time, so that none of them delays other requests.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, Final, NamedTuple, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

from api_shim.bodies.large_json import parse_large
from api_shim.http.problems import Refusal, error_response
from contract.errors import PayloadTooLarge
from contract.json_texts.json_scan import (
    LARGE_BYTES,
    ONE_REQUEST,
    JsonBounds,
    TooMuch,
    demand_bounds,
)
from relay.admission.byte_budget import ByteBudget

_MEBIBYTE: Final = 2**20
_WAIT_S: Final = 10.0
"""For room for a large body; then it is refused."""
_RETRY_AFTER_S: Final = 2.0
_LOOK_EVERY_S: Final = 2.0
_LONGEST_S: Final = 60.0
"""For a whole body at the rate at which it comes, while others wait for room."""


class Limit(NamedTuple):
    """How large a body may be."""

    max_bytes: int
    setting: str
    """The setting that raises it."""

    def refusal(self) -> Refusal:
        """The error for a larger body."""
        return Refusal(
            PayloadTooLarge,
            f"The body may have at most {self.max_bytes} bytes "
            f"({self.max_bytes / _MEBIBYTE:.1f} MiB): send less, or raise {self.setting}.",
        )


class BodyLimit:
    """Refuses a body over the limit with a 413, before it is read if it has a Content-Length.

    A large one waits until the process has room for it (`BodyRoom`).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        budget_bytes: int,
        by_path: Mapping[str, Limit] | None = None,
    ) -> None:
        """Wrap this application.

        `budget_bytes` of large bodies are held at once. `by_path` has paths with a limit of their
        own, whose bodies are not held.
        """
        self._app = app
        self._usual = Limit(max_bytes, "FLEET_MAX_BODY_BYTES")
        self._by_path = by_path or {}
        self._room = BodyRoom(budget_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request, counting the bytes of its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._by_path.get(scope["path"], self._usual)
        announced = Headers(scope=scope).get("content-length", "")
        size_bytes = int(announced) if announced.isdecimal() else limit.max_bytes
        if announced and size_bytes > limit.max_bytes:
            # No `Connection: close`: the server drops the rest of the body unread, so a client
            # that reads only after it has sent everything still gets the response.
            await error_response(limit.refusal(), scope)(scope, receive, send)
            return
        room = self._room if limit is self._usual else None
        body = _CountedBody(receive, limit, room, size_bytes, _holder(scope))
        try:
            await self._app(scope, body.receive, send)
        finally:
            body.let_go()


def _holder(scope: Scope) -> str:
    entry = scope.get("state", {}).get("key")
    return "" if entry is None else str(entry.facts.tenant)


class BodyRoom:
    """Room for the large bodies that a process reads at once: others wait for it.

    While one waits, a body that comes slowly loses its room: four that announce 32 MiB and send
    little would keep the large bodies of all others out for hours.
    """

    def __init__(self, most_bytes: int) -> None:
        """All of it is free; of one tenant half at most."""
        self._budget = ByteBudget(most_bytes, _WAIT_S)
        self._coming: set[_CountedBody] = set()
        """Those that have room, and have not come to their end."""

    async def take(self, body: "_CountedBody") -> None:
        """Wait for room for a body; `give_back` must follow. Raises TimeoutError."""
        looking = asyncio.create_task(self._end_slow_ones(body))
        try:
            await self._budget.take(body.size_bytes, body.holder)
        finally:
            looking.cancel()
        self._coming.add(body)

    def has_come(self, body: "_CountedBody") -> None:
        """A body is whole: how long its request takes now is no fault of its client."""
        self._coming.discard(body)

    def give_back(self, body: "_CountedBody") -> None:
        """Return the room of a body."""
        self._coming.discard(body)
        self._budget.give_back(body.size_bytes, body.holder)

    async def _end_slow_ones(self, waiting: "_CountedBody") -> None:
        """Take as much room as a body waits for from the slowest ones, if that gives it room.

        What counts is what has come since the last look: a body that was fast at first may stop.
        """
        while True:
            before = {each: each.taken_bytes for each in self._coming}
            await asyncio.sleep(_LOOK_EVERY_S)
            wanted_bytes = waiting.size_bytes
            for part, body in sorted(self._came(before), key=lambda pair: pair[0]):
                if wanted_bytes <= 0 or part * _LONGEST_S >= _LOOK_EVERY_S:
                    break
                if self._budget.has_share(wanted_bytes, waiting.holder) or (
                    body.holder == waiting.holder
                ):
                    body.lose_room()
                    wanted_bytes -= body.size_bytes

    def _came(self, before: "Mapping[_CountedBody, int]") -> "list[tuple[float, _CountedBody]]":
        """Which part of each body has come since then."""
        return [
            ((body.taken_bytes - taken_bytes) / body.size_bytes, body)
            for body, taken_bytes in before.items()
            if body in self._coming
        ]


class _CountedBody:
    """The `receive` of a call: bounds its body, and holds room for it if it is large."""

    def __init__(
        self, receive: Receive, limit: Limit, room: BodyRoom | None, size_bytes: int, holder: str
    ) -> None:
        self.size_bytes = size_bytes
        self.holder = holder
        self._receive = receive
        self._limit = limit
        self._room = room
        self.taken_bytes = 0
        self._is_held = False
        self._is_too_slow = False
        self._is_whole = False

    async def receive(self) -> Message:
        """The next message; raises Refusal."""
        if self._is_whole:
            # Who waits for the client's disconnect has made of the body what it is for.
            self.let_go()
        message = await self._receive()
        if message["type"] == "http.request":
            self._take(message)
            if self.taken_bytes > LARGE_BYTES and self._room is not None and not self._is_held:
                await self._hold(self._room)
        return message

    def _take(self, message: Message) -> None:
        self.taken_bytes += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self.taken_bytes > self._limit.max_bytes:
            raise self._limit.refusal()
        if self._is_too_slow:
            raise _too_slow()
        if self._is_whole and self._room is not None:
            self._room.has_come(self)

    async def _hold(self, room: BodyRoom) -> None:
        try:
            await room.take(self)
        except TimeoutError:
            raise Refusal(
                "too_many_bodies",
                f"This shim reads so many large bodies that there was no room for this one within "
                f"{_WAIT_S:g} s: retry, send them one after the other, or raise "
                "FLEET_MAX_BODIES_BYTES.",
                status=503,
                retryable=True,
                retry_after_s=_RETRY_AFTER_S,
            ) from None
        self._is_held = True
        if self._is_whole:
            room.has_come(self)

    def lose_room(self) -> None:
        """Return the room, and refuse the body at its next bytes."""
        self._is_too_slow = True
        self.let_go()

    def let_go(self) -> None:
        """Return the room."""
        if self._is_held and self._room is not None:
            self._room.give_back(self)
            self._room = None


def _too_slow() -> Refusal:
    return Refusal(
        "body_too_slow",
        "Others wait for room for large bodies, and this one came at a rate at which it takes more "
        f"than {_LONGEST_S:g} s: send it faster, in smaller requests, or with its Content-Length; "
        "or raise FLEET_MAX_BODIES_BYTES.",
        status=408,
        retryable=True,
        retry_after_s=_RETRY_AFTER_S,
    )


Read = TypeVar("Read")
HAS_LARGE_BODY: Final = "has_large_body"
"""True in the state of a call whose body was read in a thread."""
_LARGE: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="large-bodies")
"""One at a time: together they would need as much memory as there are threads."""


async def read_body(held: list[bytes], read: Callable[[list[bytes]], Read]) -> Read:
    """What `read` makes of the body in a list, in a thread if the body is large.

    Only the list holds the body, so that `read` can drop it before it is done.
    """
    if len(held[0]) <= LARGE_BYTES:
        return read(held)
    return await asyncio.get_running_loop().run_in_executor(_LARGE, read, held)


async def made_of_large(make: Callable[[], Read]) -> Read:
    """What is made of what a large body held, in the thread in which it was read."""
    return await asyncio.get_running_loop().run_in_executor(_LARGE, make)


def let_go(body: BaseModel, *fields: str) -> None:
    """Empty these fields of a body, which FastAPI holds until its response is there.

    A call that waits for its job would hold what it has sent, and hundreds may wait.
    """
    for name in fields:
        if name in body.__dict__:
            body.__dict__[name] = None


async def take_body(request: Request) -> list[bytes]:
    """The body in a list; the request does not keep it."""
    held = [await request.body()]
    request._body = b""  # noqa: SLF001 - where Starlette keeps what it has read
    return held


def parse_json(data: bytes) -> Any:
    """The value of a small body; raises Refusal if it is no JSON."""
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise invalid_json(error) from None


def parse_held(held: list[bytes], bounds: JsonBounds = ONE_REQUEST) -> Any:
    """The value of the body in a list, which is emptied.

    Raises Refusal if it is no JSON, or holds more than `bounds`.
    """
    try:
        demand_bounds(held[0], bounds)
        return parse_large(held)
    except TooMuch as error:
        raise too_much(error) from None
    except ValueError as error:
        raise invalid_json(error) from None


def validate_json(value: Any, route: APIRoute) -> Any:
    """The validated body of a route; raises RequestValidationError."""
    assert route.body_field is not None  # noqa: S101 - for the type checker
    body, errors = route.body_field.validate(value, {}, loc=("body",))
    if errors:
        raise RequestValidationError(errors, body=value)
    return body


def too_much(error: TooMuch) -> Refusal:
    """The error for a body that holds too many values."""
    return Refusal(PayloadTooLarge, f"The body is too large, {error}: {error.remedy}.")


class _StrictRequest(Request):
    """A request whose JSON body is parsed strictly."""

    _value: Any = None

    @override
    async def body(self) -> bytes:
        """The body. Its pieces are dropped as they come, so that no memory is left between them."""
        if not hasattr(self, "_body"):
            with BytesIO() as whole:
                async for piece in self.stream():
                    whole.write(piece)
                self._body = whole.getvalue()
        return self._body

    @override
    async def json(self) -> Any:
        """The parsed body, or the validated one of a large request; raises Refusal."""
        return parse_json(await self.body()) if self._value is None else self._value

    async def validate_if_large(self, route: APIRoute) -> None:
        """Validate a large body in a thread, and drop its bytes.

        Raises Refusal, RequestValidationError.
        """
        if len(await self.body()) > LARGE_BYTES:
            held, self._body = [self._body], b"{}"
            self.scope.setdefault("state", {})[HAS_LARGE_BODY] = True
            self._value = await read_body(held, lambda held: validate_json(parse_held(held), route))


def invalid_json(error: ValueError) -> Refusal:
    """The error for a body that is not valid JSON.

    It names a position and what was expected there, never the body's text.
    """
    return Refusal("invalid_json", f"The body is not valid JSON in UTF-8: {error}.", status=400)


class JsonRoute(APIRoute):
    """A route that requires `Content-Type: application/json`.

    This also keeps web pages of other origins from using a shim on their visitor's machine: a
    browser does not send this content type to another origin without a preflight request.
    """

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler that FastAPI makes."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            strict_request = _StrictRequest(request.scope, request.receive)
            if self.body_field is not None and await strict_request.body():
                require_json(strict_request.headers)
                await strict_request.validate_if_large(self)
            return await handler(strict_request)

        return strict


def require_json(headers: Headers) -> None:
    """Raise Refusal unless the body is uncompressed JSON."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refusal(
            "unsupported_media_type",
            f"The Content-Type is {media_type[:80] or 'missing'}: "
            "send the body as application/json.",
            status=415,
        )
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise Refusal(
            "unsupported_media_type",
            f"The body is compressed ({encoding[:40]}): send it without Content-Encoding.",
            status=415,
        )
