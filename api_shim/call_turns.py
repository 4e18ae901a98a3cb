"""A few calls begin in each turn of the event loop, however many arrive together, in a fair order.

All requests of a burst are read in one turn. If each did its first milliseconds of work in it, none
would reach Redis before the last had, and replies and chunks would wait for all of them. Tenants
take turns: one request of a second tenant does not wait for thousands of the first.
"""

import asyncio
from collections import deque
from typing import Final

_AT_ONCE: Final = 8


class CallTurns:
    """Lets the calls of a process begin; those of a caller in the order in which they came."""

    __slots__ = ("_is_renewed", "_left", "_waiting")

    def __init__(self) -> None:
        """Begin with a turn in which nobody has begun."""
        self._left = _AT_ONCE
        self._is_renewed = False
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By caller; the one whose turn it is comes first."""

    async def begin(self, caller: str) -> None:
        """Return at once for the first calls of a turn; else in a later one.

        `caller` is a tenant's name, or empty for all that are not known.
        """
        if self._left and not self._waiting:
            self._left -= 1
            self._renew_later()
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        await turn

    def _renew_later(self) -> None:
        if not self._is_renewed:
            self._is_renewed = True
            asyncio.get_running_loop().call_soon(self._renew)

    def _renew(self) -> None:
        self._is_renewed = False
        self._left = _AT_ONCE
        while self._waiting and self._left:
            caller = next(iter(self._waiting))
            calls = self._waiting.pop(caller)
            turn = calls.popleft()
            if calls:
                self._waiting[caller] = calls
            if not turn.done():
                turn.set_result(None)
                self._left -= 1
        if self._left < _AT_ONCE:
            self._renew_later()
