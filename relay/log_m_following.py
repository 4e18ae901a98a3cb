"""Where a follower is in a log, and what it hears live; log.py puts the two together."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal

from contract import redis_keys
from contract.errors import JobNotFound
from contract.events import BEGINNING, EventId, Started
from contract.events_m_cursor import Cursor
from contract.events_m_frames import Frame
from relay.connection import Connection
from relay.subscriber import Ear


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


async def live(ear: Ear, cursor: EventId, idle_s: float) -> AsyncGenerator[list[Frame], None]:
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
