"""Runs the whole fleet on this machine as one context manager: all its processes end with it.

Order of the start: the folder's lock, the embedded server (if any), then shims and workers. They
stop in the reverse order, so that workers can return their jobs to a server that still runs.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from honcho.colour import get_colours
from honcho.printer import Printer
from pydantic import SecretStr

from api_shim.http.listening import reason_not_to_start
from api_shim.settings import ShimSettings
from contract.errors import RelayUnavailable
from fleet.client.errors import CannotStart
from fleet.client.settings import UpSettings
from fleet.local.autoscaler import Autoscaler
from fleet.local.control_socket import ControlSocket, address
from fleet.local.data_folder import locked
from fleet.local.launch_plan import Plan, child_environment
from fleet.local.machine_memory import redis_memory_bytes
from fleet.local.process import commands
from fleet.local.redis_server import (
    ServerChoice,
    choose,
    embedded,
    make_private,
    write_configuration,
)
from fleet.local.supervisor import SupervisedEntry, Supervisor
from fleet.local.worker_teams import WorkerTeams
from relay.connection import Connection
from relay.roster import RosterStore
from relay.settings import RelaySettings
from workers.settings import WorkerSettings, demand_agreement

_SERVER_STARTS_WITHIN_S = 15.0
_READY_WITHIN_S = 60.0
_SERVER_STOPS_WITHIN_S = 10.0
_STOPS_WITHIN_S = 40.0
"""A worker lets its jobs finish for a while, then returns them to the queue."""
_POLL_S = 0.05
_MAX_STARTS = 3


@dataclass
class Running:
    """A running fleet."""

    plan: Plan
    server: ServerChoice
    relay: RelaySettings
    supervisors: list[Supervisor] = field(default_factory=list)
    first_workers: dict[str, int] = field(default_factory=dict)
    """Workers that are started at first, by backend."""
    may_scale: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the fleet is ready: from then on the number of workers follows the demand."""

    @property
    def entries(self) -> list[SupervisedEntry]:
        """Every process, the server first."""
        return [entry for each in self.supervisors for entry in each.entries]

    def worker_pid(self, worker: str) -> int | None:
        """Pid of a worker by its name in the roster and in `started` events; None if unknown."""
        for entry in self.entries:
            if entry.started_with.get("FLEET_WORKER_NAME") == worker:
                return entry.pid
        return None

    def say(self, text: str) -> None:
        """Print a line of the fleet itself."""
        for supervisor in self.supervisors[-1:]:
            supervisor.say(text)

    def kill(self) -> None:
        """Send SIGKILL to every process."""
        for supervisor in reversed(self.supervisors):
            supervisor.kill()

    async def ready(self, workers: int | None = None) -> None:
        """Wait until every shim sees so many workers (None: all); raises CannotStart after 60 s."""
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as http:
            try:
                async with asyncio.timeout(_READY_WITHIN_S):
                    expected = sum(self.first_workers.values()) if workers is None else workers
                    for url in self.plan.urls:
                        await self._ready(http, f"{url}/readyz?workers={expected}")
            except TimeoutError:
                raise CannotStart(
                    f"not ready after {_READY_WITHIN_S:.0f} s{_last_lines(self.entries)}"
                ) from None

    async def _ready(self, http: httpx.AsyncClient, url: str) -> None:
        while True:
            for entry in self.entries:
                if entry.starts >= _MAX_STARTS and entry.exit_code:
                    raise CannotStart(f"{entry.name} does not stay up{_last_lines([entry])}")
            with suppress(httpx.TransportError):  # not listening yet
                if (await http.get(url)).is_success:
                    return
            await asyncio.sleep(_POLL_S)


@asynccontextmanager
async def running(
    plan: Plan, printer: Printer, settings: RelaySettings
) -> AsyncGenerator[Running, None]:
    """Start everything in the plan; no process is left when the context ends.

    Raises CannotStart, and InvalidSetting for settings that its processes would reject.
    """
    ShimSettings()
    demand_agreement(WorkerSettings(), settings)
    choice = choose(settings)
    colours = get_colours()
    async with AsyncExitStack() as stack:
        fleet = Running(plan, choice, settings)
        if choice.binary is not None:
            lock = stack.enter_context(locked(plan.folder))
            servers = await stack.enter_async_context(Supervisor(printer, _SERVER_STOPS_WITHIN_S))
            fleet.supervisors.append(servers)
            servers.supervise(_server(fleet, lock, next(colours)))
        await _wait_for_redis(fleet)
        await _check_keys(fleet)
        # Ended in reverse: shims after the workers, so that streams which end meanwhile are read.
        shims = await stack.enter_async_context(Supervisor(printer, _STOPS_WITHIN_S))
        workers = await stack.enter_async_context(Supervisor(printer, _STOPS_WITHIN_S))
        fleet.supervisors += [shims, workers]
        socket = stack.enter_context(address(plan.folder, is_locked=choice.binary is not None))
        teams = WorkerTeams(workers, fleet.relay, _shared(fleet), colours)
        stack.push_async_callback(teams.aclose)
        await stack.enter_async_context(ControlSocket(teams, workers.say).listening(socket))
        for entry in _shims(fleet, socket, colours):
            shims.supervise(entry)
        connection = await stack.enter_async_context(Connection.open(fleet.relay))
        await _start_workers(fleet, teams, connection)
        await stack.enter_async_context(_scaling(fleet, teams, connection))
        yield fleet


