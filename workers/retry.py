"""Whether and when a job that a backend failed is retried: one rule a class of error. Pure.

Three kinds of failure. Those that do not depend on the job (BackendUnreachable, ModelLoading,
BackendBusy) use up none of its attempts until its attempt number has passed the worker's patience
(FLEET_RETRY_PATIENCE); then they do, so that no job is retried forever. Those that the job may
have caused (ServerFault, ConnectionDropped, TruncatedStream, BackendStalled) use up one each, and
so does StaleConnection, which is retried at once. All others would fail again: a refusal, a bad
request, a missing model, a key that is not accepted.

A job whose client waits for it (`busy_wait_s`) is given up when its backend has been busy for that
long, or asks for a longer wait; any job, when its backend asks for a wait beyond its deadline. The
client then gets the backend's error and its Retry-After.

The wait is exponential with full jitter: anything between nothing and `base_s`, doubled with each
attempt up to `cap_s`. The Retry-After of the backend is added to it.

Jobs with which workers died run one at a time, so that a poison job fails alone (`PoisonJobs`). A
worker that dies loses all its jobs, and which of them was the cause is unknown. After one death
they continue together, because mostly none was. After two, a worker runs one of them at a time: the
poison job uses up its last attempt beside jobs that have attempts left.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from contract.errors import (
    BackendBusy,
    BackendStalled,
    BackendUnreachable,
    ConnectionDropped,
    ContextExceeded,
    FleetError,
    InputTooLarge,
    ModelLoading,
    ModelMissing,
    NewerVersion,
    QuotaExhausted,
    ServerFault,
    StaleConnection,
    TruncatedStream,
)
from contract.jobs import JobRecord
from contract.requests import Kind
from relay.chance import DICE

RETRY_AFTER_MOST_S: Final = 3600.0
"""Seconds of Retry-After beyond which the job fails with its error."""
_BUSY_TRIES: Final = 3
"""Least number of times that a busy backend is asked for a client, however long it has waited."""
_LEAST_WAIT_S: Final = 0.5
"""Seconds below which it is not worth asking a busy backend again."""
DEATHS: Final = 2
POISON: Final = "two workers died with it, so it runs apart from others like it"
_POISON_DELAY_S: Final = (1.0, 4.0)


class Rule(NamedTuple):
    """How a class of errors is retried."""

    base_s: float
    cap_s: float
    counts: bool
    """Whether it uses up an attempt the first time already."""
    has_begun: bool
    """Whether the backend may have executed the request, or a part of it."""


RULES: Final[Mapping[type[FleetError], Rule]] = {
    BackendUnreachable: Rule(base_s=1.0, cap_s=60.0, counts=False, has_begun=True),
    ConnectionDropped: Rule(base_s=1.0, cap_s=30.0, counts=True, has_begun=True),
    StaleConnection: Rule(base_s=0.0, cap_s=0.0, counts=True, has_begun=True),
    ModelLoading: Rule(base_s=2.0, cap_s=30.0, counts=False, has_begun=False),
    BackendBusy: Rule(base_s=1.0, cap_s=60.0, counts=False, has_begun=False),
    NewerVersion: Rule(base_s=2.0, cap_s=15.0, counts=False, has_begun=False),
    ServerFault: Rule(base_s=1.0, cap_s=30.0, counts=True, has_begun=True),
    TruncatedStream: Rule(base_s=0.5, cap_s=15.0, counts=True, has_begun=True),
    BackendStalled: Rule(base_s=1.0, cap_s=30.0, counts=True, has_begun=True),
}
"""By class of error; a class that is not here is never retried. A connection may be reset after the
request was read, so BackendUnreachable counts as begun."""

REPEATABLE: Final[Mapping[Kind, bool]] = {
    "chat": True,  # changes nothing but the bill
    "embed": True,
    "rerank": True,
    "image": True,
    "show": True,  # reads only
    "list": True,
    "running": True,
    "count": True,
    "pull": True,  # continues where it stopped
    "load": True,  # a model in memory stays there, an unloaded one stays unloaded
    "unload": True,
    "copy": True,  # writes the same model under the same name again
    "create": True,
    # A second one would fail with ModelMissing, or delete a model that was pulled again meanwhile.
    "delete": False,
}
"""Kinds of jobs that may be executed twice. The others are retried only if the backend cannot have
begun: it answered that it was busy or loading."""


NOT_HERE: Final[frozenset[type[FleetError]]] = frozenset(
    {ModelMissing, ContextExceeded, InputTooLarge, QuotaExhausted, BackendUnreachable}
)
"""Errors after which a job moves to the next target of its alias at once, if it has no output. They
say that this backend cannot take the job, and nothing about the job; a subclass does not count: the
request may have caused a dropped connection."""
NOT_NOW: Final[frozenset[type[FleetError]]] = frozenset({BackendBusy, ModelLoading})
"""The same after the target's `wait_s`, until which the job is retried."""
STAYS: Final = frozenset({BackendBusy, ModelLoading, BackendUnreachable})
"""Those after which it is retried here if no worker serves a further target."""


