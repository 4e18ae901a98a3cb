"""Appends the events of all attempts of a process to their logs, in batches.

Events that arrive during one round trip form the next batch: one chunk at low load, hundreds at
high load. The first event is sent at once. When more than `_CROWDED` events wait, because Redis has
fallen behind, adjacent text fragments of a job are joined. A call without a reply is sent again
unchanged: the ids of events make that idempotent (lua/jobs/append.lua).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from contract import redis_keys
from contract.cost import prompt_estimate
from contract.errors import LeaseLost, LogFull, NewerVersion, RelayUnavailable
from contract.events import LAST_WORDS, Delta, Event, EventId, LogProb, Reset, to_entry, wire_line
from relay.chance import DICE
from relay.claims import StartedJob
from relay.connection import Connection, ScriptCall
from relay.records import requested
from relay.scripts.jobs import REFUSED, TORN, NewFrames, append, keys_of
from relay.usage.ended_job import usage_of
from relay.usage.job_meter import JobMeter
from relay.webhooks.notices import job_notice
from telemetry.repeated_warnings import RepeatedWarnings

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_BATCH: Final = 256
"""Frames in one script call; it blocks Redis for about 1.5 ms (bench/relay_path.py)."""
_BATCHES: Final = 8
"""Script calls in one round trip."""
_BATCH_BYTES: Final = 2**20
_CROWDED: Final = 2048
_FULL: Final = 4096
"""Events that may wait in a process, shared by the attempts that have any; each may have a few."""
_LEAST_SHARE: Final = 16
_FULL_BYTES: Final = 4 * 2**20
"""Bytes of those events, shared as their number is."""
_LEAST_SHARE_BYTES: Final = 2**16
_ENTRY_BYTES: Final = 2**14
"""A terminal event is alone in its entry if more than this came with it: it is often read alone."""
_HEAD_BYTES: Final = 80
"""What a frame has besides its event, about."""
_SHORT: Final = 512
_MOST_LOGPROBS: Final = 64
"""Tokens of an event that have some."""
_RESEND_CAP_S: Final = 1.0


class AttemptLog:
    """The writing end of a job's log, for one attempt."""

    __slots__ = (
        "_answered", "_has_refused", "_job", "_publisher", "attempt", "channel", "id", "keys",
        "length", "meter", "nonce", "observe", "seq", "size_bytes", "torn", "unsent",
        "unsent_bytes", "until_lost", "unwritten",
    )  # fmt: skip

    def __init__(
        self, publisher: "Publisher", job: StartedJob, observe: Callable[[Event], None] | None
    ) -> None:
        """Append after `started`, which `Claims.start` has written; `observe` gets each event."""
        self._publisher = publisher
        self._job = job
        self.id = job.record.id
        self.keys = keys_of(self.id)
        self.channel = redis_keys.channel(self.id)
        self.attempt = job.attempt
        self.nonce = job.nonce
        self.length = job.length
        self.seq = 1
        self.until_lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the job is not this attempt's any more: its run should be cancelled."""
        self._has_refused = False
        self.torn = False
        """Whether Redis lost events that it had accepted; the job is still this attempt's."""
        self.unwritten = 0
        self._answered: asyncio.Future[None] | None = None
        self.size_bytes = 0
        """Of the job's log, with what is on its way to it."""
        self.unsent = 0
        """Events that are not on their way yet."""
        self.unsent_bytes = 0
        """Their size, about."""
        self.observe = observe
        self.meter = JobMeter()
        """What this attempt has used."""
        self.meter.begin(job.record.started_at or publisher.now)

    def append(self, event: Event) -> None:
        """Queue an event for the log; raises LeaseLost once Redis has refused an earlier one.

        Raises LogFull for one that would make the log longer than FLEET_LOG_CAP_BYTES, unless it
        ends the log.
        """
        delta = event if isinstance(event, Delta) else None
        if delta is not None and delta.logprobs and len(delta.logprobs) > _MOST_LOGPROBS:
            self._append_parts(delta, delta.logprobs)
            return
        if self.lost:
            raise LeaseLost(f"job {self.id} belongs to another attempt")
        size_bytes, cap = _HEAD_BYTES + _size_of(event), self._publisher.cap_bytes
        if self.size_bytes + self.unsent_bytes + size_bytes > cap and event.type not in LAST_WORDS:
            raise LogFull(f"the answer is longer than FLEET_LOG_CAP_BYTES ({cap})")
        self._publisher.waiting_attempts += not self.unwritten
        self.unwritten += 1
        self.unsent += 1
        self.unsent_bytes += size_bytes
        self.meter.add(event)
        if delta is not None:
            self._has_refused = self._has_refused or bool(delta.refusal)
        elif isinstance(event, Reset):
            self._has_refused = False
        if self.observe is not None:
            self.observe(event)
        self._publisher.put(self, event)

    def _append_parts(self, event: Delta, logprobs: tuple[LogProb, ...]) -> None:
        """Append a fragment, and others with the rest of its log probabilities.

        Readers decode an event in one go, and a token may have twenty of them.
        """
        self.append(event.model_copy(update={"logprobs": logprobs[:_MOST_LOGPROBS]}))
        for at in range(_MOST_LOGPROBS, len(logprobs), _MOST_LOGPROBS):
            self.append(Delta(logprobs=logprobs[at : at + _MOST_LOGPROBS]))

    def usage(self, status: str, now: float) -> bytes:
        """What the ledger gets with the terminal event; `now` is unix seconds by Redis's clock."""
        self.meter.end(now)
        return usage_of(self._job.record, status, self.meter.counts(self._prompt_estimate))

    @property
    def retention_s(self) -> str:
        """How long its texts are kept after its end, as the script takes it."""
        seconds = self._job.record.retention_s
        return "" if seconds is None else str(seconds)

    def notice(self, last: Event) -> bytes:
        """What webhooks are told with this terminal event; empty: nothing."""
        return job_notice(self._job.record, last, has_refused=self._has_refused)

    def _prompt_estimate(self) -> int:
        try:
            return prompt_estimate(requested(self._job.request))
        except NewerVersion:
            return 0

    @property
    def lost(self) -> bool:
        """Whether the job belongs to another attempt, or to none."""
        return self.until_lost.done()

    def mark_lost(self) -> None:
        """Let `until_lost` be done; a second call changes nothing."""
        if not self.until_lost.done():
            self.until_lost.set_result(None)
            self.on_answer()

    def on_answer(self, events: int = 0) -> None:
        """Note that so many events are in the log, or refused; those who wait look again."""
        self.unwritten -= events
        if events and not self.unwritten:
            self._publisher.waiting_attempts -= 1
        if self._answered is not None:
            self._answered.set_result(None)
            self._answered = None

    def on_sent(self, line: bytes) -> None:
        """Note that the next event goes to the log as this line."""
        self.unsent -= 1
        self.unsent_bytes = max(0, self.unsent_bytes - len(line)) if self.unsent else 0

    def on_joined(self) -> None:
        """Note that two unsent events have become one."""
        self.unwritten -= 1
        self.unsent -= 1

    async def flush(self) -> None:
        """Wait until every appended event is in the log; raises LeaseLost if one was refused."""
        while self.unwritten and not self.lost:
            await self._next_answer()
        if self.lost:
            raise LeaseLost(f"job {self.id} belongs to another attempt")

    @property
    def whole_bytes(self) -> int:
        """Of the job's log, with what waits to be written; about."""
        return self.size_bytes + self.unsent_bytes

    @property
    def must_wait(self) -> bool:
        """Whether so much is unwritten that a slow Redis should slow the backend's stream."""
        if self.unwritten > _LEAST_SHARE and self.unwritten > self._publisher.share:
            return True
        is_large = self.unsent_bytes > _LEAST_SHARE_BYTES
        return is_large and self.unsent_bytes > self._publisher.share_bytes

    async def wait_for_room(self) -> None:
        """Wait while more of this attempt is unwritten than its share of `_FULL`, or of the bytes.

        No attempt waits for another one: each gets on by itself, however many there are.
        """
        while self.must_wait and not self.lost:
            await self._next_answer()

    async def _next_answer(self) -> None:
        if self._answered is None:
            self._answered = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._answered)


