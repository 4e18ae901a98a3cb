"""Events of a job, their ids, and the frames that carry them in the log and on the channel.

Invariant: exactly one `Done`, `Failed` or `Cancelled` ends a log, and its id is the greatest in it.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json  # noqa: TID251 - of one text, as models write it
from typing_extensions import override

from contract.wire import WireModel


class EventId(NamedTuple):
    """`<attempt>-<seq>`: the id in the log. The attempt rises whenever a job changes hands."""

    attempt: int
    seq: int

    @override
    def __str__(self) -> str:
        """The form in Redis, HTTP and cursors."""
        return f"{self.attempt}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "EventId":
        """Read `<attempt>-<seq>`; raises ValueError on anything else."""
        attempt, dash, seq = text.partition("-")
        if not (dash and attempt.isdecimal() and seq.isdecimal()):
            message = f"an event id looks like 2-17, not {text[:40]!r}"
            raise ValueError(message)
        return cls(int(attempt), int(seq))


BEGINNING: Final = EventId(0, 0)
"""The cursor before the first event."""


class Event(WireModel):
    """One event of a job."""

    type: str
    shows_null: ClassVar[bool] = True
    """Whether fields that are None are written as null, or not at all."""


class Queued(Event):
    """The job waits."""

    type: Literal["queued"] = "queued"
    queue: str
    position: int | None = None
    """Jobs before it, plus one."""
    eta_s: float | None = None
    """Seconds until it starts, from the measured drain rate; null when unknown."""
    reason: str = ""


class Started(Event):
    """A worker claimed the job."""

    type: Literal["started"] = "started"
    attempt: int
    worker: str
    backend: str
    endpoint: str | None = None
    """Which of the backend's addresses it is, as in `box/2`, where there are several: admins find
    it in the backend's report."""
    model: str | None = None
    nonce: str | None = None
    """Random text of this attempt. A cursor `<id>.<nonce>` is exact even if Redis was restored
    from an older state and used an attempt's number a second time."""


class Phase(Event):
    """What the backend does before the first output, or while it makes images."""

    type: Literal["phase"] = "phase"
    phase: Literal["pulling", "loading", "prefill", "generating"]
    progress: float | None = None
    """0 to 1, null when the backend does not report it."""


class Usage(WireModel):
    """Tokens, as the backend counted them.

    If several attempts made the answer: the prompt counts once, and all of the completion counts.
    The part from earlier attempts is estimated from the number of its fragments.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    partial: bool = False
    """Whether the answer was cut short: the tokens are those counted until then."""


COUNTS: Final = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
"""Fields of `Usage` that can be summed."""


class ToolCallDelta(WireModel):
    """A fragment of a tool call; fragments of one `index` belong together."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str | None = None
    provider_meta: dict[str, Any] | None = None
    """Sent back with the call; see contract.chat.ToolCall."""


class LogProb(WireModel):
    """How likely one token was; the shape is OpenAI's."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    """The token's UTF-8 bytes, which may be part of a character."""
    top_logprobs: tuple["LogProb", ...] = ()


class Delta(Event):
    """A fragment of the answer; only the fields that are present are written."""

    type: Literal["delta"] = "delta"
    shows_null: ClassVar[bool] = False
    content: str | None = None
    thinking: str | None = None
    tool_calls: tuple[ToolCallDelta, ...] | None = None
    refusal: str | None = None
    logprobs: tuple[LogProb, ...] | None = None
    """Of the tokens in `content`."""
    provider_meta: dict[str, Any] | None = None
    """Sent back with the whole message; a later value replaces an earlier one."""
    usage: Usage | None = None
    """Tokens so far, if the backend reports them while it streams; for answers cut short."""

    @property
    def has_words(self) -> bool:
        """Whether it holds output, not only usage."""
        return bool(
            self.content or self.thinking or self.tool_calls or self.refusal or self.logprobs
        )


class Progress(Event):
    """Progress of a download or a build."""

    type: Literal["progress"] = "progress"
    shows_null: ClassVar[bool] = False
    status: str
    digest: str | None = None
    total_bytes: int | None = None
    completed_bytes: int | None = None
    overall_total_bytes: int | None = None
    """Sum over all digests so far; it grows when the backend reports a new digest."""
    overall_completed_bytes: int | None = None


class Vectors(Event):
    """Rows of vectors: `count` rows of `dimension` numbers, the first of them row `index`."""

    type: Literal["vectors"] = "vectors"
    index: int
    count: int
    dimension: int
    data: str
    """Base64 of little-endian float32, row after row."""


class Scores(Event):
    """Scores of documents in the order of the request, the first of them document `index`."""

    type: Literal["scores"] = "scores"
    shows_null: ClassVar[bool] = False
    index: int
    scores: tuple[float, ...]
    """As the model gives them: greater is more relevant."""
    top_n: int | None = None
    """The most documents of the result's ranking, as the request says."""


