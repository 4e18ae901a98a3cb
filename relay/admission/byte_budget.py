"""How many bytes of large things a process holds at once: what comes next waits its turn.

They are the bodies that a shim reads, and the images that a worker fetches. Each takes up to four
times its size for a while: without a bound, forty bodies of 24 MB took 2.5 GB. Room is taken for a
whole thing before the most of it is there, so that no two halves wait for each other. One holder, a
tenant, has half of the room at most: what is large of one does not keep others out.
"""

import asyncio
from collections import Counter, deque
from typing import NamedTuple


class _Waiting(NamedTuple):
    size_bytes: int
    holder: str
    is_granted: asyncio.Future[None]


class ByteBudget:
    """Hands out room, in the order in which it is asked for."""

    def __init__(self, most_bytes: int, wait_s: float) -> None:
        """All of it is free; one thing alone may be larger. Who asks waits `wait_s` at most."""
        self._most_bytes = most_bytes
        self.wait_s = wait_s
        self._held: Counter[str] = Counter()
        self._waiting: deque[_Waiting] = deque()

    @property
    def held_bytes(self) -> int:
        """What is handed out."""
        return self._held.total()

    async def take(self, size_bytes: int, holder: str) -> None:
        """Wait for room for a holder (empty: nobody); `give_back` must follow, in parts or whole.

        Raises TimeoutError after `wait_s`.
        """
        if not self._waiting and self._has_room(size_bytes, holder):
            self._held[holder] += size_bytes
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(size_bytes, holder, granted)
        self._waiting.append(waiting)
        self._grant()
        try:
            async with asyncio.timeout(self.wait_s):
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
            if not self.has_share(each.size_bytes, each.holder):
                continue
            if not self._has_room(each.size_bytes, each.holder):
                return
            if not each.is_granted.done():  # else it has left, and removes itself
                self._waiting.remove(each)
                self._held[each.holder] += each.size_bytes
                each.is_granted.set_result(None)

    def has_share(self, size_bytes: int, holder: str) -> bool:
        """Whether a holder may have so much more, if there is room."""
        held = self._held[holder] if holder else 0
        return not held or held + size_bytes <= self._most_bytes // 2

    def _has_room(self, size_bytes: int, holder: str) -> bool:
        held = self.held_bytes
        fits = not held or held + size_bytes <= self._most_bytes
        return fits and self.has_share(size_bytes, holder)
