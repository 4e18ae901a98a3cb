"""One call of a drop-in surface (OpenAI, Ollama): its job submitted, followed and rendered.

A surface is a view of jobs. It translates its request into the contract's, submits it through a
`DropInCall` and translates the result; it runs nothing itself. The rules are the same everywhere:

- A client that disconnects ends the job, because it cannot resume the stream, unless the request
  has another policy (`X-Fleet-On-Disconnect`).
- The head of a stream waits for the job's first output, so that an earlier failure is a status
  code; but no longer than about `keepalive_s`: then 200 and keep-alives are sent, and a failure is
  an event of the stream.
- Text that was sent cannot be taken back: an attempt that starts over ends a stream that has sent
  some. An attempt that continues the last one is not visible to the client.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from typing import Final, NamedTuple, Protocol

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api_shim.following.event_stream import GOODBYE_S, say
from api_shim.following.queue_position import Pages
from api_shim.following.shutdown import CallEnding, OpenCalls
from api_shim.http.problems import Problem, Refusal, problem_of, status_of
from api_shim.submission.ignored_fields import HEADER, Lenient, header_value, ignored
from api_shim.submission.roster_cache import RosterCache, pools
from api_shim.submission.submission import Submission
from contract.errors import (
    AuthenticationRefused,
    BackendBusy,
    BackendError,
    BackendRejected,
    BackendStalled,
    ContextExceeded,
    DeadlineExceeded,
    DiskFull,
    FleetError,
    InputTooLarge,
    ModelLoading,
    ModelMissing,
    NotSupported,
    QuotaExhausted,
    Refused,
    WorkerLost,
)
from contract.events import Cancelled, Event, Failed, Frame
from contract.features import features_of
from contract.jobs import AnyRequest, JobRecord
from contract.result import Fold, Result
from relay.followers import Followers
from relay.log import Log

_STATUS: Final[Mapping[type[FleetError], int]] = {
    ModelMissing: 404,
    ContextExceeded: 400,
    InputTooLarge: 400,
    NotSupported: 400,
    BackendRejected: 400,
    Refused: 400,
    QuotaExhausted: 429,
    BackendBusy: 503,
    ModelLoading: 503,
    BackendStalled: 504,
    DiskFull: 507,
    AuthenticationRefused: 502,
    BackendError: 502,
    DeadlineExceeded: 504,
    WorkerLost: 503,
}
"""HTTP status of each end; a class that is not here has its parent's, at last
api_shim/http/problems.py's."""

ANSWER_RESTARTED: Final = "answer_restarted"
"""The code of a stream that ends because its words were taken back."""
TAKES_BACK: Final = frozenset({"reset", "log_reset"})
"""Types of events after which what was told is not true any more."""
ENDS_BADLY: Final = frozenset({"failed", "cancelled"}) | TAKES_BACK
"""Types of events after which a stream of words has nothing more to tell."""


def _classes(root: type[FleetError]) -> Iterator[type[FleetError]]:
    yield root
    for child in root.__subclasses__():
        yield from _classes(child)


_CLASSES: Final = {each.code: each for each in _classes(FleetError)}


def ended(frame: Frame, headers: Mapping[str, str] | None = None) -> Refusal:
    """What the caller is told of this frame, one of `ENDS_BADLY`."""
    return refusal_of(frame.event, headers)


def refusal_of(event: Event, headers: Mapping[str, str] | None = None) -> Refusal:
    """What the caller is told of a job's bad end, or of words that were taken back."""
    match event:
        case Failed(code=code, message=message):
            status = _status(code)
            # Not `retryable`: whatever could be tried again was, as often as the job may be, and
            # a client that tries on its own would multiply the two.
            return Refusal(code, message, status=status, headers=headers)
        case Cancelled(by=by, reason=reason):
            why = f": {reason}" if reason else ""
            detail = f"The job was cancelled by {by}{why}."
            return Refusal("cancelled", detail, status=409, headers=headers)
        case _:
            return Refusal(
                ANSWER_RESTARTED,
                "The attempt broke off and another one began anew, but what was streamed cannot "
                "be taken back: ask again, or follow the job at /api/v1/jobs/<X-Fleet-Job>/events, "
                "which tells the new answer.",
                status=503,
                headers=headers,
                retryable=True,
            )


