"""Work of milliseconds for one of many followers, which the others would all do at the same time.

Followers of a job wake together, and a write that the operating system takes at once does not
suspend them: hundreds that get a megabyte each kept everybody else waiting for it. So a few of them
go on in one turn of the event loop, then it looks at its sockets.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakKeyDictionary

_AT_ONCE: Final = 8
"""In one turn: each works for 0.1 to 3 ms."""
_alone: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakKeyDictionary()
_Waiting = deque[asyncio.Future[None]]
_waiting: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting]] = WeakKeyDictionary()


async def in_turn() -> None:
    """Return in a later turn of this event loop, in which few others of those that wait do."""
    loop = asyncio.get_running_loop()
    waiting = _waiting.setdefault(loop, deque())
    turn: asyncio.Future[None] = loop.create_future()
    waiting.append(turn)
    if len(waiting) == 1:
        loop.call_soon(_next, loop, waiting)
    await turn


@asynccontextmanager
async def alone() -> AsyncGenerator[None]:
    """For work of tens of milliseconds: one at a time, and this event loop looks at its sockets.

    The block must not wait for a client.
    """
    async with _alone.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        yield
        await asyncio.sleep(0)


def _next(loop: asyncio.AbstractEventLoop, waiting: _Waiting) -> None:
    """Let the next ones go on."""
    for turn in [waiting.popleft() for _ in range(min(_AT_ONCE, len(waiting)))]:
        if not turn.done():  # else it was cancelled
            turn.set_result(None)
    if waiting:
        loop.call_soon(_next, loop, waiting)