class Image(Event):
    """An image, or a preview of one (`partial`)."""

    type: Literal["image"] = "image"
    shows_null: ClassVar[bool] = False
    index: int
    mime_type: str = "image/png"
    data: str | None = None
    """Base64 of the image's bytes."""
    url: str | None = None
    partial: bool = False


class Details(Event):
    """The backend's response to show, list or running."""

    type: Literal["details"] = "details"
    details: dict[str, Any]


class Resumed(Event):
    """A new attempt continues the answer where the last one stopped."""

    type: Literal["resumed"] = "resumed"
    attempt: int
    reason: str


class Reset(Event):
    """A new attempt starts over: discard every delta, vector, score and image so far."""

    type: Literal["reset"] = "reset"
    attempt: int
    reason: str


class LogReset(Event):
    """The log does not hold the client's cursor: discard everything so far and read on.

    Sent live and never logged; the log follows from its beginning.
    """

    type: Literal["log_reset"] = "log_reset"
    reason: str


FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Timings(WireModel):
    """Durations of a job, in milliseconds."""

    queued_ms: float | None = None
    """From enqueue to the claim of this attempt."""
    load_ms: float | None = None
    """Time that the backend spent loading the model, if it reports it."""
    first_token_ms: float | None = None
    """From the claim of this attempt to its first fragment."""
    total_ms: float | None = None
    """From enqueue to the end."""


class Done(Event):
    """The terminal event of a job that succeeded."""

    type: Literal["done"] = "done"
    finish_reason: FinishReason = "stop"
    stop_sequence: str | None = None
    """The sequence of `stop` that ended the answer, if the backend reports it."""
    usage: Usage | None = None
    """Null if the backend reported none."""
    timings: Timings = Timings()
    ignored: tuple[str, ...] = ()
    """Fields of the request that the backend cannot express."""


class Failed(Event):
    """The terminal event of a job that failed."""

    type: Literal["failed"] = "failed"
    code: str
    message: str
    retryable: bool = False
    dead: bool = False
    """Whether the job ran out of attempts and is kept as a dead letter, which can be retried."""
    retry_after_s: float | None = None
    """Seconds after which the backend said that it takes requests again."""


class Cancelled(Event):
    """The terminal event of a job that was cancelled."""

    type: Literal["cancelled"] = "cancelled"
    by: str
    reason: str = ""


class Unknown(Event):
    """An event of a newer version: followers get its JSON unchanged, other readers skip it."""

    fields: dict[str, Any]
    """All fields but `id` and `at`."""


KnownEvent = Annotated[
    Queued | Started | Phase | Delta | Progress | Vectors | Scores | Image | Details | Resumed
    | Reset | LogReset | Done | Failed | Cancelled,
    Field(discriminator="type"),
]  # fmt: skip
LastWord = Done | Failed | Cancelled
LAST_WORDS: Final = frozenset({"done", "failed", "cancelled"})

AnyEvent = KnownEvent | Unknown
_known: Final[TypeAdapter[KnownEvent]] = TypeAdapter(KnownEvent)


def event_of(fields: dict[str, Any]) -> AnyEvent:
    """Read an event's fields, without id and time, in this version or a newer one."""
    try:
        return _known.validate_python(fields, extra="ignore")
    except ValidationError as error:
        # The first step is the type, the second the field; a field with a default is left out.
        strange = {step for each in error.errors() for step in each["loc"][1:2]}
    rest = {name: value for name, value in fields.items() if name not in strange}
    try:
        return _known.validate_python(rest, extra="ignore")
    except ValidationError:
        return Unknown(type=str(fields.get("type")), fields=fields)


_delta: Final[TypeAdapter[Delta]] = TypeAdapter(Delta)
PLAIN_FIELDS: Final = 4
"""Of the JSON of a fragment of text and nothing else: id, at, type, content."""


def _is_delta(fields: dict[str, Any]) -> bool:
    """Whether all that a reader knows of a delta is of its type: readers take it as it is."""
    is_plain = len(fields) == PLAIN_FIELDS and type(fields.get("content")) is str
    try:
        return is_plain or bool(_delta.validate_python(fields, extra="ignore"))
    except ValidationError:
        return False


