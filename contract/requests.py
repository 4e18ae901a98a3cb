"""Fields that all requests share: backend, priority, deadline, attempts."""

import math
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from contract.webhooks.webhook_models import ReceiverUrl
from contract.wire import ClientModel, WireModel

Kind = Literal[
    "chat", "embed", "pull", "image", "show", "list", "running", "delete", "copy", "create",
    "load", "unload", "count", "rerank",
]  # fmt: skip
Priority = Literal["interactive", "standard", "batch"]

SLACK_S: dict[Priority, float] = {"interactive": 0.0, "standard": 10.0, "batch": 600.0}
"""Seconds of waiting after which a job of this class is equal to a new one of `interactive`."""

DEADLINE_S: dict[Kind, float] = {
    "chat": 600.0,
    "show": 120.0,
    "list": 120.0,
    "running": 120.0,
    "count": 20.0,
    "rerank": 600.0,
}
"""Seconds from enqueue to the deadline if the request sets none; other kinds have no deadline."""
_WITH_PULL_S = 6 * 3600.0
"""The same, in seconds, for a job that may have to pull its model first."""


LONGEST_DEADLINE_S: Final = 30 * 86400.0
"""Seconds from enqueue to the latest deadline that a request may set."""

OnNoWorker = Literal["wait", "refuse"]
"""What to do with a request for a backend that is known, but of which no worker is live."""


class CancelAfter(WireModel):
    """Cancel a job that had no follower for some time."""

    cancel_after_s: Annotated[float, Field(gt=0, le=86400)]
    """Seconds after the last follower has left; a new follower in that time stops the clock."""


OnDisconnect = Literal["continue", "cancel"] | CancelAfter
"""What to do with a job when its last follower has left."""

_CANCEL_AFTER: Final = "cancel_after_s="
_WORDS: Final[dict[str, OnDisconnect]] = {"continue": "continue", "cancel": "cancel"}


def disconnect_text(policy: OnDisconnect) -> str:
    """The policy as text for a header and the record: `cancel_after_s=30`."""
    if isinstance(policy, CancelAfter):
        return f"{_CANCEL_AFTER}{policy.cancel_after_s:.15g}"
    return policy


def disconnect_policy(text: str) -> OnDisconnect:
    """Read what `disconnect_text` wrote; raises ValueError on anything else."""
    if text in _WORDS:
        return _WORDS[text]
    if not text.startswith(_CANCEL_AFTER):
        raise ValueError("it is continue, cancel or cancel_after_s=<seconds>")
    return CancelAfter(cancel_after_s=float(text.removeprefix(_CANCEL_AFTER)))


_HOW: Final = (
    "write it as RFC 3339 with its offset, such as 2026-11-29T22:00:00+01:00 or "
    "2026-11-29T21:00:00Z, or in unix seconds"
)
_MOST: Final = 253_402_300_799.0
"""The last second of the year 9999."""


def unix_seconds(value: Any) -> float:
    """A time in unix seconds; raises ValueError with what is wrong and a remedy."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | datetime):
        raise ValueError(f"it is no time: {_HOW}")  # noqa: TRY004 - pydantic expects it
    found = _of_text(value.strip()) if isinstance(value, str) else value
    if isinstance(found, datetime):
        if found.tzinfo is None:
            raise ValueError(f"it has no offset from UTC: {_HOW}")
        return found.timestamp()
    if not (math.isfinite(found) and 0 <= found <= _MOST):
        raise ValueError(f"it is no time between 1970 and 9999: {_HOW}")
    return float(found)


def _of_text(text: str) -> float | datetime:
    try:
        return float(text) if text[:1].isdigit() and _is_number(text) else _of_rfc3339(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:80]!r} is no time: {_HOW}") from None


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


def _of_rfc3339(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if len(text) <= len("2026-11-29"):
        raise ValueError
    return found


def _moment(value: Any) -> float:
    try:
        return unix_seconds(value)
    except ValueError as error:
        raise PydanticCustomError("time", "{why}", {"why": str(error)}) from None


Moment = Annotated[
    float,
    BeforeValidator(_moment, json_schema_input_type=float | str),
    Field(examples=["2026-01-31T22:00:00+01:00", 1769893200]),
]
"""A point in time in unix seconds, which a client may write as RFC 3339."""
BackendName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]

LONGEST_RETENTION_S: Final = 400 * 86400
"""What a retention may be at most; FLEET_LOG_TTL_S may bound it further."""
_RETENTION: Final = f"give none, ttl, or seconds from 1 to {LONGEST_RETENTION_S}"


def retention_of(text: str) -> Literal["none", "ttl"] | int:
    """Read a retention as a header or an option has it; raises ValueError."""
    if text == "none":
        return "none"
    if text == "ttl":
        return "ttl"
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(LONGEST_RETENTION_S))
    if not is_number or not 1 <= int(text) <= LONGEST_RETENTION_S:
        raise ValueError(_RETENTION)
    return int(text)


def _retention(value: Any) -> Any:
    """One error for whatever is wrong: those of a union speak of each of its parts."""
    try:
        return retention_of(str(value) if type(value) is int else value)
    except (ValueError, AttributeError):
        raise PydanticCustomError("retention", _RETENTION) from None


Retention = Annotated[
    Literal["none", "ttl"] | Annotated[int, Field(strict=True, ge=1, le=LONGEST_RETENTION_S)],
    BeforeValidator(_retention),
]
"""How long the texts of a job are kept after its end: in seconds, `ttl` for as long as the fleet
keeps any (FLEET_LOG_TTL_S), `none` until those who follow it have its end."""


Word = Annotated[str, Field(max_length=256)]
"""A name, or one of a few words: what is compared, kept and shown, and is no text."""
MOST_METADATA: Final = 16
"""Keys of a request's metadata."""
LONGEST_METADATA_KEY: Final = 64
"""Characters of a key."""
LONGEST_METADATA: Final = 512
"""Characters of a value."""
_METADATA: Final = (
    f"metadata may have {MOST_METADATA} keys of {LONGEST_METADATA_KEY} characters, with strings of "
    f"{LONGEST_METADATA} characters: store what is larger or nested yourself, and send a name of it"
)


