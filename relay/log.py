"""A job's log: how it is begun, added to, handed over, ended, read and followed.

Invariants, all kept by Redis itself: ids only rise (XADD refuses the others); whoever takes a job
from its holder writes `<attempt + 1>-0` first, so that the old holder can never add a word again;
after the last word nothing is added. An event is logged and published in one script, so that the
channel says exactly what the log says, in its order. Each script may be run twice.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final, Literal

from contract import redis_keys
from contract.errors import JobNotFound
from contract.events import BEGINNING, Cursor, EventId, Frame, LogReset, Started
from contract.result import Fold, Result
from relay.connection import Connection
from relay.subscriber import Subscriber, Subscription


async def where(
    connection: Connection, job_id: str, cursor: Cursor
) -> Literal["ended", "lost", "open"]:
    """Whether a cursor is the log's end, is not in the log (any more), or has words after it.

    Raises JobNotFound, RelayUnavailable.
    """
    (seen, nonce), log = cursor, redis_keys.log(job_id)
    started = EventId(seen.attempt, 1)
    last, there, begun = await connection.pipeline(
        [
            ("XREVRANGE", log, "+", "-", "COUNT", 1),
            ("XRANGE", log, str(seen), str(seen)),
            ("XRANGE", log, str(started), str(started)),
        ]
    )
    if not last:
        raise JobNotFound(f"there is no job {job_id[:64]}, or its log has expired")
    if seen != BEGINNING:
        frames = [Frame.from_wire(frame_of(entry)) for entry in begun]
        if not there or (nonce and seen >= started and nonce_in(frames) != nonce):
            return "lost"
    frame = Frame.from_wire(frame_of(last[0]))
    return "ended" if frame.is_last and frame.id == seen else "open"


def nonce_in(frames: Sequence[Frame]) -> str | None:
    """The nonce of the last attempt that these frames begin."""
    for frame in reversed(frames):
        if frame.type == "started" and isinstance(event := frame.event, Started):
            return event.nonce
    return None


def frame_of(entry: Any) -> bytes:
    """The frame in an entry of a stream."""
    frame: bytes = entry[1][b"f"]
    return frame


async def live(
    ear: Subscription, cursor: EventId, idle_s: float
) -> AsyncGenerator[list[Frame], None]:
    """What is heard after the cursor; ends when something was missed, or to look after silence."""
    while True:
        if not await ear.wait(idle_s):
            yield []
            return
        if ear.behind:
            return
        frames: list[Frame] = []
        while ear.heard:
            frame = Frame.from_wire(ear.heard.popleft())
            if frame.id is None or frame.id <= cursor:  # heard and read
                continue
            # Where a new attempt begins, nobody knows how far the one before it had come.
            if frame.id != (cursor.attempt, cursor.seq + 1):
                ear.fall_behind()
                break
            cursor = frame.id
            frames.append(frame)
        if frames:
            yield frames


_START: Final = Cursor()
_LOST: Final = "the log does not hold this cursor (any more): Redis came back with a shorter past"
_PAGE: Final = 256
_HEAVY_PAGE: Final = 8
"""Entries to ask for at a time after a page of many bytes: vectors and images are large."""
_HEAVY_BYTES: Final = 2**20


class Log:
    """Reads and follows logs."""

    def __init__(self, connection: Connection, reader: Subscriber) -> None:
        """Read through the connection; hear what is new through the reader."""
        self._connection = connection
        self._reader = reader

    async def read(
        self, job_id: str, after: EventId = BEGINNING
    ) -> AsyncGenerator[list[Frame], None]:
        """What the log holds now after the cursor, a page at a time; raises RelayUnavailable."""
        cursor, count = after, _HEAVY_PAGE
        while True:
            entries: list[Any] = await self._connection.command(
                "XRANGE", redis_keys.log(job_id), f"({cursor}", "+", "COUNT", count
            )
            frames = [Frame.from_wire(frame_of(entry)) for entry in entries]
            if frames:
                yield frames
                cursor = frames[-1].id or cursor
            if len(frames) < count:
                return
            size_bytes = sum(len(frame.body) for frame in frames)
            count = _HEAVY_PAGE if size_bytes * _PAGE > _HEAVY_BYTES * count else _PAGE

    async def result(self, job_id: str) -> Result:
        """The answer so far; raises RelayUnavailable."""
        return (await self.fold(job_id)).result

    async def fold(self, job_id: str) -> Fold:
        """Everything said so far, put together; raises RelayUnavailable."""
        answer = Fold()
        async with aclosing(self.read(job_id)) as pages:
            async for frames in pages:
                for frame in frames:
                    answer.add(frame.event)
        return answer

    async def is_at_its_end(self, job_id: str, cursor: Cursor) -> bool:
        """Whether nothing will ever come after the cursor; raises JobNotFound, RelayUnavailable."""
        return await where(self._connection, job_id, cursor) == "ended"

    async def follow(
        self, job_id: str, after: Cursor = _START, *, idle_s: float = 15.0
    ) -> AsyncGenerator[list[Frame], None]:
        """Everything after the cursor, as it comes, until after the last word.

        Yields all that is new at each wake, in order, each event once; an empty list after
        `idle_s` of silence. A cursor that the log does not hold, or that belongs to another
        attempt of that number, is answered with `log_reset` and the whole log. Raises
        JobNotFound, RelayUnavailable.
        """
        cursor, nonce = after
        async with self._reader.hear(redis_keys.channel(job_id)) as ear:
            while True:
                ear.catch_up()
                standing = await where(self._connection, job_id, Cursor(cursor, nonce))
                if standing == "ended":
                    return
                if standing == "lost":
                    yield [Frame.of(None, self._connection.now(), LogReset(reason=_LOST))]
                    cursor, nonce = BEGINNING, None
                async with aclosing(self._stored_then_live(job_id, ear, cursor, idle_s)) as pages:
                    async for frames in pages:
                        yield frames
                        cursor = frames[-1].id or cursor if frames else cursor
                        nonce = nonce_in(frames) or nonce
                        if frames and frames[-1].is_last:
                            return

    async def _stored_then_live(
        self, job_id: str, ear: Subscription, cursor: EventId, idle_s: float
    ) -> AsyncGenerator[list[Frame], None]:
        async with aclosing(self.read(job_id, cursor)) as pages:
            async for frames in pages:
                yield frames
                cursor = frames[-1].id or cursor
        async with aclosing(live(ear, cursor, idle_s)) as news:
            async for frames in news:
                yield frames
