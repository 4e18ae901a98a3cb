"""`fleet logs`: what the processes of `fleet up` have printed, and print."""

import asyncio
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Final

import typer

from contract.errors import InvalidRequest
from fleet.cli.commands.options import Json
from fleet.cli.exit_codes import Exit, run
from fleet.cli.terminal import Terminal
from fleet.client.settings import data_folder
from fleet.local.log_files import Line, Reading, log_folder, processes

_LOOK_S: Final = 0.25


def logs(
    process: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROCESS]...",
            help="As in shim.1, worker-ollama.1, redis or fleet; `worker` and `worker-*` are all "
            "whose name begins so.  [default: all]",
        ),
    ] = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes; Ctrl-C ends it.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=1_000_000, help="Newest lines to begin with.")
    ] = 100,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of that `fleet up`.  [default: FLEET_DATA_DIR]")
    ] = None,
    json: Json = False,
) -> None:
    """Show what the processes of `fleet up` print, on this machine, running or not."""
    folder = log_folder(data_folder(data_dir).resolve())
    run(_logs(folder, process or (), lines, Terminal(json=json), follow=follow))


async def _logs(
    folder: Path, wanted: Sequence[str], count: int, terminal: Terminal, *, follow: bool
) -> Exit:
    if not follow:
        _check(folder, wanted)
    reading = Reading(folder, lambda process: wants(process, wanted))
    try:
        _show(reading.last(count), terminal)
        while follow:
            await asyncio.sleep(_LOOK_S)
            _show(reading.new(), terminal)
    finally:
        reading.close()
    return Exit.OK


def wants(process: str, wanted: Sequence[str]) -> bool:
    """Whether a process is among those that were named; none named means all."""
    return not wanted or any(
        fnmatch(process, each) or process.startswith((f"{each}.", f"{each}-")) for each in wanted
    )


def _check(folder: Path, wanted: Sequence[str]) -> None:
    """Return if there is something to show; raises InvalidRequest."""
    known = processes(folder)
    if not known:
        raise InvalidRequest(
            f"there are no logs in {folder}: `fleet up` writes them; if it was started with "
            "--data-dir, name that folder here, too"
        )
    for each in wanted:
        if not any(wants(process, [each]) for process in known):
            raise InvalidRequest(f"no process is called {each}; there are {', '.join(known)}")


def _show(lines: Sequence[Line], terminal: Terminal) -> None:
    width = max((len(line.process) for line in lines), default=0)
    for line in lines:
        if terminal.json:
            terminal.mapping({"at": line.at, "process": line.process, "text": line.text})
            continue
        text = "".join(each if each.isprintable() or each == "\t" else "?" for each in line.text)
        if terminal.is_interactive:
            at = line.at.astimezone().strftime("%H:%M:%S")
            terminal.words(f"{at} {line.process:<{width}} | {text}\n")
        else:
            terminal.words(f"{line.at.isoformat()} {line.process} | {text}\n")