def _bounded_metadata(metadata: Any) -> Any:
    """One error, however much is wrong: a hostile client sends thousands of values."""
    if not isinstance(metadata, dict):
        return metadata
    wrong = None
    if len(metadata) > MOST_METADATA:
        wrong = f"it has {len(metadata)} keys"
    for key, value in islice(metadata.items(), MOST_METADATA):
        if len(str(key)) > LONGEST_METADATA_KEY:
            wrong = f"the key {str(key)[:20]}... has {len(str(key))} characters"
        elif not isinstance(value, str):
            wrong = f"{key} is no string"
        elif len(value) > LONGEST_METADATA:
            wrong = f"{key} has {len(value)} characters"
    if wrong is not None:
        raise PydanticCustomError(
            "metadata", "{wrong}; {limits}", {"wrong": wrong, "limits": _METADATA}
        )
    return metadata


Metadata = Annotated[
    dict[
        Annotated[str, Field(max_length=LONGEST_METADATA_KEY)],
        Annotated[str, Field(max_length=LONGEST_METADATA)],
    ],
    Field(max_length=MOST_METADATA),
    BeforeValidator(_bounded_metadata),
]
"""The client's own data of a job or batch, bounded as OpenAI bounds it."""


class AliasTarget(WireModel):
    """A model that an alias stands for, where it runs and with which parameters."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    backend: BackendName | None = None
    """In the route of a job it is set."""
    wait_s: float
    """Seconds that a job may wait for this target before it moves to the next one."""
    default: dict[str, Any] = Field(default_factory=dict)
    """Fields for requests that leave them out: contract/aliases/parameters.py."""
    force: dict[str, Any] = Field(default_factory=dict)
    """Fields that replace those of the request."""
    price: Word | None = None
    """In the route of a job: what the model costs, if it costs anything."""


class Route(WireModel):
    """The targets of a request whose model is an alias, as they were when it was enqueued."""

    alias: Word
    """The model as the client named it."""
    targets: Annotated[tuple[AliasTarget, ...], Field(min_length=1)]
    """The job moves from one to the next while it has no output."""
    weight: float = 1.0
    """Of the job's tenant: its share of the queues that the job moves to."""


JobId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Request(ClientModel):
    """Fields that every kind of request takes besides its own."""

    kind: Kind
    backend: BackendName | None = None
    """Name of the backend; without it, the live backend that has the model."""
    priority: Priority = "standard"
    deadline_s: Annotated[float, Field(gt=0, le=LONGEST_DEADLINE_S)] | None = None
    """Seconds until the job fails with `deadline_exceeded`, from its enqueue, or from when it may
    start."""
    not_before: Moment | None = None
    """When the job may start at the earliest, at most 30 days ahead, as RFC 3339 or in unix
    seconds. `deadline_s` counts from then. A time that has passed changes nothing."""
    after: Annotated[tuple[JobId, ...], Field(max_length=100)] | None = None
    """Ids of the tenant's jobs that must be done before it may start; `deadline_s` counts from
    then. If one fails or is cancelled, it fails with `parent_failed`."""
    after_any: Annotated[tuple[JobId, ...], Field(max_length=100)] | None = None
    """Ids of jobs that must have ended before, whether they are done or not."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    on_missing: Literal["fail", "pull"] = "fail"
    """What to do if the backend does not have the model: fail, or pull it first."""
    on_no_worker: OnNoWorker | None = None
    """What to do if no worker of a known backend is live: wait for one until the deadline, or
    refuse with `no_worker`. Without it, as FLEET_ON_NO_WORKER says."""
    on_disconnect: OnDisconnect = "continue"
    """What to do with the job when its last follower, on any shim, has left."""
    callback_url: ReceiverUrl | None = None
    """Where the job's end is posted, signed with the tenant's secret for callbacks: an http or
    https URL at a public address."""
    busy_wait_s: Annotated[float, Field(ge=0, le=LONGEST_DEADLINE_S)] | None = None
    """Seconds for which the job is retried while its backend is busy; then it fails with
    `backend_busy`. Without it until its deadline, or as FLEET_BUSY_WAIT_S says if it ends with its
    client's connection."""
    retention: Retention | None = None
    """How long its texts are kept after its end: `none`, seconds, or `ttl` for as long as the fleet
    keeps any. Without it as the key, or FLEET_RETENTION, says; it may not be longer than that."""
    metadata: Metadata = Field(default_factory=dict)
    """The client's own data, returned with the record: at most 16 keys of 64 characters, with
    strings of 512."""
    route: Route | None = None
    """Set by the fleet for a model that is an alias; leave it out."""

    @property
    def effective_deadline_s(self) -> float | None:
        """Seconds from enqueue until the deadline; None for batch jobs and kinds without one."""
        if self.deadline_s is not None or self.priority == "batch":
            return self.deadline_s
        default_s = DEADLINE_S.get(self.kind)
        return _WITH_PULL_S if default_s is not None and self.on_missing == "pull" else default_s