class Group(NamedTuple):
    """The frames of one attempt in a batch: one entry of its log."""

    attempt_log: AttemptLog
    events: int
    frames: NewFrames


Batch = list[Group]


class Publisher:
    """Sends the events of all attempt logs of a process; its `write` must run as a task."""

    def __init__(self, connection: Connection) -> None:
        """Nothing is written before `write` runs."""
        self._connection = connection
        self.cap_bytes = connection.settings.log_cap_bytes
        """Of a job's log."""
        self._pending: list[tuple[AttemptLog, Event]] = []
        self._wake = asyncio.Event()
        self.waiting_attempts = 0
        """Attempts that have unwritten events."""

    def attempt_log(
        self, job: StartedJob, observe: Callable[[Event], None] | None = None
    ) -> AttemptLog:
        """The log of an attempt that `Claims.start` has started; `observe` gets each event."""
        return AttemptLog(self, job, observe)

    @property
    def waiting(self) -> int:
        """Events that are not sent yet."""
        return len(self._pending)

    @property
    def now(self) -> float:
        """Unix seconds by Redis's clock."""
        return self._connection.now()

    def put(self, attempt_log: AttemptLog, event: Event) -> None:
        """Queue an event for the next script call."""
        self._pending.append((attempt_log, event))
        self._wake.set()

    @property
    def share(self) -> int:
        """Events of one attempt that may wait, while so many attempts have some."""
        return max(_LEAST_SHARE, _FULL // (self.waiting_attempts or 1))

    @property
    def share_bytes(self) -> int:
        """Bytes of one attempt's events that may wait, while so many attempts have some."""
        return max(_LEAST_SHARE_BYTES, _FULL_BYTES // (self.waiting_attempts or 1))

    async def write(self) -> None:
        """Send batches until cancelled; retries while Redis is unavailable."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                if len(self._pending) > _CROWDED:
                    self._pending = joined(self._pending)
                await self._send(self._next_batches())

    def _next_batches(self) -> list[Batch]:
        batches: list[Batch] = []
        size_bytes = 0
        while self._pending and len(batches) < _BATCHES and size_bytes < _BATCH_BYTES:
            batches.append(self._next_batch())
            size_bytes += sum(len(group.frames.data) for group in batches[-1])
        return batches

    def _next_batch(self) -> Batch:
        at = self._connection.now()
        now = b"%.3f" % at
        waiting: dict[AttemptLog, list[bytes]] = {}
        last: dict[AttemptLog, Event] = {}
        taken = size_bytes = 0
        for attempt_log, event in self._pending:
            if taken == _BATCH or size_bytes > _BATCH_BYTES:
                break
            lines = waiting.get(attempt_log)
            if lines and event.type in LAST_WORDS and sum(map(len, lines)) > _ENTRY_BYTES:
                break
            taken += 1
            attempt_log.seq += 1
            line = wire_line(EventId(attempt_log.attempt, attempt_log.seq), now, event)
            size_bytes += len(line)
            attempt_log.on_sent(line)
            if lines is None:
                waiting[attempt_log] = [line]
            else:
                lines.append(line)
            last[attempt_log] = event
        del self._pending[:taken]
        return [_group(each, lines, last[each], at) for each, lines in waiting.items()]

    async def _send(self, batches: list[Batch]) -> None:
        settings = self._connection.settings
        ttl_s, grace_s = int(settings.log_ttl_s), int(settings.retention_grace_s)
        calls = [
            append([(group.attempt_log.keys, group.frames) for group in batch], ttl_s, grace_s)
            for batch in batches
        ]
        waiting = sum(group.events for batch in batches for group in batch)
        answers = await self._until_answered(calls, events=waiting)
        for batch, answer in zip(batches, answers, strict=True):
            self._connection.observer.on_published(sum(group.events for group in batch))
            for (attempt_log, events, _), outcome in zip(batch, answer, strict=True):
                if outcome in (REFUSED, TORN):
                    attempt_log.torn = attempt_log.torn or (
                        outcome == TORN and not attempt_log.lost
                    )
                    attempt_log.mark_lost()
                attempt_log.on_answer(events)

    async def _until_answered(
        self, calls: list[ScriptCall[list[int]]], *, events: int
    ) -> list[list[int]]:
        tries = 0
        while True:
            try:
                return await self._connection.calls(calls)
            except RelayUnavailable as error:
                tries += 1
                _repeated.warn(
                    "%d events wait for Redis (%d. try): %s", events, tries, error, about="events"
                )
                await asyncio.sleep(DICE.uniform(0.05, min(_RESEND_CAP_S, 0.1 * 2**tries)))


def _size_of(event: Event) -> int:
    """Bytes of an event's JSON; of a short text, those of the text, about."""
    if isinstance(event, Delta):
        text = event.content or event.thinking or ""
        if len(text) <= _SHORT and not (event.tool_calls or event.logprobs or event.provider_meta):
            return len(text)
    return len(event.__pydantic_serializer__.to_json(event, exclude_none=not event.shows_null))


def _group(attempt_log: AttemptLog, lines: list[bytes], last: Event, now: float) -> Group:
    data = to_entry(lines)
    attempt_log.size_bytes += len(data)
    length = attempt_log.length
    attempt_log.length += 1
    status = last.type if last.type in LAST_WORDS else ""
    usage = attempt_log.usage(status, now) if status else b""
    last_id = f"{attempt_log.attempt}-{attempt_log.seq}"
    return Group(
        attempt_log,
        len(lines),
        NewFrames(
            attempt_log.id,
            attempt_log.channel,
            attempt_log.nonce,
            length,
            last_id,
            data,
            status,
            usage,
            attempt_log.notice(last) if status else b"",
            attempt_log.retention_s if status else "",
        ),
    )


def joined(pending: list[tuple[AttemptLog, Event]]) -> list[tuple[AttemptLog, Event]]:
    """Join adjacent text fragments of each attempt; the order within an attempt is kept."""
    runs: list[tuple[AttemptLog, list[Event]]] = []
    last: dict[AttemptLog, list[Event]] = {}
    for attempt_log, event in pending:
        run = last.get(attempt_log)
        if run is not None and _continues(run[-1], event):
            run.append(event)
            attempt_log.on_joined()
        else:
            last[attempt_log] = run = [event]
            runs.append((attempt_log, run))
    return [
        (attempt_log, run[0] if len(run) == 1 else _whole([e for e in run if isinstance(e, Delta)]))
        for attempt_log, run in runs
    ]


def _continues(before: Event, event: Event) -> bool:
    """Whether two events are fragments of the same text, or of two at once.

    Those with log probabilities stay apart: they are many small objects, which readers make one
    after the other, and of a megabyte of them in one event nobody could make a part.
    """
    if not (isinstance(before, Delta) and isinstance(event, Delta)):
        return False
    if event.tool_calls or event.refusal or event.provider_meta or event.logprobs:
        return False
    if before.tool_calls or before.refusal or before.provider_meta or before.logprobs:
        return False
    return (before.thinking is None) == (event.thinking is None) and (
        (before.content is None) == (event.content is None)
    )


def _whole(run: Sequence[Delta]) -> Delta:
    """One fragment of several that continue each other."""
    first = run[0]
    return Delta(
        content=None if first.content is None else "".join(each.content or "" for each in run),
        thinking=None if first.thinking is None else "".join(each.thinking or "" for each in run),
        usage=next((each.usage for each in reversed(run) if each.usage), None),
    )
