"""One call of a drop-in surface (OpenAI, Anthropic, Ollama): its job submitted and rendered.

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
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from functools import partial
from typing import Final, NamedTuple, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api_shim.following.answering_model import AnsweringModel
from api_shim.following.event_stream import CLOSE_TIMEOUT_S, send_body
from api_shim.following.long_answer import LongAnswer
from api_shim.following.queue_position import Pages, QueuePositions
from api_shim.following.shutdown import CallEnding, OpenCalls
from api_shim.http.problems import Problem, Refusal, problem_of, status_of
from api_shim.submission.ignored_fields import HEADER, LenientModel, header_value, ignored
from api_shim.submission.roster_cache import RosterCache
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
from contract.events import Cancelled, Event, Failed, Frame, Reset
from contract.features import features_of
from contract.jobs import AnyRequest, JobRecord
from contract.result import Fold, Result
from contract.sse import KEEP_ALIVE
from contract.tenants import Tenant
from relay.followers import Follower, Followers
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
"""HTTP status of each error of a job; a class that is not here has its parent's, in the end that of
api_shim/http/problems.py.
"""

_BUSY_AFTER_S: Final = 10.0
"""Retry-After of a backend that is busy and names no time."""
ANSWER_RESTARTED: Final = "answer_restarted"
"""Error code of a stream that ends because an attempt started over."""
RESTARTS: Final = frozenset({"reset", "log_reset"})
"""Types of events that invalidate the text before them."""
FAILURES: Final = frozenset({"failed", "cancelled"}) | RESTARTS
"""Types of events that end a stream of text with an error."""


def _classes(root: type[FleetError]) -> Iterator[type[FleetError]]:
    yield root
    for child in root.__subclasses__():
        yield from _classes(child)


_CLASSES: Final = {each.code: each for each in _classes(FleetError)}


def ended(frame: Frame, headers: Mapping[str, str] | None = None) -> Refusal:
    """The error response for a frame of one of the `FAILURES`."""
    return refusal_of(frame.event, headers)


def refusal_of(event: Event, headers: Mapping[str, str] | None = None) -> Refusal:
    """The error response for the end of a job other than `done`, or for text that is invalid."""
    match event:
        case Failed(code=BackendBusy.code as code, message=message):
            # The job was given up because its client waits: that may come back.
            after_s = event.retry_after_s or _BUSY_AFTER_S
            return Refusal(
                code, message, status=_status(code), headers=headers,
                retryable=True, retry_after_s=after_s,
            )  # fmt: skip
        case Failed(code=code, message=message):
            # Not `retryable`: the worker has retried as often as the job allows, and a client that
            # retries too would multiply the attempts.
            return Refusal(code, message, status=_status(code), headers=headers)
        case Cancelled(by=by, reason=reason):
            why = f": {reason}" if reason else ""
            detail = f"The job was cancelled by {by}{why}."
            return Refusal("cancelled", detail, status=409, headers=headers)
        case _:
            return Refusal(
                ANSWER_RESTARTED,
                "The attempt failed and another one starts over, but text that was streamed cannot "
                "be taken back: retry, or follow the job at /api/v1/jobs/<X-Fleet-Job>/events, "
                "which streams the new attempt.",
                status=503,
                headers=headers,
                retryable=True,
            )


def restarted() -> Refusal:
    """The error for a client that has received text of an attempt that was reset."""
    return refusal_of(Reset(attempt=0, reason=""))


def _status(code: str) -> int:
    kind = _CLASSES.get(code, FleetError)
    found = next((_STATUS[parent] for parent in kind.__mro__ if parent in _STATUS), None)
    return found or status_of(kind)


SplitFrames = Callable[[list[Frame]], tuple[Sequence[Frame], Frame | None]]
"""Splits frames into those that can be rendered and the one that ends the stream, if any."""

_OF_A_MODEL: Final = frozenset({"task"})
"""Features that depend on the model: only the result says whether they were ignored."""
_NO_GRACE_S: Final = 0.0
_RETRY_GRACE_S: Final = 15.0
"""For a call with an Idempotency-Key, which its client repeats after a timeout; SDKs wait for up to
8 s before that."""
"""A drop-in client has no cursor, so it cannot reconnect."""


class StreamRenderer(Protocol):
    """Renders one response of a surface as a stream; stateful, one per call.

    This is the chunk path: `render` parses a frame with `from_json(frame.body)` and writes bytes.
    """

    @property
    def media_type(self) -> str:
        """The Content-Type of the stream."""
        ...

    @property
    def keep_alive(self) -> bytes:
        """Bytes to send after silence; empty if the format has no comment.

        Read each time that they are sent: they may begin the stream.
        """
        ...

    def render(self, frames: Sequence[Frame]) -> bytes:
        """The bytes for these frames; empty if they add nothing to the stream.

        The frames include the job's `done`, which ends the stream. Of `FAILURES` they include only
        those of `RESTARTS`, as the first frame, while nothing was sent: discard any state then.
        """
        ...

    def render_error(self, problem: Problem) -> bytes:
        """The bytes that end a stream which has begun and cannot continue."""
        ...


class FollowingServices(NamedTuple):
    """Services of the process that following needs; built once, in `api_shim.dependencies`."""

    log: Log
    roster: RosterCache
    followers: Followers
    open_calls: OpenCalls
    positions: QueuePositions
    keepalive_s: float
    """Seconds of silence after which a stream sends a keep-alive."""


class DropInCall:
    """One call of a drop-in surface."""

    def __init__(
        self, receive: Receive, services: FollowingServices, submission: Submission
    ) -> None:
        """Nothing is submitted yet; `receive` is the client's."""
        self._receive = receive
        self._services = services
        self._submission = submission
        self._ignored: list[str] = []
        self._answering: AnsweringModel | None = None
        """Of a job whose model is an alias."""
        self._long: LongAnswer | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the response once the job is accepted, `X-Fleet-Job` among them."""
        return self._submission.headers

    @property
    def caller(self) -> Tenant:
        """The tenant whose call it is."""
        return self._submission.tenant

    def add_ignored(self, names: Iterable[str]) -> None:
        """Add fields of the request that are ignored to the response's X-Fleet-Ignored."""
        self._ignored += names
        if self._ignored:
            self._submission.headers[HEADER] = header_value(self._ignored)

    async def submit(self, request: AnyRequest, body: LenientModel | None = None) -> JobRecord:
        """Submit a job; it is cancelled if the client disconnects, unless request or header differ.

        `body` is what the client sent: its unknown fields go into the response's X-Fleet-Ignored.
        Raises what `Submission.accept` raises.
        """
        if "on_disconnect" not in request.model_fields_set:
            request = request.model_copy(update={"on_disconnect": "cancel"})
        if body is not None:
            self.add_ignored(ignored(body))
        record, _ = await self._submission.accept(request)
        if record.alias is not None:
            self._answering = AnsweringModel(record, self._submission.headers)
        missing = await self._ungranted(request, record.backend)
        self.add_ignored(self._submission.named(missing))
        return record

    def answered(self, record: JobRecord) -> JobRecord:
        """The record of a job that is done, with the model and backend that answered."""
        return record if self._answering is None else self._answering.record

    async def _ungranted(self, request: AnyRequest, backend: str) -> tuple[str, ...]:
        """Features that the backend lacks; known before the job starts, as a stream's head is."""
        wanted = features_of(request)
        if not wanted:
            return ()
        await self._services.roster.recent()
        pool = self._services.roster.recent_pools.get(backend)
        granted = None if pool is None else pool.grants
        if granted is None:
            return ()
        return tuple(each for each in wanted if each not in granted and each not in _OF_A_MODEL)

    async def result(
        self,
        record: JobRecord,
        on_event: Callable[[Frame], object] | None = None,
        *,
        marks: tuple[str, ...] = (),
    ) -> Result:
        """The result when the job is done; `on_event` is called with every event of the log.

        `marks` are fields of a delta whose text the response has unchanged: that of a long answer
        may be a mark, and `whole` must make the response.
        Raises Refusal for any other end (statuses as in `refusal_of`; 408 `caller_left`, 503
        `shim_stopping`), and FleetError.
        """
        answer = Fold()
        self._long = LongAnswer(self._services.log, record.id, marks)
        async with self._follower(record):
            pages = self._long.of(self._pages(record))
            reading = _read(pages, answer, on_event, self._answering)
            ending = await self._services.open_calls.run(reading, self._receive)
        if ending is CallEnding.SHUTDOWN:
            raise _stopping(self.headers)
        if ending is CallEnding.DISCONNECTED:
            # No client reads this response; the access log records it.
            raise Refusal(
                "caller_left", "The client disconnected.", status=408, headers=self.headers
            )
        result = answer.result
        end = result.error or result.cancelled
        if end is not None:
            raise refusal_of(end, self.headers)
        self.add_ignored(self._submission.named(result.ignored))
        return result

    def whole(self, response: Response) -> Response:
        """The response of a whole answer, with the text in place of its marks."""
        return response if self._long is None else self._long.whole(response)

    def stream(
        self,
        record: JobRecord,
        renderer: StreamRenderer,
        split_frames: SplitFrames | None = None,
        *,
        shows_position: bool = False,
    ) -> Response:
        """Stream the response; `split_frames` is for a surface that renders failures itself.

        `shows_position`: while the job waits, the renderer gets fresh `queued` frames without an
        id, and its keep-alive is sent after each.
        """
        pages = self._pages(record)
        if shows_position:
            positions = self._services.positions
            waits = record.status == "queued"
            pages = positions.with_positions(record.id, pages, waits=waits)
        return AnswerStream(
            pages,
            renderer,
            self._services.open_calls,
            self._follower(record),
            headers=self.headers,
            head_timeout_s=self._services.keepalive_s,
            split_frames=split_frames,
            why_silent=partial(self._services.positions.reason, record.id),
            answering=self._answering,
        )

    def _follower(self, record: JobRecord) -> AbstractAsyncContextManager[Follower]:
        return self._services.followers.follow(
            record,
            grace_s=_RETRY_GRACE_S if self._submission.has_key else _NO_GRACE_S,
            is_registered=self._submission.expected is not None,
        )

    def _pages(self, record: JobRecord) -> Pages:
        log, idle_s = self._services.log, self._services.keepalive_s
        expected = self._submission.expected
        if expected is not None:
            return log.follow_expected(expected, idle_s=idle_s)
        return log.follow(record.id, idle_s=idle_s)


