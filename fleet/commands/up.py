"""`fleet up`: the whole fleet on this machine, in the foreground."""

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from honcho.printer import Printer

from fleet.aio import AsyncClient
from fleet.commands.options import Json
from fleet.commands.roster import show_backends, show_queues
from fleet.errors import NotAuthorised
from fleet.exits import Exit, run
from fleet.plan import Plan, backends, shim_ports
from fleet.settings import UpSettings
from fleet.terminal import Terminal
from fleet.up import Running, running
from relay.settings import RelaySettings, default_folder


def up(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the first shim; 0: free.")] = 8700,
    shims: Annotated[int, typer.Option(min=1, max=64, help="HTTP processes.")] = 1,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes for each backend.")] = 1,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the embedded Redis.  [default: FLEET_DATA_DIR]")
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(metavar="NAME=DSN", help="As in box=ollama://10.0.0.5.")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Serve everybody, not only this machine, while there are no keys."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Run everything on this machine; Ctrl-C ends it, a second one at once."""
    settings = UpSettings()
    folder = data_dir or settings.data_dir or default_folder()

    async def command() -> Exit:
        found = [
            replace(each, processes=workers) for each in await backends(backend or [], os.environ)
        ]
        ports = shim_ports(settings.host, port, shims)
        variables = {"FLEET_INSECURE": "true"} if insecure else {}
        plan = Plan(folder, settings.host, ports, tuple(found), variables)
        return await _until_stopped(plan, Terminal(json=json))

    run(command())


class _Stop:
    """The first signal asks for an orderly end, the second one ends everything at once."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.asked: asyncio.Future[Exit] = loop.create_future()
        self.fleet: Running | None = None
        loop.add_signal_handler(signal.SIGINT, self._signal, Exit.INTERRUPTED)
        loop.add_signal_handler(signal.SIGTERM, self._signal, Exit.OK)
        loop.add_signal_handler(signal.SIGHUP, self._signal, Exit.OK)

    def _signal(self, code: Exit) -> None:
        if not self.asked.done():
            self.asked.set_result(code)
        elif self.fleet is not None:
            self.fleet.kill()


async def _until_stopped(plan: Plan, terminal: Terminal) -> Exit:
    """Serve until a signal; raises CannotStart."""
    stop = _Stop()
    serving = asyncio.create_task(_serve(plan, terminal, stop))
    either: set[asyncio.Future[Any]] = {serving, stop.asked}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        serving.cancel()
        await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()
    return await stop.asked


async def _serve(plan: Plan, terminal: Terminal, stop: _Stop) -> None:
    for each in plan.backends:
        terminal.say(f"backend {each.name}: {each.why}")
    async with running(plan, Printer(sys.stderr), RelaySettings()) as fleet:
        stop.fleet = fleet
        terminal.say(f"redis: {fleet.server.why}")
        await _ready(fleet, terminal)
        # Until cancelled: an end of its own here would race with that, and be cut short by it.
        await asyncio.get_running_loop().create_future()


async def _ready(fleet: Running, terminal: Terminal) -> None:
    await fleet.ready()
    urls = ",".join(fleet.plan.urls)
    if terminal.json:
        terminal.mapping(
            {
                "ready": True,
                "urls": list(fleet.plan.urls),
                "pid": os.getpid(),
                "redis": fleet.server.why,
                "processes": {entry.name: entry.pid for entry in fleet.entries},
            }
        )
        return
    terminal.words(f"ready at {urls}\n")
    try:
        async with AsyncClient(urls) as client:
            show_backends(terminal, await client.backends())
            show_queues(terminal, await client.queues())
    except NotAuthorised:
        terminal.say("it asks for a key: set FLEET_API_KEY to ask it anything")
