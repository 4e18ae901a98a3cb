"""The stream of a drop-in surface: pages of a job's log, rendered as they come.

- The head of a stream waits for the job's first output, so that an earlier failure is a status
  code; but no longer than about `keepalive_s`: then 200 and keep-alives are sent, and a failure is
  an event of the stream.
- Text that was sent cannot be taken back: an attempt that starts over ends a stream that has sent
  some. An attempt that continues the last one is not visible to the client.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from functools import partial
from typing import Protocol, cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api_shim.following.answering_model import AnsweringModel
from api_shim.following.event_stream import CLOSE_TIMEOUT_S, send_body
from api_shim.following.job_refusals import FAILURES, RESTARTS, ended, stopping
from api_shim.following.queue_position import Pages
from api_shim.following.shutdown import CallEnding, OpenCalls
from api_shim.http.authentication import LAST_WORDS
from api_shim.http.problems import Problem, Refusal, problem_of
from contract.errors import FleetError
from contract.events import Frame
from contract.sse import KEEP_ALIVE
from relay.compaction.follower_turns import alone
from relay.followers import Follower

SplitFrames = Callable[[list[Frame]], tuple[Sequence[Frame], Frame | None]]
"""Splits frames into those that can be rendered and the one that ends the stream, if any."""


class StreamRenderer(Protocol):
    """Renders one response of a surface as a stream; stateful, one per call.

    This is the chunk path: `render` reads `frame.fields`, changes nothing of it, and writes bytes.
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


class LargeRenderer(StreamRenderer, Protocol):
    """One whose last events have the whole text again, several times."""

    def is_large(self, frames: Sequence[Frame]) -> bool:
        """Whether there is so much text that the events of these frames are to be made apart."""
        ...

    def pieces(self, frames: Sequence[Frame]) -> Iterator[bytes]:
        """What `render` returns, made while it is iterated: an event, or some small ones, each."""
        ...


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
        self._large = cast("LargeRenderer", renderer) if hasattr(renderer, "pieces") else None
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
            if ending is CallEnding.DISCONNECTED and self._has_started and not self._has_ended:
                scope.setdefault("state", {})[LAST_WORDS] = partial(self._last_words, scope)
            if ending is CallEnding.SHUTDOWN:
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT_S):
                        if not self._has_ended:
                            await self._fail(stopping(self._refusal_headers), scope, send)
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
            large = self._large is not None and self._large.is_large(sendable)
            data = self._renderer.render(sendable) if sendable and not large else b""
            if frames and frames[-1].id is not None:
                self._waits = frames[-1].type == "queued"
            if large and sendable:
                await self._send_pieces(sendable, send)
            elif data:
                self._has_sent_text = True
                await self._send(send, data)
            elif _is_silence(frames) and (self._has_started or now() >= head_due_at):
                await self._send(send, await self._keep_alive())
            if end is not None:
                await self._fail(ended(end, self._refusal_headers), scope, send)
                return

    async def _send_pieces(self, frames: Sequence[Frame], send: Send) -> None:
        """Render and send one large event after the other, beside those of other streams."""
        assert self._large is not None  # noqa: S101 - for the type checker
        pieces = self._large.pieces(frames)
        while True:
            async with alone():
                data = next(pieces, b"")
            if not data:
                return
            self._has_sent_text = True
            await self._send(send, data)

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

    def _last_words(self, scope: Scope, error: FleetError) -> bytes:
        return self._renderer.render_error(problem_of(error, scope))

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