def _status(code: str) -> int:
    kind = _CLASSES.get(code, FleetError)
    found = next((_STATUS[parent] for parent in kind.__mro__ if parent in _STATUS), None)
    return found or status_of(kind)


Parted = Callable[[list[Frame]], tuple[Sequence[Frame], Frame | None]]
"""Parts events of the log into what can be told, and the one that ends the stream."""

_NO_GRACE_S: Final = 0.0
"""A drop-in client has no cursor: one that hung up does not come back."""


class StreamRenderer(Protocol):
    """One answer as a stream in a surface's words; made for one call, and knows what it has told.

    This is the chunk path: `tell` parses a frame with `from_json(frame.body)` and writes bytes.
    """

    @property
    def media_type(self) -> str:
        """What the stream says that it is."""
        ...

    @property
    def keep_alive(self) -> bytes:
        """What is said after silence; empty where the format has nothing that says nothing."""
        ...

    def tell(self, frames: Sequence[Frame]) -> bytes:
        """These events of the log; empty if they say nothing here.

        The job's `done` is among them, and ends the stream; of `ENDS_BADLY` only those of
        `TAKES_BACK` are, first, where nothing was told: forget what is kept for later.
        """
        ...

    def fail(self, problem: Problem) -> bytes:
        """What ends a stream that has begun and cannot go on."""
        ...


class FollowingServices(NamedTuple):
    """What following needs of the process; built once, in `api_shim.dependencies`."""

    log: Log
    roster: RosterCache
    followers: Followers
    open_calls: OpenCalls
    keepalive_s: float
    """Seconds of silence after which a stream sends a keep-alive."""


class DropInCall:
    """One call of a drop-in surface."""

    def __init__(
        self, request: Request, services: FollowingServices, submission: Submission
    ) -> None:
        """Nothing submitted yet."""
        self._request = request
        self._services = services
        self._submission = submission
        self._left_out: list[str] = []

    @property
    def headers(self) -> Mapping[str, str]:
        """What the answer's head must say, once the job is taken in: X-Fleet-Job above all."""
        return self._submission.headers

    def leave_out(self, names: Iterable[str]) -> None:
        """Name fields of the request that nothing is done with, in the answer's head."""
        self._left_out += names
        if self._left_out:
            self._submission.headers[HEADER] = header_value(self._left_out)

    async def submit(self, request: AnyRequest, body: Lenient | None = None) -> JobRecord:
        """The job of the request; it ends with its caller unless the request or a header differs.

        `body` is what the client sent: fields of it that were not understood are named in the
        response's X-Fleet-Ignored. Raises what `Submission.accept` raises.
        """
        if "on_disconnect" not in request.model_fields_set:
            request = request.model_copy(update={"on_disconnect": "cancel"})
        if body is not None:
            self.leave_out(ignored(body))
        record, _ = await self._submission.accept(request)
        self.leave_out(await self._ungranted(request, record.backend))
        return record

    async def _ungranted(self, request: AnyRequest, backend: str) -> tuple[str, ...]:
        """Features that the chosen backend lacks; a stream's head is sent before it says so."""
        wanted = features_of(request)
        if not wanted:
            return ()
        pool = pools(await self._services.roster.recent()).get(backend)
        granted = None if pool is None else pool.grants
        return () if granted is None else tuple(each for each in wanted if each not in granted)

    async def whole(
        self, record: JobRecord, on_event: Callable[[Frame], object] | None = None
    ) -> Result:
        """The result when the job is done; `on_event` is called with every event of the log.

        Raises Refusal for any other end (its status as `refusal_of` has it; 408 `caller_left`, 503
        `shim_stopping`), and FleetError.
        """
        answer = Fold()

        def add(frame: Frame) -> None:
            answer.add(frame.event)
            if on_event is not None:
                on_event(frame)

        follower = self._services.followers.follow(record, grace_s=_NO_GRACE_S)
        async with follower:
            reading = _read(self._pages(record), add)
            ending = await self._services.open_calls.attend(reading, self._request.receive)
        if ending is CallEnding.STOPPING:
            raise _stopping(self.headers)
        if ending is CallEnding.GONE:
            # No client reads this response; the access log records it.
            raise Refusal("caller_left", "The caller hung up.", status=408, headers=self.headers)
        result = answer.result
        end = result.error or result.cancelled
        if end is not None:
            raise refusal_of(end, self.headers)
        self.leave_out(result.ignored)
        return result

    def stream(
        self, record: JobRecord, rendering: StreamRenderer, parted: Parted | None = None
    ) -> Response:
        """The answer as it comes; `parted` is for a surface that tells some bad ends itself."""
        return AnswerStream(
            self._pages(record),
            rendering,
            self._services.open_calls,
            self._services.followers.follow(record, grace_s=_NO_GRACE_S),
            headers=self.headers,
            patience_s=self._services.keepalive_s,
            parted=parted,
        )

    def _pages(self, record: JobRecord) -> Pages:
        return self._services.log.follow(record.id, idle_s=self._services.keepalive_s)


