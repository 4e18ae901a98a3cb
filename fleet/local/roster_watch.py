"""Reports the state of backends for `fleet up`: at the start, and then each change."""

import asyncio
from collections.abc import Callable, Collection
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
_ASLEEP: Final = "has no worker: its jobs wait for one to start"


class RosterWatch:
    """Polls the roster, and passes each change of a backend's state to `say`."""

    def __init__(
        self, roster: RosterStore, say: Callable[[str], None], *, scaled: Collection[str] = ()
    ) -> None:
        """No state is known yet.

        Of backends that are `scaled` it does not report that they have no worker: that is usual.
        """
        self._roster = roster
        self._say = say
        self._scaled = scaled
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
                    found = pools(*await self._roster.read())
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
            states = _states(pools(*await self._roster.read()))
        except RelayUnavailable as error:
            if not self._is_unreachable:
                self._say(f"Redis does not respond: {error.message}")
            self._is_unreachable = True
            return
        if self._is_unreachable:
            self._say("Redis responds again")
            self._is_unreachable = False
        for name in self._states.keys() - states.keys():
            states[name] = _GONE
        self._states = {name: self._reported(name, state) for name, state in states.items()}

    def _reported(self, name: str, state: str) -> str:
        """Report a backend's state if it is another one; returns it, or the former one."""
        former = self._states.get(name)
        if state == _ASLEEP and name in self._scaled:
            return former or state
        if state != former:
            self._say(f"backend {name} {state}")
        return state


def _is_checked(pool: Pool) -> bool:
    return bool(pool.workers) and any(report.error != _UNCHECKED for report in pool.reports)


def _states(found: dict[str, Pool]) -> dict[str, str]:
    return {name: state_of(pool) for name, pool in found.items() if _has_state(pool)}


def _has_state(pool: Pool) -> bool:
    return not pool.workers or _is_checked(pool)


def state_of(pool: Pool) -> str:
    """A backend's state as text."""
    if not pool.workers:
        return _ASLEEP
    view = backend_view(pool)
    if not view.healthy:
        return f"is unhealthy: {view.error or 'no reason given'}"
    if view.circuit_open_until is not None:
        return f"is paused after repeated failures: {view.error or 'no reason given'}"
    if view.endpoints_down:
        return f"works without {', '.join(view.endpoints_down)}"
    return "works"
