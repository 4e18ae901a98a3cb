"""Starts and retires the workers of `fleet up --scale`, by the demand that `/api/v1/scale` shows.

It reads the demand once a second, of all backends that it scales together; scaling.py decides.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, Never

from contract.errors import RelayUnavailable
from contract.redis_keys import backend_of
from fleet.local.scaling import DemandWindow, RunningWorker, ScaleRange, change_to, target_of
from fleet.local.worker_teams import WorkerTeam, WorkerTeams, worker_name
from relay.connection import Connection
from relay.roster import Roster, RosterStore
from relay.scaling.demand import Demand, DemandReader

_EVERY_S: Final = 1.0


class Autoscaler:
    """Scales the teams of some backends between their bounds."""

    def __init__(
        self,
        teams: WorkerTeams,
        connection: Connection,
        bounds: Mapping[str, ScaleRange],
        *,
        down_after_s: float,
        say: Callable[[str], None],
    ) -> None:
        """Retire workers that the demand of the last `down_after_s` seconds does not want.

        `say` prints each change.
        """
        self._teams = teams
        self._roster = RosterStore(connection)
        self._reader = DemandReader(connection)
        self._bounds = bounds
        self._down_after_s = down_after_s
        self._windows: dict[str, DemandWindow] = {}
        self._say = say
        self._is_unreachable = False

    async def run(self) -> Never:
        """Scale once a second, until cancelled; while Redis is away, nothing changes."""
        while True:
            try:
                await self.scale()
            except RelayUnavailable as error:
                if not self._is_unreachable:
                    self._say(f"nothing is scaled: {error.message}")
                self._is_unreachable = True
            else:
                self._is_unreachable = False
            await asyncio.sleep(_EVERY_S)

    async def scale(self) -> None:
        """Read the demand and change each team by it; raises RelayUnavailable."""
        roster = await self._roster.read()
        queues = await self._reader.all_queues(roster)
        for name, bounds in self._bounds.items():
            team = self._teams.teams.get(name)
            if team is not None and team.stopping is None:
                own = [queue for queue in queues if backend_of(queue) == name]
                self._scale(team, bounds, await self._reader.read(own, roster), roster)

    def _scale(self, team: WorkerTeam, bounds: ScaleRange, demand: Demand, roster: Roster) -> None:
        name = team.backend.name
        is_known = _is_known(name, roster)
        wanted = self._window(team).add(time.monotonic(), max(demand.workers, not is_known))
        target = target_of(wanted, self._elsewhere(name, roster), bounds)
        change = change_to(target, _running(team, demand), bounds)
        before = len(team.entries)
        for _ in range(change.start):
            self._teams.add_worker(team)
        for entry in [each for each in team.entries if each.name in change.retire]:
            self._teams.retire(team, entry)
        after = len(team.entries)
        if after != before:
            self._say(
                f"backend {name}: {before} → {after} workers, {demand.waiting} jobs waiting, "
                f"{demand.running} running"
            )

    def _window(self, team: WorkerTeam) -> DemandWindow:
        """The demand of the last seconds for a team, which begins as what it was started with."""
        name = team.backend.name
        if name not in self._windows:
            self._windows[name] = DemandWindow(self._down_after_s)
            self._windows[name].add(time.monotonic(), len(team.entries))
        return self._windows[name]

    def _elsewhere(self, backend: str, roster: Roster) -> int:
        """Live workers of the backend that this `fleet up` has not started."""
        return sum(
            worker.name not in self._teams.names
            and not worker.draining
            and any(report.name == backend for report in worker.backends)
            for worker in roster.workers
        )


def _is_known(backend: str, roster: Roster) -> bool:
    """Whether jobs are accepted for a backend without a worker: one has reported it as healthy."""
    return any(each.backend.name == backend for each in roster.known) or any(
        report.name == backend and report.healthy
        for worker in roster.workers
        for report in worker.backends
    )


def _running(team: WorkerTeam, demand: Demand) -> list[RunningWorker]:
    """The workers of a team, the oldest first, and which of them hold a job now."""
    staying = [
        RunningWorker(each.name, worker_name(each) in demand.holders) for each in team.entries
    ]
    return staying + [
        RunningWorker(each.name, is_busy=True, is_leaving=True) for each in team.leaving
    ]