_KEPT_BYTES: Final = 1024
"""Of the JSON of a frame that stays parsed: nearly all are short, and are read again at once."""
_TYPE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Frame:
    """An event as it is stored and published: id, type, and its JSON.

    `body` is the JSON object `{"id": ..., "at": <unix seconds>, "type": ..., ...}`. Readers
    forward it without parsing it, which makes a follower cheap. `id` is None for an event that
    is only sent live and never logged (a fresh `queued`).
    """

    __slots__ = ("_parsed", "body", "id", "type")

    def __init__(self, id: EventId | None, type: str, body: bytes) -> None:
        """Make a frame from its parts; `body` is not checked."""
        self.id = id
        self.type = type
        self.body = body
        self._parsed: dict[str, Any] | None = None

    @classmethod
    def of(cls, id: EventId | None, at: float, event: Event) -> "Frame":
        """Encode an event as a frame; `at` is unix seconds."""
        fields = event.__pydantic_serializer__.to_json(event, exclude_none=not event.shows_null)
        head = b'{"id":"%d-%d","at":%.3f,' % (*id, at) if id else b'{"at":%.3f,' % at
        return cls(id, event.type, head + fields[1:])

    @classmethod
    def from_wire(cls, data: bytes) -> "Frame":
        """Read what `to_wire` wrote: `<id> <type> <body>`."""
        id_text, type_text, body = data.split(b" ", 2)
        attempt, seq = id_text.split(b"-")
        return cls(EventId(int(attempt), int(seq)), type_text.decode(), body)

    def to_wire(self) -> bytes:
        """The form in the log and on the channel."""
        return b"%s %s %s" % (str(self.id or BEGINNING).encode(), self.type.encode(), self.body)

    @classmethod
    def from_entry(cls, data: bytes) -> "list[Frame]":
        """Read what `to_entry` wrote: one frame or more."""
        if b"\n" not in data:
            return [cls.from_wire(data)]
        return [cls.from_wire(line) for line in data.split(b"\n")]

    @property
    def is_sound(self) -> bool:
        """Whether it is an event, of this version or a newer one, and no other program's text.

        Readers forward the JSON as it is: half of a frame would break those that get it.
        """
        try:
            fields = from_json(self.body, allow_inf_nan=False, cache_strings="keys")
        except ValueError:
            return False
        is_sound = (
            isinstance(fields, dict)
            and fields.get("id") == "-".join(map(str, self.id or ()))
            and type(fields.get("at")) in (int, float)
            and fields.get("type", self.type) == self.type
            and (
                _is_delta(fields)
                if self.type == "delta"
                else _TYPE.fullmatch(self.type) is not None
            )
            and b"\r" not in self.body
        )
        if is_sound and len(self.body) <= _KEPT_BYTES:
            self._parsed = fields
        return is_sound

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON object, to be read: a small one is kept since it was found sound."""
        return from_json(self.body) if self._parsed is None else self._parsed

    @property
    def is_last(self) -> bool:
        """Whether this is the terminal event of the log."""
        return self.type in LAST_WORDS

    @property
    def event(self) -> AnyEvent:
        """The event, parsed; `Unknown` if a newer version wrote a type that this one lacks."""
        fields = dict(self.fields)
        fields.pop("id", None)
        fields.pop("at", None)
        return event_of(fields)

    @property
    def at(self) -> float:
        """Unix seconds at which it was appended."""
        return float(self.fields["at"])

    @override
    def __eq__(self, other: object) -> bool:
        """Frames are equal if their bodies are."""
        return isinstance(other, Frame) and self.body == other.body

    @override
    def __hash__(self) -> int:
        """The hash of the body."""
        return hash(self.body)

    @override
    def __repr__(self) -> str:
        """The body, for a failed test."""
        return f"Frame({self.body.decode()})"


_TEXT: Final = {"content"}
"""What nearly all events have."""


def wire_line(id: EventId, at: bytes, event: Event) -> bytes:
    """What `Frame.of(...).to_wire()` returns, in half the time; `at` is unix seconds, `1.500`.

    Each event of every job passes here, so that this is worth a second way.
    """
    attempt, seq = id
    if type(event) is Delta and event.content is not None and event.model_fields_set == _TEXT:
        return b'%d-%d delta {"id":"%d-%d","at":%b,"type":"delta","content":%b}' % (
            attempt, seq, attempt, seq, at, to_json(event.content),
        )  # fmt: skip
    fields = event.__pydantic_serializer__.to_json(event, exclude_none=not event.shows_null)
    return b'%d-%d %b {"id":"%d-%d","at":%b,%b' % (
        attempt, seq, event.type.encode(), attempt, seq, at, fields[1:],
    )  # fmt: skip


def to_entry(frames: Sequence[bytes]) -> bytes:
    """An entry of the log, and message of the channel: frames (`to_wire`), a line each.

    Their JSON has no line break: RFC 8259, section 7.
    """
    return b"\n".join(frames)


_FORM: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,18})(?:\.([0-9a-f]{1,32}))?")


class Cursor(NamedTuple):
    """`<attempt>-<seq>`, the id of an event; `.<nonce>` of its attempt makes it exact.

    The nonce is in `started`. It matters only if Redis was restored from an older state and used
    the number of an attempt a second time.
    """

    id: EventId = BEGINNING
    nonce: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Read what `str` wrote; raises ValueError on anything else."""
        match = _FORM.fullmatch(text)
        if match is None:
            message = f"an event id looks like 2-17, not {text[:40]!r}"
            raise ValueError(message)
        return cls(EventId(int(match[1]), int(match[2])), match[3])

    @override
    def __str__(self) -> str:
        """The form that clients send."""
        return f"{self.id}.{self.nonce}" if self.nonce else str(self.id)
