"""The batched writer: everything that all jobs of a worker say goes to Redis in one call a tick.

While one call is on its way the next batch gathers, so a batch is what was said in one round trip:
one chunk when little is said, hundreds when much is. The first word never waits. Only when more
than `_CROWDED` wait, because Redis has fallen behind, are neighbouring fragments of a job joined.
A call that got no answer is sent again as it was: ids make that harmless (lua/jobs/append.lua).
"""

import asyncio
import logging
import random
from typing import Final

from contract import redis_keys
from contract.errors import LeaseLost, RelayUnavailable
from contract.events import (
    LAST_WORDS,
    Delta,
    Event,
    EventId,
    Frame,
)
from relay.connection import Connection, ScriptCall
from relay.queue import StartedJob
from relay.scripts.jobs import REFUSED, TORN, NewFrame, append, log_and_record

_log = logging.getLogger(__name__)

_BATCH: Final = 256
"""Frames in one script call; it blocks Redis for about 1.5 ms (bench/relay_path.py)."""
_BATCHES: Final = 8
"""Script calls in one round trip."""
_BATCH_BYTES: Final = 2**20
_CROWDED: Final = 2048
_FULL: Final = 4096
_RESEND_CAP_S: Final = 1.0


class AttemptLog:
    """What one attempt of one job says: the writing end of its log."""

    __slots__ = (
        "_writer", "attempt", "channel", "id", "keys", "length", "nonce", "seq",
        "size_bytes", "torn", "until_lost", "unwritten",
    )  # fmt: skip

    def __init__(self, writer: "Publisher", claim: StartedJob) -> None:
        """Speak for an attempt, from after `started`, which the claim has written."""
        self._writer = writer
        self.id = claim.record.id
        self.keys = log_and_record(self.id)
        self.channel = redis_keys.channel(self.id)
        self.attempt = claim.attempt
        self.nonce = claim.record.nonce or ""
        self.length = claim.length
        self.seq = 1
        self.until_lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the job is not this attempt's any more: its run should be cancelled."""
        self.torn = False
        """Whether Redis forgot a part of what was said; the job is still this attempt's."""
        self.unwritten = 0
        self.size_bytes = 0

    def say(self, event: Event) -> None:
        """Add an event to the log, soon; raises LeaseLost once a word of ours was refused."""
        if self.lost:
            raise LeaseLost(f"job {self.id} is not ours any more")
        self.unwritten += 1
        self._writer.put(self, event)

    @property
    def lost(self) -> bool:
        """Whether the job belongs to another attempt, or to none."""
        return self.until_lost.done()

    def lose(self) -> None:
        """Let `until_lost` be done; a second call changes nothing."""
        if not self.until_lost.done():
            self.until_lost.set_result(None)

    async def written(self) -> None:
        """Wait until all that was said stands in the log; raises LeaseLost if it never will."""
        while self.unwritten and not self.lost:
            await self._writer.next_flush()
        if self.lost:
            raise LeaseLost(f"job {self.id} is not ours any more")

    @property
    def must_wait(self) -> bool:
        """Whether so much is unwritten that a slow Redis should slow the backend's stream."""
        return self._writer.is_full

    async def room(self) -> None:
        """Wait while too much is unwritten."""
        while self._writer.is_full and not self.lost:
            await self._writer.next_flush()


Batch = list[tuple[AttemptLog, NewFrame]]


class Publisher:
    """Writes what all voices of a process say; run `write` beside it."""

    def __init__(self, connection: Connection) -> None:
        """Nothing is written before `write` runs."""
        self._connection = connection
        self._pending: list[tuple[AttemptLog, Event]] = []
        self._wake = asyncio.Event()
        self._flushed: asyncio.Future[None] | None = None

    def voice(self, claim: StartedJob) -> AttemptLog:
        """Begin to speak for an attempt."""
        return AttemptLog(self, claim)

    def put(self, voice: AttemptLog, event: Event) -> None:
        """Queue an event for the next call."""
        self._pending.append((voice, event))
        self._wake.set()

    @property
    def is_full(self) -> bool:
        """Whether speakers should wait."""
        return len(self._pending) > _FULL

    async def next_flush(self) -> None:
        """Wait for the next answer of Redis, good or bad."""
        if self._flushed is None:
            self._flushed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._flushed)

    async def write(self) -> None:
        """Write until cancelled."""
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
            size_bytes += sum(len(entry[3]) for _, entry in batches[-1])
        return batches

    def _next_batch(self) -> Batch:
        now = self._connection.now()
        batch: Batch = []
        taken = size_bytes = 0
        for voice, event in self._pending:
            if taken == _BATCH or size_bytes > _BATCH_BYTES:
                break
            taken += 1
            entry = _entry(voice, event, now)
            size_bytes += len(entry[3])
            batch.append((voice, entry))
        del self._pending[:taken]
        return batch

    async def _send(self, batches: list[Batch]) -> None:
        ttl_s = int(self._connection.settings.log_ttl_s)
        calls = [
            append([(voice.keys, entry) for voice, entry in batch], ttl_s) for batch in batches
        ]
        answers = await self._until_answered(calls, events=sum(map(len, batches)))
        for batch, answer in zip(batches, answers, strict=True):
            for (voice, _), stands in zip(batch, answer, strict=True):
                voice.unwritten -= 1
                if stands in (REFUSED, TORN):
                    voice.torn = voice.torn or (stands == TORN and not voice.lost)
                    voice.lose()
        if self._flushed is not None:
            self._flushed.set_result(None)
            self._flushed = None

    async def _until_answered(
        self, calls: list[ScriptCall[list[int]]], *, events: int
    ) -> list[list[int]]:
        tries = 0
        while True:
            try:
                return await self._connection.calls(calls)
            except RelayUnavailable as error:
                tries += 1
                _log.warning("%d events wait for Redis (%d. try): %s", events, tries, error)
                await asyncio.sleep(random.uniform(0.05, min(_RESEND_CAP_S, 0.1 * 2**tries)))  # noqa: S311 - jitter


def _entry(voice: AttemptLog, event: Event, now: float) -> NewFrame:
    voice.seq += 1
    frame = Frame.of(EventId(voice.attempt, voice.seq), now, event).to_wire()
    voice.size_bytes += len(frame)
    status = event.type if event.type in LAST_WORDS else ""
    entry = (voice.channel, voice.nonce, voice.length, frame, status)
    voice.length += 1
    return entry


def joined(pending: list[tuple[AttemptLog, Event]]) -> list[tuple[AttemptLog, Event]]:
    """Join neighbouring text fragments of each voice; order within a voice stays as it was."""
    kept: list[tuple[AttemptLog, Event]] = []
    last: dict[AttemptLog, int] = {}
    for voice, event in pending:
        at = last.get(voice)
        before = kept[at][1] if at is not None else None
        if at is not None and (both := _both(before, event)) is not None:
            kept[at] = (voice, both)
            voice.unwritten -= 1
        else:
            last[voice] = len(kept)
            kept.append((voice, event))
    return kept


def _both(before: Event | None, event: Event) -> Delta | None:
    if not (isinstance(before, Delta) and isinstance(event, Delta)):
        return None
    if any(said.tool_calls or said.refusal or said.provider_meta for said in (before, event)):
        return None
    if (before.thinking is None) != (event.thinking is None):
        return None
    if (before.content is None) != (event.content is None):
        return None
    return Delta(
        content=None if before.content is None else before.content + (event.content or ""),
        thinking=None if before.thinking is None else before.thinking + (event.thinking or ""),
        logprobs=(*(before.logprobs or ()), *(event.logprobs or ())) or None,
    )