async def _read(
    pages: Pages,
    answer: Fold,
    on_event: Callable[[Frame], object] | None,
    answering: AnsweringModel | None,
) -> None:
    async with aclosing(pages):
        async for frames in pages:
            if answering is not None:
                answering.hear(frames)
            for frame in frames:
                answer.add_frame(frame)
                if on_event is not None:
                    on_event(frame)


def _stopping(headers: Mapping[str, str]) -> Refusal:
    return Refusal(
        "shim_stopping",
        "This shim is shutting down, and the job continues for a while: retry with the same "
        "Idempotency-Key, or follow the job at /api/v1/jobs/<X-Fleet-Job>/events.",
        status=503,
        headers=headers,
        retryable=True,
    )


class AnswerStream(Response):
    """A job's response as a stream; plain ASGI, as `event_stream.EventStreamResponse` is."""

    def __init__(
        self,
        pages: Pages,
        renderer: StreamRenderer,
        open_calls: OpenCalls,
        follower: AbstractAsyncContextManager[Follower],
        *,
        headers: Mapping[str, str],
        head_timeout_s: float,
        split_frames: SplitFrames | None = None,
        why_silent: Callable[[], Awaitable[str]] | None = None,
        answering: AnsweringModel | None = None,
    ) -> None:
        """Render these pages; the head is sent with the first output or after `head_timeout_s`.

        `why_silent` returns why the job waits; SSE's keep-alives say it. `answering` is of a job
        whose model is an alias.
        """
        self._pages = pages
        self._renderer = renderer
        self._open_calls = open_calls
        self._follower = follower
        self._head_timeout_s = head_timeout_s
        self._parted = split_frames or self._split
        self._why_silent = why_silent
        self._answering = answering
        self._has_started = self._has_ended = False
        self._has_sent_text = False
        self._waits = True
        self._refusal_headers = headers
        self.status_code = 200
        self.media_type = renderer.media_type
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers})

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; raises Refusal or FleetError for a failure before the head is sent."""
        async with self._follower:
            ending = await self._open_calls.run(self._stream(scope, send), receive)
            if ending is CallEnding.SHUTDOWN:
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT_S):
                        if not self._has_ended:
                            await self._fail(_stopping(self._refusal_headers), scope, send)
                        await self._end(send)

    async def _stream(self, scope: Scope, send: Send) -> None:
        try:
            async with aclosing(self._pages) as pages:
                await self._send_pages(pages, scope, send)
        except FleetError as error:
            await self._fail(error, scope, send)
        await self._end(send)

    async def _end(self, send: Send) -> None:
        """Complete the response; a client that reads slowly has as long as it needs."""
        self._has_ended = True
        await self._send(send, b"")
        await send_body(send, b"", more=False)

    async def _send_pages(self, pages: Pages, scope: Scope, send: Send) -> None:
        now = asyncio.get_running_loop().time
        head_due_at = now() + self._head_timeout_s
        async for frames in pages:
            if self._answering is not None:
                self._answering.hear(frames)
            sendable, end = self._parted(frames)
            data = self._renderer.render(sendable) if sendable else b""
            if frames and frames[-1].id is not None:
                self._waits = frames[-1].type == "queued"
            if data:
                self._has_sent_text = True
                await self._send(send, data)
            elif _is_silence(frames) and (self._has_started or now() >= head_due_at):
                await self._send(send, await self._keep_alive())
            if end is not None:
                await self._fail(ended(end, self._refusal_headers), scope, send)
                return

    async def _keep_alive(self) -> bytes:
        data = self._renderer.keep_alive
        if not self._waits or self._why_silent is None or data != KEEP_ALIVE:
            return data
        reason = await self._why_silent()
        return f": {reason}\n\n".encode() if reason else data

    def _split(self, frames: list[Frame]) -> tuple[Sequence[Frame], Frame | None]:
        """The default `SplitFrames`."""
        if not any(frame.type in FAILURES for frame in frames):
            return frames, None
        sendable: list[Frame] = []
        for frame in frames:
            if frame.type in RESTARTS and not self._has_sent_text:
                sendable = [frame]
            elif frame.type in FAILURES:
                return sendable, frame
            else:
                sendable.append(frame)
        return sendable, None

    async def _fail(self, error: FleetError | Refusal, scope: Scope, send: Send) -> None:
        if not self._has_started:
            raise error
        await send_body(send, self._renderer.render_error(problem_of(error, scope)))

    async def _send(self, send: Send, data: bytes) -> None:
        if not self._has_started:
            self._has_started = True
            if self._answering is not None:
                self.headers.update(self._answering.headers)
            head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(head)
        if data:
            await send_body(send, data)


def _is_silence(frames: Sequence[Frame]) -> bool:
    """Whether the log has nothing new: no frames, or only fresh positions."""
    return all(frame.id is None for frame in frames)
