"""Reads and follows a job's log: a Redis stream of events, and a channel with the same events.

Invariants, enforced in Redis: ids only increase (XADD refuses others); taking a job from its holder
first writes `<attempt + 1>-0`, after which the old holder cannot append; nothing is appended after
the terminal event. One script appends and publishes an event, so the channel has the log's events
in the log's order. Each script may be run twice.
"""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Final, Literal

from contract import redis_keys
from contract.errors import JobNotFound
from contract.events import (
    BEGINNING,
    LAST_WORDS,
    Cursor,
    EventId,
    Frame,
    LogReset,
    Started,
)
from contract.jobs import not_kept
from relay.compaction.follower_turns import in_turn
from relay.compaction.large_frames import MOST_BYTES, LargeFrames
from relay.compaction.log_reader import frames_of, read_log, size_of, until_end
from relay.connection import Connection
from relay.subscriber import Subscriber, Subscription, UpcomingJob


async def where(
    connection: Connection, job_id: str, cursor: Cursor, large: LargeFrames
) -> Literal["ended", "lost", "open"]:
    """Compare a cursor with a log: it is the end, it is not in the log, or events may follow it.

    Raises JobNotFound, RelayUnavailable.
    """
    seen, log = cursor.id, redis_keys.log(job_id)
    started = EventId(seen.attempt, 1)
    async with large.few_reads():
        found = await connection.pipeline(
            [
                ("XREVRANGE", log, "+", "-", "COUNT", 1),
                ("XRANGE", log, str(seen), "+", "COUNT", 1),
                ("XRANGE", log, str(started), "+", "COUNT", 1),
            ]
        )
        if not found[0]:
            raise await _no_log(connection, job_id)
        damage: list[str] = []
        async with large.decoding(sum(map(size_of, found))):
            read = [frames_of(each, on_damage=damage.append) for each in found]
        is_off = bool(damage) or not read[0]
        is_off = is_off or await _is_past_end(connection, job_id, seen, read[0][-1])
    if is_off:
        whole = [frame async for frames in read_log(connection, job_id) for frame in frames]
        read = [whole] * 3
    return _place(cursor, *read[1:])


async def _is_past_end(connection: Connection, job_id: str, seen: EventId, last: Frame) -> bool:
    """Whether a cursor is the last event of a log, and behind the terminal one.

    Another program may have put it there, and an older version of the fleet told of it.
    """
    if last.id != seen or last.is_last:
        return False
    (status,) = await connection.replies([("HGET", redis_keys.record(job_id), "status")])
    return (status or b"").decode(errors="replace") in LAST_WORDS


def _place(
    cursor: Cursor, there: Sequence[Frame], begun: Sequence[Frame]
) -> Literal["ended", "lost", "open"]:
    """Where a cursor is, by frames at the cursor and at its attempt's beginning."""
    (seen, nonce), started = cursor, EventId(cursor.id.attempt, 1)
    if seen != BEGINNING:
        is_there = any(frame.id == seen for frame in there)
        first = [frame for frame in begun if frame.id == started]
        if not is_there or (nonce and seen >= started and nonce_in(first) != nonce):
            return "lost"
    is_end = any(frame.is_last and frame.id == seen for frame in there)
    return "ended" if is_end else "open"


async def _no_log(connection: Connection, job_id: str) -> JobNotFound:
    if await connection.command("HGET", redis_keys.record(job_id), "retention_s") == b"0":
        return not_kept(job_id)
    return JobNotFound(f"there is no job {job_id[:64]}, or its log has expired")


def nonce_in(frames: Sequence[Frame]) -> str | None:
    """The nonce of the last attempt that these frames begin."""
    for frame in reversed(frames):
        if frame.type == "started" and isinstance(event := frame.event, Started):
            return event.nonce
    return None


_START: Final = Cursor()
_BEFORE_FIRST: Final = EventId(1, -1)
"""The cursor whose next event is the first of every log."""
_LOST: Final = "the log does not hold this cursor (any more): Redis came back with a shorter past"


