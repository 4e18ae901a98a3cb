"""One call of a drop-in surface (OpenAI, Anthropic, Ollama): its job submitted and rendered.

A surface is a view of jobs. It translates its request into the contract's, submits it through a
`DropInCall` and translates the result; it runs nothing itself. The rules are the same everywhere:

- A client that disconnects ends the job, because it cannot resume the stream, unless the request
  has another policy (`X-Fleet-On-Disconnect`).
- When a stream begins, and what ends it early: answer_stream.py.
- What a job that fails is answered with: job_refusals.py.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from starlette.responses import Response
from starlette.types import Receive

from api_shim.following.answer_stream import AnswerStream, SplitFrames, StreamRenderer
from api_shim.following.answering_model import AnsweringModel
from api_shim.following.job_refusals import refusal_of, stopping
from api_shim.following.long_answer import LongAnswer, MakesEntry
from api_shim.following.queue_position import Pages, QueuePositions
from api_shim.following.shutdown import CallEnding, OpenCalls
from api_shim.http.json_body import let_go, made_of_large
from api_shim.http.problems import Refusal
from api_shim.submission.caller_rights import without_lease
from api_shim.submission.ignored_fields import HEADER, LenientModel, header_value, ignored
from api_shim.submission.roster_cache import RosterCache
from api_shim.submission.submission import Submission
from contract.events import Frame
from contract.features import features_of
from contract.jobs import AnyRequest, JobRecord
from contract.result import Fold, Result
from contract.tenants import Tenant
from relay.followers import Follower, Followers
from relay.log import Log

Given = ParamSpec("Given")
Translated = TypeVar("Translated")
_OF_A_MODEL: Final = frozenset({"task"})
"""Features that depend on the model: only the result says whether they were ignored."""
_NO_GRACE_S: Final = 0.0
"""A drop-in client has no cursor, so it cannot reconnect."""
_RETRY_GRACE_S: Final = 15.0
"""For a call with an Idempotency-Key, which its client repeats after a timeout; SDKs wait for up to
8 s before that."""


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
        self,
        receive: Receive,
        services: FollowingServices,
        submission: Submission,
        *,
        has_large_body: bool = False,
    ) -> None:
        """Nothing is submitted yet; `receive` is the client's."""
        self._has_large_body = has_large_body
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

    async def translated(
        self, translate: Callable[Given, Translated], *args: Given.args, **more: Given.kwargs
    ) -> Translated:
        """What a translator makes of the body; a large one is no work for the event loop.

        Raises what the translator raises.
        """
        if not self._has_large_body:
            return translate(*args, **more)
        return await made_of_large(partial(translate, *args, **more))

    async def request_of(
        self, translate: Callable[..., Translated], body: LenientModel, *more: Any
    ) -> Translated:
        """What a translator makes of a body, which it may use up, and of more.

        The body's unknown fields go into the response's X-Fleet-Ignored.
        Raises what the translator raises.
        """
        names, request = await self.translated(
            lambda: (ignored(body), translate(body, *more))  # in this order
        )
        self.add_ignored(names)
        return request

    async def submit(
        self, request: AnyRequest, body: LenientModel | None = None, *, spent: tuple[str, ...] = ()
    ) -> JobRecord:
        """Submit a job; it is cancelled if the client disconnects, unless request or header differ.

        `body` is what the client sent: its unknown fields go into the response's X-Fleet-Ignored.
        Its fields `spent` are let go before the request is encoded.
        Raises what `Submission.accept` raises.
        """
        if "on_disconnect" not in request.model_fields_set:
            request = request.model_copy(update={"on_disconnect": "cancel"})
        if body is not None:
            self.add_ignored(ignored(body))
            let_go(body, *spent)
        record, _ = await self._submission.accept(request)
        if record.alias is not None:
            self._answering = AnsweringModel(record, self._submission.headers)
        missing = await self._ungranted(request, record.backend)
        if without_lease(self.caller, request) is not request:
            missing = (*missing, "keep_alive_s")
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
        entry: MakesEntry | None = None,
        on_frames: Callable[[list[Frame]], object] | None = None,
    ) -> Result:
        """The result when the job is done; `on_event` is called with every event of the log.

        `on_frames` is called with all before that, as the log has them.

        `marks` are fields of a delta whose text the response has unchanged: that of a long answer
        may be a mark, and `whole` must make the response, with `entry` for its log probabilities.
        Raises Refusal for any other end (statuses as in `refusal_of`; 408 `caller_left`, 503
        `shim_stopping`), and FleetError.
        """
        answer = Fold()
        is_brief = record.retention_s is not None
        self._long = LongAnswer(
            self._services.log, record.id, marks, is_kept_briefly=is_brief, entry=entry
        )
        async with self._follower(record):
            pages = self._long.of(_seen(self._pages(record), on_frames))
            reading = _read(pages, answer, on_event, self._answering)
            ending = await self._services.open_calls.run(reading, self._receive)
        if ending is CallEnding.SHUTDOWN:
            raise stopping(self.headers)
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


def _seen(pages: Pages, on_frames: Callable[[list[Frame]], object] | None) -> Pages:
    return pages if on_frames is None else _told(pages, on_frames)


async def _told(pages: Pages, on_frames: Callable[[list[Frame]], object]) -> Pages:
    async with aclosing(pages):
        async for frames in pages:
            on_frames(frames)
            yield frames


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
