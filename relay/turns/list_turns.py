"""Turns of those who read lists: few at once in a process, fewer of one tenant, tenants in turn.

A list, a search, the prefix of an id, a ledger is read in pages of milliseconds over the connection
that all calls share, and what is found is held until the last page. Two hundred searches of one
tenant had two hundred pages under way, behind which each command of another tenant's chat waited:
it took thirty seconds, and the process gigabytes. Who waits here holds nothing yet.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakKeyDictionary

from contract.errors import RelayUnavailable

MOST: Final = 4
"""Lists that are read at once in a process."""
MOST_OF_ONE: Final = 2
"""Of these, those of one reader."""
WAIT_S: Final = 10.0
"""For a turn: what nobody waits for any more, because its client has left, ends with it."""

_RETRY_AFTER_S: Final = 5.0


class ListTurns:
    """Lets readers of lists begin."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        """Nobody reads; who has waited `wait_s` for a turn is refused."""
        self._wait_s = wait_s
        self._reading: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By reader; the one who has waited longest for a turn comes first."""

    @asynccontextmanager
    async def turn(self, reader: str) -> AsyncGenerator[None]:
        """Wait until this reader, a tenant, may read one more list; it ends with the block.

        A block must not ask for a second turn. Raises RelayUnavailable after too long a wait.
        """
        if reader not in self._waiting and self._has_room(reader):
            self._reading[reader] += 1
        else:
            await self._wait(reader)
        try:
            yield
        finally:
            self._end(reader)

    async def _wait(self, reader: str) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(reader, deque()).append(granted)
        try:
            async with asyncio.timeout(self._wait_s):
                await self._granted(reader, granted)
        except TimeoutError:
            raise RelayUnavailable(
                f"a shim reads {MOST_OF_ONE} lists of a tenant at once, and this one has waited "
                f"{self._wait_s:g} s for its turn: read fewer at the same time, and retry",
                retry_after_s=_RETRY_AFTER_S,
            ) from None

    async def _granted(self, reader: str, granted: asyncio.Future[None]) -> None:
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._leave(reader, granted)
            else:
                self._end(reader)  # it was granted in the moment in which the caller left
            raise

    def _leave(self, reader: str, granted: asyncio.Future[None]) -> None:
        self._waiting[reader].remove(granted)
        if not self._waiting[reader]:
            del self._waiting[reader]

    def _end(self, reader: str) -> None:
        self._reading[reader] -= 1
        self._reading += Counter()  # without those that are 0
        for each in list(self._waiting):
            self._let_in(each)

    def _let_in(self, reader: str) -> None:
        """Give the next turn of a reader, if there is room; it stands behind the others then."""
        waiting = self._waiting[reader]
        following = next((each for each in waiting if not each.done()), None)
        if following is not None and self._has_room(reader):
            self._reading[reader] += 1
            following.set_result(None)
            waiting.remove(following)
            del self._waiting[reader]
            if waiting:
                self._waiting[reader] = waiting

    def _has_room(self, reader: str) -> bool:
        return self._reading.total() < MOST and self._reading[reader] < MOST_OF_ONE


_turns: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, ListTurns]] = WeakKeyDictionary()


def list_turns() -> ListTurns:
    """The turns of this event loop."""
    return _turns.setdefault(asyncio.get_running_loop(), ListTurns())
