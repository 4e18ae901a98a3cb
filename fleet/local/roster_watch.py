"""Reports the state of backends for `fleet up`: at the start, and then each change."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from api_shim.submission.roster_cache import Pool, pools
from api_shim.submission.roster_views import backend_view
from contract.errors import RelayUnavailable
from relay.roster import RosterStore

_POLL_S: Final = 2.0
_FIRST_POLL_S: Final = 0.1
_CHECKED_WITHIN_S: Final = 10.0
_UNCHECKED: Final = "not checked yet"
_GONE: Final = "is gone: no live worker serves it"


class RosterWatch:
    """Polls the roster, and passes each change of a backend's state to `say`."""

    def __init__(self, roster: RosterStore, say: Callable[[str], None]) -> None:
        """No state is known yet."""
        self._roster = roster
        self._say = say
        self._states: dict[str, str] = {}
        self._is_unreachable = False

    async def wait_checked(self, names: set[str]) -> dict[str, Pool]:
        """The backends, once all of `names` have been checked or 10 s have passed.

        Raises RelayUnavailable.
        """
        found: dict[str, Pool] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(_CHECKED_WITHIN_S):
                while True:
                    found = pools(await self._roster.workers())
                    if names <= {name for name, pool in found.items() if _is_checked(pool)}:
                        break
                    await asyncio.sleep(_FIRST_POLL_S)
        self._states = _states(found)
        return found

    async def run(self) -> None:
        """Report every change, until cancelled."""
        while True:
            await asyncio.sleep(_POLL_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Report what has changed since the last call."""
        try:
            states = _states(pools(await self._roster.workers()))
        except RelayUnavailable as error:
            if not self._is_unreachable:
                self._say(f"Redis does not respond: {error.message}")
            self._is_unreachable = True
            return
        if self._is_unreachable:
            self._say("Redis responds again")
            self._is_unreachable = False
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
    """A backend's state as text."""
    view = backend_view(pool)
    if not view.healthy:
        return f"is unhealthy: {view.error or 'no reason given'}"
    if view.circuit_open_until is not None:
        return f"is paused after repeated failures: {view.error or 'no reason given'}"
    if view.endpoints_down:
        return f"works without {', '.join(view.endpoints_down)}"
    return "works"
