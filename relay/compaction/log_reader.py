"""Reads the log of a job from Redis, page by page, past whatever another program has put there.

Invariants: a reader that meets garbage goes on behind it, and the log of the process names it; the
first terminal event is the end, whatever stands behind it.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final, NamedTuple

from contract import redis_keys
from contract.events import (
    BEGINNING,
    LAST_WORDS,
    Cancelled,
    Done,
    EventId,
    Failed,
    Frame,
    LastWord,
)
from relay.compaction.block import sound_frames
from relay.compaction.large_frames import LargeFrames
from relay.connection import Argument, Connection, Hash, ScriptCall, pairs
from relay.scripts.loader import load

_DAMAGED: Final = "and the event in Redis that told more of it is damaged"
_ENDS: Final[Mapping[bytes | None, LastWord]] = {
    b"done": Done(),
    b"failed": Failed(code="log_damaged", message=f"the job failed, {_DAMAGED}"),
    b"cancelled": Cancelled(by="unknown", reason=f"the job was cancelled, {_DAMAGED}"),
}
"""By the status of a record: what stands for its last event, if that is damaged."""
_PAGE: Final = 128
"""Entries to ask for at most."""
_PAGE_BYTES: Final = 2**16
"""Bytes that a page may have: an entry may be a token, an image, or what a fast backend sent."""


def frames_of(
    entries: Sequence[Any],
    after: EventId = BEGINNING,
    on_damage: Callable[[str], None] = lambda _: None,
) -> list[Frame]:
    """The frames in entries of the stream, without those up to `after`; raises NewerVersion.

    An entry has the id of its last frame: the first one that a read after a cursor returns may
    begin before the cursor. What another program has put between them is passed over, and
    `on_damage` is told of each such entry.
    """
    frames: list[Frame] = []
    read = BEGINNING
    for id, fields in entries:
        found, damage = sound_frames(fields, read, EventId.parse(id.decode()))
        if damage:
            on_damage(f"entry {id.decode()}: {damage}")
        if found:
            read = found[-1].id or read
            frames += found
    return [frame for frame in frames if frame.id is not None and frame.id > after]


def until_end(frames: list[Frame]) -> list[Frame]:
    """The frames up to the first terminal event; all, if there is none."""
    for count, frame in enumerate(frames, 1):
        if frame.type in LAST_WORDS:  # each frame of each follower passes here
            return frames[:count]
    return frames


def size_of(entries: Sequence[Any]) -> int:
    """The bytes of entries of the stream."""
    return sum([len(value) for _, fields in entries for value in fields.values()])


class _Page(NamedTuple):
    """Some entries of a log: of `_PAGE_BYTES` at most, or one."""

    is_last: bool
    """Whether the log has no further one."""
    entries: list[tuple[bytes, Hash]]


def page_after(job_id: str, cursor: EventId) -> ScriptCall[_Page]:
    """Read the next entries of a log after a cursor, few if they are large."""
    args: list[Argument] = [str(cursor), _PAGE, _PAGE_BYTES]
    return ScriptCall(load("logs/page"), [redis_keys.log(job_id)], args, _page)


def _page(reply: tuple[int, list[Any]]) -> _Page:
    is_last, entries = reply
    return _Page(bool(is_last), [(id, pairs(fields)) for id, fields in entries])


async def read_log(
    connection: Connection,
    job_id: str,
    after: EventId = BEGINNING,
    on_damage: Callable[[], None] = lambda: None,
    large: LargeFrames | None = None,
) -> AsyncGenerator[list[Frame], None]:
    """Yield what a log has after the cursor, page by page; raises NewerVersion, RelayUnavailable.

    With `large` a page of many bytes comes in parts: a reader that is held up holds one of them.

    What another program has put there is passed over, and the log of this process names it. If the
    terminal event of a job that has ended cannot be read, one that says as much takes its place.
    """
    damage: list[str] = []
    read, last, is_last, has_ended = after, after, False, False
    while not (is_last or has_ended):
        frames = await large.after_others(job_id, last) if large else []
        if not frames:
            async with large.reading(job_id, last) if large else nullcontext():
                page = await connection.call(page_after(job_id, read))
                is_last, found = page.is_last, await _decoded(page, last, damage.append, large)
                await _look_behind(connection, job_id, found, page, damage.append)
                read = EventId.parse(page.entries[-1][0].decode()) if page.entries else read
                del page  # a follower may take long to read the frames
                frames = large.kept(job_id, last, found) if large else found
            if damage:
                connection.pass_over(redis_keys.log(job_id), ValueError(damage[0]))
                on_damage()
            if len(frames) < len(found):
                is_last, read = False, last
            del found
        if frames:
            has_ended, last = frames[-1].is_last, frames[-1].id or last
            read = max(read, last)
            yield frames
        if is_last and damage and not has_ended:
            end = await _lost_end(connection, job_id, after, read)
            if end is not None:
                yield [Frame.of(EventId(last.attempt or 1, last.seq + 1), *end)]


async def _decoded(
    page: _Page, after: EventId, on_damage: Callable[[str], None], large: LargeFrames | None
) -> list[Frame]:
    """The frames of a page after a cursor, up to the end of the log."""
    async with large.decoding(size_of(page.entries)) if large else nullcontext():
        frames = frames_of(page.entries, after, on_damage)
    ended = until_end(frames)
    if len(ended) < len(frames):
        on_damage(_behind(ended[-1]))
    return ended


async def _look_behind(
    connection: Connection,
    job_id: str,
    frames: Sequence[Frame],
    page: _Page,
    on_damage: Callable[[str], None],
) -> None:
    """Tell of entries behind a page whose frames end with the terminal event."""
    if page.is_last or not frames or not frames[-1].is_last:
        return
    if (await connection.call(page_after(job_id, frames[-1].id or BEGINNING))).entries:
        on_damage(_behind(frames[-1]))


def _behind(end: Frame) -> str:
    return f"something stands behind its end, {end.id} {end.type}"


async def _lost_end(
    connection: Connection, job_id: str, after: EventId, read: EventId
) -> tuple[float, LastWord] | None:
    """What stands for a terminal event that is damaged; None if it is not, or still to come.

    Its time (unix seconds) and the event are by the record, the same at every read.
    """
    log = redis_keys.log(job_id)
    (status, ended_at), there, more = await connection.pipeline(
        [
            ("HMGET", redis_keys.record(job_id), "status", "ended_at"),
            ("XRANGE", log, str(after), "+", "COUNT", 1),
            ("XRANGE", log, f"({read}", "+", "COUNT", 1),
        ]
    )
    # The end came after the log was read, or the reader has it.
    if more or any(frame.is_last and frame.id == after for frame in frames_of(there)):
        return None
    event = _ENDS.get(status)
    return None if event is None else (_seconds(ended_at), event)


def _seconds(text: bytes | None) -> float:
    """A time in a record; 0 for what is none."""
    try:
        seconds = float(text or 0)
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds < 1e12 else 0.0  # noqa: PLR2004 - the year 33658
