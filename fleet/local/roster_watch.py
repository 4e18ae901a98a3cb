"""What `fleet up` sees of its backends: how they stand at the start, and then only what changes."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from api_shim.submission.roster_cache import Pool, pools
from api_shim.submission.roster_views import backend_view
from contract.errors import RelayUnavailable
from relay.roster import RosterStore

_POLL_S: Final = 2.0
_FIRST_LOOK_S: Final = 0.1
_CHECKED_WITHIN_S: Final = 10.0
_UNCHECKED: Final = "not checked yet"
_GONE: Final = "is gone: no live worker serves it"


class Watch:
    """Looks at the roster again and again; `say` is told what is new in it."""

    def __init__(self, roster: RosterStore, say: Callable[[str], None]) -> None:
        """Nothing is known yet."""
        self._roster = roster
        self._say = say
        self._states: dict[str, str] = {}
        self._is_blind = False

    async def first(self, names: set[str]) -> dict[str, Pool]:
        """Backends once all of these have been checked, or as they are after a few seconds.

        Raises RelayUnavailable.
        """
        found: dict[str, Pool] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(_CHECKED_WITHIN_S):
                while True:
                    found = pools(await self._roster.workers())
                    if names <= {name for name, pool in found.items() if _is_checked(pool)}:
                        break
                    await asyncio.sleep(_FIRST_LOOK_S)
        self._states = _states(found)
        return found

    async def keep(self) -> None:
        """Tell of every change, until cancelled."""
        while True:
            await asyncio.sleep(_POLL_S)
            await self.look()

    async def look(self) -> None:
        """Tell what has changed since the last look."""
        try:
            states = _states(pools(await self._roster.workers()))
        except RelayUnavailable as error:
            if not self._is_blind:
                self._say(f"Redis does not answer: {error.message}")
            self._is_blind = True
            return
        if self._is_blind:
            self._say("Redis answers again")
            self._is_blind = False
        for name, state in states.items():
            if state != self._states.get(name):
                self._say(f"backend {name} {state}")
        for name in self._states.keys() - states.keys():
            if self._states[name] != _GONE:
                self._say(f"backend {name} {_GONE}")
            states[name] = _GONE
        self._states = states


def _is_checked(pool: Pool) -> bool:
    return any(report.error != _UNCHECKED for report in pool.reports)


def _states(found: dict[str, Pool]) -> dict[str, str]:
    return {name: state_of(pool) for name, pool in found.items() if _is_checked(pool)}


def state_of(pool: Pool) -> str:
    """How a backend is, in words that change only when that does."""
    view = backend_view(pool)
    if not view.healthy:
        return f"is lost: {view.error or 'no reason given'}"
    if view.circuit_open_until is not None:
        return f"rests, it failed again and again: {view.error or 'no reason given'}"
    if view.endpoints_down:
        return f"works, without {', '.join(view.endpoints_down)}"
    return "works"