async def _read(pages: Pages, on_event: Callable[[Frame], object]) -> None:
    async with aclosing(pages):
        async for frames in pages:
            for frame in frames:
                on_event(frame)


def _stopping(headers: Mapping[str, str]) -> Refusal:
    return Refusal(
        "shim_stopping",
        "This shim stops; the job goes on for a while: ask another shim with the same "
        "Idempotency-Key, or follow the job at /api/v1/jobs/<X-Fleet-Job>/events.",
        status=503,
        headers=headers,
        retryable=True,
    )


class AnswerStream(Response):
    """A job's answer as a stream; plain ASGI, as `stream.EventStreamResponse` is."""

    def __init__(
        self,
        pages: Pages,
        rendering: StreamRenderer,
        open_calls: OpenCalls,
        follower: AbstractAsyncContextManager[object],
        *,
        headers: Mapping[str, str],
        patience_s: float,
        parted: Parted | None = None,
    ) -> None:
        """Tell these pages; the head waits for the first words for `patience_s`."""
        self._pages = pages
        self._rendering = rendering
        self._open_calls = open_calls
        self._follower = follower
        self._patience_s = patience_s
        self._parted = parted or self._told_and_end
        self._is_open = False
        self._has_told = False
        self._refusal_headers = headers
        self.status_code = 200
        self.media_type = rendering.media_type
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers})

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; raises Refusal or FleetError if it fails before its head is out."""
        async with self._follower:
            ending = await self._open_calls.attend(self._talk(scope, send), receive)
            if ending is CallEnding.GONE:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    if ending is CallEnding.STOPPING:
                        await self._fail(_stopping(self._refusal_headers), scope, send)
                    await self._say(send, b"")
                    await say(send, b"", more=False)

    async def _talk(self, scope: Scope, send: Send) -> None:
        try:
            async with aclosing(self._pages) as pages:
                await self._tell(pages, scope, send)
        except FleetError as error:
            await self._fail(error, scope, send)

    async def _tell(self, pages: Pages, scope: Scope, send: Send) -> None:
        now = asyncio.get_running_loop().time
        patient_until = now() + self._patience_s
        async for frames in pages:
            good, end = self._parted(frames)
            data = self._rendering.tell(good) if good else b""
            if data:
                self._has_told = True
                await self._say(send, data)
            elif not frames and (self._is_open or now() >= patient_until):
                await self._say(send, self._rendering.keep_alive)
            if end is not None:
                await self._fail(ended(end, self._refusal_headers), scope, send)
                return

    def _told_and_end(self, frames: list[Frame]) -> tuple[Sequence[Frame], Frame | None]:
        """What can be told, and what ends the stream."""
        if not any(frame.type in ENDS_BADLY for frame in frames):
            return frames, None
        good: list[Frame] = []
        for frame in frames:
            if frame.type in TAKES_BACK and not self._has_told:
                good = [frame]
            elif frame.type in ENDS_BADLY:
                return good, frame
            else:
                good.append(frame)
        return good, None

    async def _fail(self, error: FleetError | Refusal, scope: Scope, send: Send) -> None:
        if not self._is_open:
            raise error
        await say(send, self._rendering.fail(problem_of(error, scope)))

    async def _say(self, send: Send, data: bytes) -> None:
        if not self._is_open:
            self._is_open = True
            head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(head)
        if data:
            await say(send, data)
