"""How many bytes of large bodies a shim holds at once: further requests wait their turn.

A body is read whole, then parsed, and takes up to four times its size until its job is enqueued.
Without a bound, forty bodies of 24 MB took 2.5 GB. Room is taken for a whole body before the most
of it is read, so that no two half-read ones wait for each other. One key has half of the room at
most: the large bodies of one tenant do not keep those of others out.
"""

import asyncio
from collections import Counter, deque
from typing import Final, NamedTuple

WAIT_S: Final = 10.0
"""For room; then the request is refused."""


class _Waiting(NamedTuple):
    size_bytes: int
    holder: str
    is_granted: asyncio.Future[None]


class BodyBudget:
    """Hands out room for large bodies, in the order in which it is asked for."""

    def __init__(self, most_bytes: int) -> None:
        """All of it is free; one body alone may be larger."""
        self._most_bytes = most_bytes
        self._held: Counter[str] = Counter()
        self._waiting: deque[_Waiting] = deque()

    @property
    def held_bytes(self) -> int:
        """What is handed out."""
        return self._held.total()

    async def take(self, size_bytes: int, holder: str) -> None:
        """Wait for room for a body of a key (empty: of nobody); `give_back` must follow.

        Raises TimeoutError after `WAIT_S`.
        """
        if not self._waiting and self._has_room(size_bytes, holder):
            self._held[holder] += size_bytes
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(size_bytes, holder, granted)
        self._waiting.append(waiting)
        self._grant()
        try:
            async with asyncio.timeout(WAIT_S):
                await granted
        except BaseException:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif granted.done() and not granted.cancelled():
                self.give_back(size_bytes, holder)
            raise

    def give_back(self, size_bytes: int, holder: str) -> None:
        """Return room, to those who wait for it."""
        self._held[holder] -= size_bytes
        if not self._held[holder]:
            del self._held[holder]
        self._grant()

    def _grant(self) -> None:
        """Hand room to those who wait; who waits for his own share only is passed over."""
        for each in tuple(self._waiting):
            if not self._has_share(each.size_bytes, each.holder):
                continue
            if not self._has_room(each.size_bytes, each.holder):
                return
            if not each.is_granted.done():  # else it has left, and removes itself
                self._waiting.remove(each)
                self._held[each.holder] += each.size_bytes
                each.is_granted.set_result(None)

    def _has_share(self, size_bytes: int, holder: str) -> bool:
        held = self._held[holder] if holder else 0
        return not held or held + size_bytes <= self._most_bytes // 2

    def _has_room(self, size_bytes: int, holder: str) -> bool:
        held = self.held_bytes
        fits = not held or held + size_bytes <= self._most_bytes
        return fits and self._has_share(size_bytes, holder)
