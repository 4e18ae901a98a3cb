"""Runs `fleet up`: start everything, print the greeting, report changes, stop on a signal."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from api_shim.submission.roster_cache import Pool
from fleet.cli.exit_codes import Exit
from fleet.cli.terminal import Terminal
from fleet.client.settings import ClientSettings, UpSettings, data_folder
from fleet.local.greeting import greeting
from fleet.local.launch_plan import Plan, backends, shim_ports
from fleet.local.log_files import Journal, log_folder
from fleet.local.roster_watch import RosterWatch
from fleet.local.scaling import scale_ranges
from fleet.local.up import Running, running
from relay.api_keys import ApiKeys, ApiKeyTable
from relay.connection import Connection
from relay.roster import RosterStore
from relay.settings import RelaySettings

_WIDTH: Final = 80
"""Columns of the greeting if the output is not a terminal."""
_ONE_SIGNAL_S: Final = 1.0
"""Signals within this time after the first count as one: `timeout` sends two."""


async def serve(
    *,
    port: int | None,
    shims: int,
    workers: int,
    data_dir: Path | None,
    given: Sequence[str],
    variables: Mapping[str, str],
    scales: Sequence[str],
    down_after_s: float,
    verbose: bool,
    json: bool,
) -> Exit:
    """Run the fleet in the foreground until a signal; raises CannotStart.

    `port` is the first shim's, FLEET_PORT if it is None. `workers` is the number of processes for
    each backend, `given` are the values of `--backend`, `variables` go into the environment of
    every process. `scales` are the values of `--scale`, whose backends get fewer workers after
    `down_after_s` seconds of lower demand.
    """
    settings, folder = UpSettings(), data_folder(data_dir)
    known = await backends(given, os.environ)
    found = tuple(replace(each, processes=workers) for each in known)
    ranges = scale_ranges(scales, [each.name for each in found])
    ports = shim_ports(settings.host, settings.port if port is None else port, shims)
    plan = Plan(folder, settings.host, ports, found, variables, ranges, down_after_s)
    terminal = Terminal(json=json)
    with closing(Journal(terminal.notice, folder, verbose=verbose)) as journal:
        return await _until_stopped(plan, terminal, journal)


class _Stop:
    """The first signal requests an orderly stop, a later one kills everything."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.requested: asyncio.Future[Exit] = loop.create_future()
        self.fleet: Running | None = None
        self._loop = loop
        self._requested_at = 0.0
        loop.add_signal_handler(signal.SIGINT, self._signal, Exit.INTERRUPTED)
        loop.add_signal_handler(signal.SIGTERM, self._signal, Exit.OK)
        loop.add_signal_handler(signal.SIGHUP, self._signal, Exit.OK)

    def _signal(self, code: Exit) -> None:
        if not self.requested.done():
            self.requested.set_result(code)
            self._requested_at = self._loop.time()
            if self.fleet is not None:
                self.fleet.say("stops: running streams may end; Ctrl-C again ends them now")
        elif self.fleet is not None and self._loop.time() - self._requested_at >= _ONE_SIGNAL_S:
            self.fleet.kill()


async def _until_stopped(plan: Plan, terminal: Terminal, journal: Journal) -> Exit:
    """Serve until a signal; raises CannotStart."""
    stop = _Stop()
    serving = asyncio.create_task(_serve(plan, terminal, stop, journal))
    either: set[asyncio.Future[Any]] = {serving, stop.requested}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        serving.cancel()
        await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()
    return await stop.requested


async def _serve(plan: Plan, terminal: Terminal, stop: _Stop, journal: Journal) -> None:
    async with (
        _waiting(terminal, is_quiet=journal.is_quiet) as ready,
        running(plan, journal, RelaySettings()) as fleet,
        Connection.open(fleet.relay) as connection,
    ):
        stop.fleet = fleet
        for each in plan.backends:
            journal.log(f"backend {each.name}: {each.why}")
        journal.log(f"redis: {fleet.server.why}")
        await fleet.ready()
        watch = RosterWatch(RosterStore(connection), fleet.say, scaled=plan.scales)
        started = {name for name, count in fleet.first_workers.items() if count}
        found = await watch.wait_checked(started)
        ready()
        _print_ready(fleet, found, terminal, needs_key=await _needs_key(connection))
        fleet.may_scale.set()
        await watch.run()


@asynccontextmanager
async def _waiting(terminal: Terminal, *, is_quiet: bool) -> AsyncGenerator[Callable[[], None]]:
    """Show a spinner on a terminal until the yielded function is called."""
    starting = terminal.stderr.status("starting Redis, the shim and the workers ...")
    if is_quiet and terminal.stderr.is_terminal:
        starting.start()
    try:
        yield starting.stop
    finally:
        starting.stop()


async def _needs_key(connection: Connection) -> bool:
    """Whether the fleet has API keys, and FLEET_API_KEY is not set here."""
    has_keys = bool((await ApiKeys(connection).refresh(ApiKeyTable())).count)
    return has_keys and ClientSettings().api_key is None


def _print_ready(
    fleet: Running, found: dict[str, Pool], terminal: Terminal, *, needs_key: bool
) -> None:
    plan = fleet.plan
    if terminal.json:
        terminal.write_json_object(
            {
                "ready": True,
                "urls": list(plan.urls),
                "pid": os.getpid(),
                "redis": fleet.server.why,
                "processes": {entry.name: entry.pid for entry in fleet.entries},
                "logs": str(log_folder(plan.folder.resolve())),
            }
        )
        return
    width = terminal.width or _WIDTH
    elsewhere = None if plan.folder == data_folder() else str(plan.folder)
    lines = greeting(
        plan.urls,
        plan.backends,
        found,
        needs_key=needs_key,
        width=width,
        folder=elsewhere,
    )
    for line in lines:
        terminal.write_line(line)
