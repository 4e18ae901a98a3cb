"""How often the streams of a client are read, when they are very many.

Each read of a stream costs the worker, Redis and the shim far more than each token: a thousand
streams of 20 tokens a second, read token by token, fill two cores. So many streams are read at
intervals, and what has come meanwhile is published together (bench/NOTES.md).
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