def falls_back(error: FleetError, waited_s: float, wait_s: float, *, addresses: int) -> bool:
    """Whether a job moves to the next target of its alias after this error.

    `waited_s` is how long ago it was enqueued; a backend with several `addresses` is asked again
    until `wait_s`, for another one may answer.
    """
    kind = type(error)
    if kind is BackendUnreachable and addresses > 1:
        return waited_s >= wait_s
    return kind in NOT_HERE or (kind in NOT_NOW and waited_s >= wait_s)


class TimeLeft(NamedTuple):
    """How long a job may still be retried, in seconds."""

    until_deadline_s: float = math.inf
    busy_wait_s: float = math.inf
    """Of its request: how long a busy backend is asked again."""
    waited_s: float = 0.0
    """Since it could start; it may have waited in its queue first."""

    def is_too_short(self, error: FleetError, attempt: int) -> bool:
        """Whether no retry of attempt number `attempt` can help."""
        server_s = error.retry_after_s or 0.0
        if server_s >= self.until_deadline_s:
            return True
        if type(error) is not BackendBusy:
            return False
        tries = _BUSY_TRIES if self.busy_wait_s else 1
        is_over = max(server_s, _LEAST_WAIT_S) > self.busy_wait_s - self.waited_s
        return server_s > self.busy_wait_s or (is_over and attempt >= tries)

    def within(self, error: FleetError, delay_s: float) -> float:
        """The delay, so that the last retry comes before the end."""
        left_s = self.busy_wait_s - self.waited_s
        return min(delay_s, left_s) if type(error) is BackendBusy and left_s > 0 else delay_s


class Retry(NamedTuple):
    """A retry of a job: its delay, and whether it uses up an attempt."""

    delay_s: float
    counts: bool


def retry(
    error: FleetError,
    kind: Kind,
    attempt: int,
    *,
    patience: int,
    left: TimeLeft = TimeLeft(),  # noqa: B008 - it is immutable
    jitter: Callable[[float, float], float] = DICE.uniform,
) -> Retry | None:
    """Decide on the retry of attempt number `attempt` (from 1); None: the job fails now.

    `patience` is FLEET_RETRY_PATIENCE.
    """
    rule = RULES.get(type(error))
    if rule is None or (rule.has_begun and not REPEATABLE[kind]):
        return None
    server_s = error.retry_after_s or 0.0
    if server_s > RETRY_AFTER_MOST_S:
        return None
    exponent = min(attempt - 1, 16)
    if left.is_too_short(error, attempt):
        return None
    delay_s = server_s + jitter(0.0, min(rule.cap_s, rule.base_s * 2**exponent))
    return Retry(
        max(server_s, left.within(error, delay_s)), counts=rule.counts or attempt > patience
    )


def in_words(error: FleetError, delay_s: float) -> str:
    """Return why and when the job is retried: the `reason` of the event `queued`."""
    if not delay_s:
        return f"retry at once: {error.message}"
    shown = f"{delay_s:.0f}" if delay_s >= 10 else f"{delay_s:.1f}"  # noqa: PLR2004 - two digits
    return f"retry in {shown} s: {error.message}"


class PoisonJobs:
    """The one slot of a worker for jobs with which workers died."""

    def __init__(self) -> None:
        """Start with the slot free."""
        self._running: str | None = None

    def enter(self, record: JobRecord) -> bool:
        """Return whether the job may run now; if so, call `leave` when it has ended."""
        if record.lost < DEATHS:
            return True
        if self._running is not None:
            return False
        self._running = record.id
        return True

    def leave(self, record: JobRecord) -> None:
        """Free the slot if the job holds it."""
        if self._running == record.id:
            self._running = None

    @staticmethod
    def delay_s() -> float:
        """Return the seconds for which a job that may not enter is delayed."""
        return DICE.uniform(*_POISON_DELAY_S)