async def _start_workers(fleet: Running, teams: WorkerTeams, connection: Connection) -> None:
    """Start the first workers of each backend; raises CannotStart if Redis does not answer."""
    try:
        roster = await RosterStore(connection).read()
    except RelayUnavailable as error:
        raise CannotStart(f"the roster cannot be read: {error.message}") from error
    known = {each.backend.name for each in roster.known}
    for backend in fleet.plan.backends:
        count = fleet.plan.first_workers(backend, known)
        fleet.first_workers[backend.name] = count
        teams.start(replace(backend, processes=count))


@asynccontextmanager
async def _scaling(
    fleet: Running, teams: WorkerTeams, connection: Connection
) -> AsyncGenerator[None]:
    """Scale the backends that are to be scaled, until the context ends."""
    plan = fleet.plan
    autoscaler = Autoscaler(
        teams, connection, plan.scales, down_after_s=plan.down_after_s, say=fleet.say
    )

    async def scale() -> None:
        await fleet.may_scale.wait()
        await autoscaler.run()

    task = asyncio.create_task(scale(), name="autoscaler") if plan.scales else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


def _server(fleet: Running, lock: int, colour: str) -> SupervisedEntry:
    folder = fleet.plan.folder.resolve()
    make_private(folder)
    most_bytes = UpSettings().redis_memory_bytes
    listens = embedded(folder, redis_memory_bytes() if most_bytes is None else most_bytes)
    fleet.relay = fleet.relay.model_copy(update={"redis_url": SecretStr(listens.url)})
    variables = {
        "FLEET_REDIS_SERVER": str(fleet.server.binary),
        "FLEET_REDIS_CONF": str(write_configuration(folder, listens)),
        "FLEET_DATA_DIR": str(folder),
    }
    environment = partial(child_environment, variables)
    return SupervisedEntry(
        "redis", commands()["redis"], environment, colour=colour, inherited=(lock,), umask=0o077
    )


async def _wait_for_redis(fleet: Running) -> None:
    """Wait for Redis; raises CannotStart if it does not start, or a configured one is not there."""
    try:
        async with (
            asyncio.timeout(_SERVER_STARTS_WITHIN_S),
            Connection.open(fleet.relay) as connection,
        ):
            while True:
                try:
                    return await connection.ping()
                except RelayUnavailable:
                    if fleet.server.binary is None or fleet.entries[0].starts > 1:
                        raise
    except (TimeoutError, RelayUnavailable) as error:
        if fleet.server.binary is None:
            raise CannotStart(
                "the server that FLEET_REDIS_URL names does not respond: start it, or unset "
                "FLEET_REDIS_URL to let `fleet up` start an embedded one"
            ) from error
        why = _last_lines(fleet.entries)
        raise CannotStart(f"the embedded Redis server did not start{why}") from error


async def _check_keys(fleet: Running) -> None:
    """Raises CannotStart if shims would not start because there are no API keys."""
    variables = fleet.plan.variables
    insecure: dict[str, Any] = (
        {"insecure": variables["FLEET_INSECURE"]} if "FLEET_INSECURE" in variables else {}
    )
    settings = ShimSettings(host=fleet.plan.host, redis_url=fleet.relay.redis_url, **insecure)
    why_not = await reason_not_to_start(settings)
    if why_not is not None:
        raise CannotStart(why_not)


def _last_lines(entries: Iterable[SupervisedEntry]) -> str:
    """The last lines of processes, after a colon; empty if they printed nothing."""
    found = [f"{each.name} printed {each.last_line!r}" for each in entries if each.last_line]
    return ": " + "; ".join(found) if found else ""


def _shims(fleet: Running, socket: Path, colours: Iterator[str]) -> Iterator[SupervisedEntry]:
    for number, port in enumerate(fleet.plan.ports, 1):
        own = {
            "FLEET_HOST": fleet.plan.host,
            "FLEET_PORT": str(port),
            "FLEET_CONTROL": str(socket),
            "FLEET_DATA_DIR": str(fleet.plan.folder.resolve()),
        }
        if fleet.server.binary is not None:
            own["FLEET_REDIS_DIR"] = own["FLEET_DATA_DIR"]
        environment = partial(child_environment, {**_shared(fleet), **own})
        yield SupervisedEntry(
            f"shim.{number}", commands()["shim"], environment, colour=next(colours)
        )


def _shared(fleet: Running) -> dict[str, str]:
    url = fleet.relay.redis_url.get_secret_value()
    return {**fleet.plan.variables, "FLEET_REDIS_URL": url}
