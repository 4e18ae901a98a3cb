"""The result of a job: a pure function of its events."""

import base64
import re
from collections.abc import Iterable
from typing import Any, Final, Literal

from contract.chat import ToolCall
from contract.events import (
    PLAIN_FIELDS,
    AnyEvent,
    Cancelled,
    Delta,
    Details,
    Done,
    Failed,
    FinishReason,
    Frame,
    Image,
    LogProb,
    LogReset,
    Phase,
    Progress,
    Queued,
    Reset,
    Resumed,
    Scores,
    Started,
    Timings,
    ToolCallDelta,
    Unknown,
    Usage,
    Vectors,
)
from contract.rerank import Ranked, ranked
from contract.wire import WireModel

Status = Literal["scheduled", "queued", "running", "done", "failed", "cancelled"]


class Embeddings(WireModel):
    """All vectors of a job: `count` rows of `dimension` little-endian float32, in base64."""

    count: int
    dimension: int
    data: str


class Result(WireModel):
    """The output of a job so far; final if `status` is."""

    status: Status = "queued"
    attempt: int = 1
    content: str = ""
    thinking: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[LogProb, ...] | None = None
    provider_meta: dict[str, Any] | None = None
    embeddings: Embeddings | None = None
    ranking: tuple[Ranked, ...] = ()
    """The documents of a rerank job, the most relevant first."""
    images: tuple[Image, ...] = ()
    progress: Progress | None = None
    details: dict[str, Any] | None = None
    finish_reason: FinishReason | None = None
    stop_sequence: str | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    ignored: tuple[str, ...] = ()
    error: Failed | None = None
    cancelled: Cancelled | None = None


class Fold:
    """Builds a result from events, one at a time."""

    def __init__(self) -> None:
        """Begin before the first event."""
        self._status: Status = "queued"
        self._attempt = 1
        self._end: Done | Failed | Cancelled | None = None
        self._discard()

    def _discard(self) -> None:
        self._content: list[str] = []
        self._thinking: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._logprobs: list[LogProb] = []
        self._provider_meta: dict[str, Any] | None = None
        self._vectors: dict[int, Vectors] = {}
        self._scores: dict[int, Scores] = {}
        self._images: dict[int, Image] = {}
        self._progress: Progress | None = None
        self._details: dict[str, Any] | None = None
        self._usage: Usage | None = None

    def add_frame(self, frame: Frame) -> None:
        """Add the next event of the log, as it was received.

        A delta with nothing but text, as most are, is not validated: no model is built for it.
        """
        if frame.type == "delta":
            fields = frame.fields
            content = fields.get("content")
            if len(fields) == PLAIN_FIELDS and isinstance(content, str):
                self._content.append(content)
                return
        self.add(frame.event)

    def add(self, event: AnyEvent) -> None:  # noqa: C901 - one flat case per event
        """Add the next event of the log."""
        match event:
            case Queued():
                self._status = "queued"
            case Started(attempt=attempt):
                self._status, self._attempt = "running", attempt
            case Delta():
                self._add_delta(event)
            case Progress():
                self._progress = event
            case Vectors():
                self._vectors[event.index] = event
            case Scores():
                self._scores[event.index] = event
            case Image():
                self._images[event.index] = event
            case Details():
                self._details = event.details
            case Reset():
                self._discard()
            case LogReset():
                self._end = None
                self._discard()
            case Done() | Failed() | Cancelled():
                self._status, self._end = event.type, event
            case Phase() | Resumed() | Unknown():
                pass

    def _add_delta(self, delta: Delta) -> None:
        if delta.content:
            self._content.append(delta.content)
        if delta.thinking:
            self._thinking.append(delta.thinking)
        if delta.refusal:
            self._refusal.append(delta.refusal)
        self._logprobs += delta.logprobs or ()
        self._usage = delta.usage or self._usage
        if delta.provider_meta is not None:
            self._provider_meta = delta.provider_meta
        for fragment in delta.tool_calls or ():
            self._calls.setdefault(fragment.index, _Call()).add(fragment)

    @property
    def has_output(self) -> bool:
        """Whether there is output that a `reset` would discard."""
        return bool(
            self._content
            or self._thinking
            or self._refusal
            or self._calls
            or self._vectors
            or self._scores
            or self._images
        )

    @property
    def result(self) -> Result:
        """The result so far."""
        done = self._end if isinstance(self._end, Done) else None
        return Result(
            status=self._status,
            attempt=self._attempt,
            content="".join(self._content),
            thinking="".join(self._thinking),
            refusal="".join(self._refusal),
            tool_calls=tuple(call.whole for _, call in sorted(self._calls.items())),
            logprobs=tuple(self._logprobs) or None,
            provider_meta=self._provider_meta,
            embeddings=_joined(self._vectors),
            ranking=_ranking(self._scores),
            images=tuple(image for _, image in sorted(self._images.items())),
            progress=self._progress,
            details=self._details,
            finish_reason=done.finish_reason if done else None,
            stop_sequence=done.stop_sequence if done else None,
            usage=done.usage if done else self._partial_usage,
            timings=done.timings if done else None,
            ignored=done.ignored if done else (),
            error=self._end if isinstance(self._end, Failed) else None,
            cancelled=self._end if isinstance(self._end, Cancelled) else None,
        )

    @property
    def _partial_usage(self) -> Usage | None:
        """Usage of an answer that was cut short or has not ended."""
        usage = self._usage
        return None if usage is None else usage.model_copy(update={"partial": True})


class _Call:
    """A tool call whose fragments are being joined."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.name = ""
        self.arguments: list[str] = []
        self.provider_meta: dict[str, Any] | None = None

    def add(self, fragment: ToolCallDelta) -> None:
        self.id = fragment.id or self.id
        self.name = fragment.name or self.name
        self.arguments.append(fragment.arguments or "")
        self.provider_meta = fragment.provider_meta or self.provider_meta

    @property
    def whole(self) -> ToolCall:
        return ToolCall(
            id=self.id,
            name=self.name,
            arguments="".join(self.arguments) or "{}",
            provider_meta=self.provider_meta,
        )


def _joined(blocks: dict[int, Vectors]) -> Embeddings | None:
    if not blocks:
        return None
    rows = [block for _, block in sorted(blocks.items())]
    data = b"".join(base64.b64decode(block.data) for block in rows)
    return Embeddings(
        count=sum(block.count for block in rows),
        dimension=rows[0].dimension,
        data=base64.b64encode(data).decode("ascii"),
    )


def _ranking(blocks: dict[int, Scores]) -> tuple[Ranked, ...]:
    if not blocks:
        return ()
    rows = [block for _, block in sorted(blocks.items())]
    return ranked((score for block in rows for score in block.scores), rows[0].top_n)


def fold(events: Iterable[AnyEvent]) -> Result:
    """The result of these events."""
    answer = Fold()
    for event in events:
        answer.add(event)
    return answer.result


_COUNTED: Final = re.compile(r"^(call_?)?[0-9]{1,3}$")
"""A call id that is a counter: other responses have the same one."""


def unique_call_id(id: str | None, job_id: str, index: int) -> str:
    """An id for a tool call that no other response has: clients look up results by it.

    Some servers count from 0 in every response.
    """
    if id and not _COUNTED.match(id):
        return id
    return f"call_{job_id[:24]}{index}"