class Log:
    """Reads logs, and follows them while they grow."""

    def __init__(
        self,
        connection: Connection,
        subscriber: Subscriber,
        on_end: Callable[[str], None] = lambda _job_id: None,
    ) -> None:
        """Read through the connection; receive new events through the subscriber.

        `on_end` is called with the id of each job whose terminal event a follower gets.
        """
        self._connection = connection
        self._subscriber = subscriber
        self._on_end = on_end
        self._large = LargeFrames(lambda: subscriber.losses)

    async def read(
        self,
        job_id: str,
        after: EventId = BEGINNING,
        on_damage: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[list[Frame], None]:
        """Yield what the log has after the cursor, page by page; raises RelayUnavailable.

        `on_damage` is called if something was passed over that no process of the fleet wrote.
        """
        async with aclosing(
            read_log(self._connection, job_id, after, on_damage, self._large)
        ) as pages:
            async for frames in pages:
                yield frames

    async def is_at_its_end(self, job_id: str, cursor: Cursor) -> bool:
        """Whether the cursor is the terminal event; raises JobNotFound, RelayUnavailable."""
        return await self._where(job_id, cursor) == "ended"

    async def _where(self, job_id: str, cursor: Cursor) -> Literal["ended", "lost", "open"]:
        return await where(self._connection, job_id, cursor, self._large)

    async def follow(
        self, job_id: str, after: Cursor = _START, *, idle_s: float = 15.0
    ) -> AsyncGenerator[list[Frame], None]:
        """Yield all events after the cursor as they are written, up to the terminal event.

        Each list has all new events, in order, each event once; it is empty after
        `idle_s` of silence. A cursor that the log does not hold, or that belongs to another
        attempt of that number, is answered with `log_reset` and the whole log. Raises
        JobNotFound, RelayUnavailable.
        """
        cursor, nonce = after
        async with self._subscriber.subscribe(redis_keys.channel(job_id)) as subscription:
            while True:
                subscription.catch_up()
                if cursor != BEGINNING:
                    position = await self._where(job_id, Cursor(cursor, nonce))
                    if position == "ended":
                        return
                    if position == "lost":
                        self._large.forget(job_id)
                        yield [Frame.of(None, self._connection.now(), LogReset(reason=_LOST))]
                        cursor, nonce = BEGINNING, None
                async with aclosing(
                    self._stored_then_live(job_id, subscription, cursor, idle_s)
                ) as pages:
                    async for frames in pages:
                        is_end = bool(frames) and frames[-1].is_last
                        if is_end:
                            self._on_end(job_id)
                        yield frames
                        if is_end:
                            return
                        cursor = frames[-1].id or cursor if frames else cursor
                        nonce = nonce_in(frames) or nonce

    async def follow_expected(
        self, job: UpcomingJob, *, idle_s: float = 15.0
    ) -> AsyncGenerator[list[Frame], None]:
        """Yield all events of a job that this process has enqueued, as `follow` does.

        The log is read only if an event was missed. Closes `job`. Raises JobNotFound,
        RelayUnavailable.
        """
        cursor, nonce = _BEFORE_FIRST, None
        subscription = job.subscription
        try:
            while await subscription.wait(idle_s) and not await self._is_behind(subscription):
                for frames in self._received(job.job_id, subscription, cursor):
                    cursor, nonce = frames[-1].id or cursor, nonce_in(frames) or nonce
                    if frames[-1].is_last:
                        self._on_end(job.job_id)
                    yield frames
                    if frames[-1].is_last:
                        return
            if not subscription.behind:
                yield []
        finally:
            job.close()
        after = _START if cursor == _BEFORE_FIRST else Cursor(cursor, nonce)
        async with aclosing(self.follow(job.job_id, after, idle_s=idle_s)) as pages:
            async for frames in pages:
                yield frames

    async def _stored_then_live(
        self, job_id: str, subscription: Subscription, cursor: EventId, idle_s: float
    ) -> AsyncGenerator[list[Frame], None]:
        async with aclosing(self.read(job_id, cursor)) as pages:
            async for frames in pages:
                yield frames
                cursor = frames[-1].id or cursor
        if cursor == BEGINNING:
            await self._where(job_id, Cursor(cursor))  # raises if there is no such job
        while await subscription.wait(idle_s):
            if await self._is_behind(subscription):
                return
            for frames in self._received(job_id, subscription, cursor):
                cursor = frames[-1].id or cursor
                yield frames
        yield []

    @staticmethod
    async def _is_behind(subscription: Subscription) -> bool:
        """Whether the log is to be read; of followers with much to decode few go on at once."""
        if subscription.size_bytes > MOST_BYTES:
            await in_turn()
        return subscription.behind

    def _received(
        self, job_id: str, subscription: Subscription, cursor: EventId
    ) -> Iterator[list[Frame]]:
        """The buffered events after the cursor, as few at a time as a follower may hold.

        Falls behind where one is missing, or the rest of many is not kept any more.
        """
        is_large = subscription.size_bytes > MOST_BYTES
        frames = self._following(subscription, cursor)
        until = frames[-1].id if frames else None
        if is_large:
            frames = self._large.kept(job_id, cursor, frames)
        while frames:
            cursor = frames[-1].id or cursor
            yield frames
            if cursor == until:
                return
            frames = self._large.after(job_id, cursor)
        if until is not None:
            subscription.fall_behind()

    def _following(self, subscription: Subscription, cursor: EventId) -> list[Frame]:
        """All of them; falls behind where one is missing."""
        frames: list[Frame] = []
        for frame in self._sound(subscription):
            if frame.id is None or frame.id <= cursor:  # received and read from the log
                continue
            # Also at a new attempt: how many events the one before it had is not known.
            if frame.id != (cursor.attempt, cursor.seq + 1):
                subscription.fall_behind()
                break
            cursor = frame.id
            frames.append(frame)
        return until_end(frames)

    def _sound(self, subscription: Subscription) -> list[Frame]:
        """The frames in the buffered messages; falls behind at the first that none of ours sent.

        The log has what it should have been.
        """
        received: list[Frame] = []
        for message in subscription.take():
            try:
                found = self._large.decoded(message)
            except ValueError:
                found = []
            if not found:
                subscription.fall_behind()
                break
            received += found
        return received
