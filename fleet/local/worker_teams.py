"""The workers of a running fleet, backend by backend: some may come and go while it runs.

Invariant: what a backend is reached with, its key among it, is only ever in the environment of its
own workers.
"""

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from contract.errors import RelayUnavailable
from fleet.local.launch_plan import PlannedBackend, child_environment
from fleet.local.process import worker_command
from fleet.local.supervisor import SupervisedEntry, Supervisor
from relay.connection import Connection
from relay.leases import Leases
from relay.roster import RosterStore
from relay.settings import RelaySettings

_RELEASE_WITHIN_S = 10.0


@dataclass(eq=False)
class WorkerTeam:
    """The workers of one backend."""

    backend: PlannedBackend
    entries: list[SupervisedEntry] = field(default_factory=list)
    leaving: asyncio.Task[None] | None = None


class WorkerTeams:
    """All teams; `shared` is the environment that every process of the fleet has."""

    def __init__(
        self,
        processes: Supervisor,
        relay: RelaySettings,
        shared: dict[str, str],
        colours: Iterator[str],
    ) -> None:
        """Nobody works yet."""
        self._processes = processes
        self._relay = relay
        self._shared = shared
        self._colours = colours
        self.teams: dict[str, WorkerTeam] = {}

    def hire(self, backend: PlannedBackend) -> None:
        """Start a backend's workers; its name must be free."""
        team = self.teams[backend.name] = WorkerTeam(backend)
        command = worker_command(backend.name)
        environment = partial(self._environment, backend)
        for number in range(1, backend.processes + 1):
            name = f"worker-{backend.name}.{number}"
            entry = SupervisedEntry(
                name, command, environment, died=self._died, colour=next(self._colours)
            )
            team.entries.append(entry)
            self._processes.keep(entry)

    async def dismiss(self, name: str) -> None:
        """Let a backend's workers finish or hand over what they do, and end them for good.

        It goes on when the caller does not wait; whoever asks meanwhile waits for the same end.
        """
        team = self.teams[name]
        if team.leaving is None:
            team.leaving = asyncio.create_task(self._dismiss(team), name=f"dismiss {name}")
        await asyncio.shield(team.leaving)

    async def aclose(self) -> None:
        """Stop waiting for those who leave: they end with everybody else."""
        waiting = [team.leaving for team in self.teams.values() if team.leaving is not None]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    async def _dismiss(self, team: WorkerTeam) -> None:
        names = [each.started_with.get("FLEET_WORKER_NAME", "") for each in team.entries]
        await asyncio.gather(*(self._processes.drop(each) for each in team.entries))
        # Who was killed left jobs and a report behind; for the others this finds nothing.
        await asyncio.gather(*(self._release(name, is_gone=True) for name in names if name))
        del self.teams[team.backend.name]

    def _environment(self, backend: PlannedBackend) -> dict[str, str]:
        return child_environment(
            {
                **self._shared,
                **backend.variables,
                "FLEET_WORKER_BACKEND": backend.name,
                "FLEET_WORKER_NAME": f"{backend.name}-{secrets.token_hex(4)}",
            }
        )

    async def _died(self, environment: dict[str, str]) -> None:
        await self._release(environment["FLEET_WORKER_NAME"])

    async def _release(self, worker: str, *, is_gone: bool = False) -> None:
        """Give a dead worker's jobs to the others at once, instead of when its leases expire.

        Its report stays for a few seconds, so that nobody is refused while it starts again;
        unless it `is_gone` for good.
        """
        try:
            async with (
                asyncio.timeout(_RELEASE_WITHIN_S),
                Connection.open(self._relay) as connection,
            ):
                jobs = await Leases(connection).release_worker(worker)
                if is_gone:
                    await RosterStore(connection).leave(worker)
        except (RelayUnavailable, TimeoutError):
            self._processes.say(
                f"could not hand over the jobs of {worker}: they move when its leases expire"
            )
        else:
            if jobs:
                many = "s" * (jobs > 1)
                self._processes.say(f"handed over {jobs} job{many} of {worker}")
