"""The workers of a running fleet by backend; backends can be added and removed while it runs.

Invariant: a backend's DSN, which may contain a key, is only in the environment of its own workers.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from contract.errors import RelayUnavailable
from fleet.local.launch_plan import PlannedBackend, child_environment
from fleet.local.process import worker_command
from fleet.local.supervisor import SupervisedEntry, Supervisor
from relay.connection import Connection
from relay.leases import Leases
from relay.metrics.totals import FleetTotals, Increase
from relay.roster import RosterStore
from relay.settings import RelaySettings

_RELEASE_WITHIN_S = 10.0
_NAMES = 1000
"""How many names of workers are remembered; a report lives for 15 s."""


def worker_name(entry: SupervisedEntry) -> str:
    """The name of a worker in the roster, of its current or last run; empty before the first."""
    return entry.started_with.get("FLEET_WORKER_NAME", "")


@dataclass(eq=False)
class WorkerTeam:
    """The workers of one backend."""

    backend: PlannedBackend
    entries: list[SupervisedEntry] = field(default_factory=list)
    """Those that take jobs, the oldest first."""
    leaving: dict[SupervisedEntry, asyncio.Task[None]] = field(default_factory=dict)
    """Those that finish their jobs and end."""
    stopping: asyncio.Task[None] | None = None


class WorkerTeams:
    """All teams; `shared` are the environment variables of every process of the fleet."""

    def __init__(
        self,
        processes: Supervisor,
        relay: RelaySettings,
        shared: dict[str, str],
        colours: Iterator[str],
    ) -> None:
        """No worker is started yet."""
        self._processes = processes
        self._relay = relay
        self._shared = shared
        self._colours = colours
        self.teams: dict[str, WorkerTeam] = {}
        self.names: deque[str] = deque(maxlen=_NAMES)
        """Names of all workers that were started lately, in the roster."""

    def start(self, backend: PlannedBackend) -> None:
        """Start a backend's workers; there must be no backend of that name."""
        team = self.teams[backend.name] = WorkerTeam(backend)
        for _ in range(backend.processes):
            self.add_worker(team)

    def add_worker(self, team: WorkerTeam) -> None:
        """Start one more worker of a backend."""
        backend = team.backend
        taken = {entry.name for entry in (*team.entries, *team.leaving)}
        names = (f"worker-{backend.name}.{number}" for number in count(1))
        entry = SupervisedEntry(
            next(name for name in names if name not in taken),
            worker_command(backend.name),
            partial(self._environment, backend),
            on_death=self._died,
            colour=next(self._colours),
        )
        team.entries.append(entry)
        self._processes.supervise(entry)

    def retire(self, team: WorkerTeam, entry: SupervisedEntry) -> None:
        """Let one worker of a backend finish its jobs and end."""
        team.entries.remove(entry)
        task = asyncio.create_task(self._retire(team, entry), name=f"retire {entry.name}")
        team.leaving[entry] = task

    async def _retire(self, team: WorkerTeam, entry: SupervisedEntry) -> None:
        try:
            await self._processes.retire(entry)
            if name := worker_name(entry):
                await self._release(name, is_gone=True)
        finally:
            team.leaving.pop(entry, None)

    async def stop(self, name: str) -> None:
        """Stop a backend's workers, which finish their jobs or return them to the queue.

        Continues if the caller is cancelled; a second call waits for the first one.
        """
        team = self.teams[name]
        if team.stopping is None:
            team.stopping = asyncio.create_task(self._stop(team), name=f"dismiss {name}")
        await asyncio.shield(team.stopping)

    async def aclose(self) -> None:
        """Stop waiting for workers that are stopping: they end with the others."""
        teams = self.teams.values()
        waiting = [team.stopping for team in teams if team.stopping is not None]
        waiting += [task for team in teams for task in team.leaving.values()]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    async def _stop(self, team: WorkerTeam) -> None:
        for task in team.leaving.values():
            task.cancel()
        entries = [*team.entries, *team.leaving]
        names = [worker_name(each) for each in entries]
        await asyncio.gather(*(self._processes.remove(each) for each in entries))
        # A worker that was killed left jobs and a report; for others this is a no-op.
        await asyncio.gather(*(self._release(name, is_gone=True) for name in names if name))
        del self.teams[team.backend.name]

    def _environment(self, backend: PlannedBackend) -> dict[str, str]:
        name = f"{backend.name}-{secrets.token_hex(4)}"
        self.names.append(name)
        return child_environment(
            {
                **self._shared,
                **backend.variables,
                "FLEET_WORKER_BACKEND": backend.name,
                "FLEET_WORKER_NAME": name,
            }
        )

    async def _died(self, environment: dict[str, str]) -> None:
        await self._release(environment["FLEET_WORKER_NAME"])

    async def _release(self, worker: str, *, is_gone: bool = False) -> None:
        """Requeue a dead worker's jobs now, instead of when its leases expire.

        Its report in the roster stays until it expires, so that jobs are accepted while it
        restarts; if `is_gone`, it is removed.
        """
        try:
            async with (
                asyncio.timeout(_RELEASE_WITHIN_S),
                Connection.open(self._relay) as connection,
            ):
                jobs = await Leases(connection).release_worker(worker)
                if jobs:
                    died = Increase(("hand_overs_total", "", "worker_died"), jobs)
                    await FleetTotals(connection).add([died])
                if is_gone:
                    await RosterStore(connection).leave(worker)
        except (RelayUnavailable, TimeoutError):
            self._processes.say(
                f"could not requeue the jobs of {worker}: that happens when its leases expire"
            )
        else:
            if jobs:
                many = "s" * (jobs > 1)
                self._processes.say(f"requeued {jobs} job{many} of {worker}")
