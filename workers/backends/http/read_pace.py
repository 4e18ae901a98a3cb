"""How often the streams of a client are read, when they are very many.

A thousand streams of 20 tokens a second fill two cores, and where each token is a read of its own,
every stream and every new request waits for all others. So many are read at intervals, and what has
come meanwhile is published together: gaps are shorter, though it saves no CPU (bench/NOTES.md).
"""

import asyncio
from typing import Final

_READS_PER_S: Final = 10_000
"""Of all streams of a client, about."""
_FEW: Final = 200
"""Streams that are read as their tokens come."""
_LONGEST_S: Final = 0.1


class ReadPace:
    """The interval between two reads of a stream, by the number of streams that have begun."""

    __slots__ = ("streams",)

    def __init__(self) -> None:
        """No stream."""
        self.streams = 0

    @property
    def interval_s(self) -> float:
        """Seconds from a read of a stream to its next one, at least; 0 for few streams."""
        if self.streams <= _FEW:
            return 0.0
        return min(_LONGEST_S, self.streams / _READS_PER_S)

    async def next_read(self, read_at: float) -> float:
        """Wait for the next read of a stream that was last read then; returns when that is.

        Both are of the loop's clock.
        """
        now = asyncio.get_running_loop().time
        if (wait_s := read_at + self.interval_s - now()) > 0:
            await asyncio.sleep(wait_s)
        return now()
