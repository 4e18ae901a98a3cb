"""`fleet logs`: the output of the processes of `fleet up`."""

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
from fleet.local.log_files import Line, LogReader, log_folder, processes
from fleet.visible import visible

_POLL_S: Final = 0.25


def logs(
    process: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROCESS]...",
            help="As in shim.1, worker-ollama.1, redis or fleet; `worker` and `worker-*` match "
            "every worker.  [default: all]",
        ),
    ] = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing new lines; Ctrl-C ends it.")
    ] = False,
    lines: Annotated[
        int,
        typer.Option("--lines", "-n", min=0, max=1_000_000, help="Number of newest lines."),
    ] = 100,
    data_dir: Annotated[
        Path | None, typer.Option(help="Its data folder.  [default: FLEET_DATA_DIR]")
    ] = None,
    json: Json = False,
) -> None:
    """Print the output of the processes of `fleet up` on this machine, running or not."""
    folder = log_folder(data_folder(data_dir).resolve())
    run(_logs(folder, process or (), lines, Terminal(json=json), follow=follow))


async def _logs(
    folder: Path, wanted: Sequence[str], count: int, terminal: Terminal, *, follow: bool
) -> Exit:
    if not follow:
        _check(folder, wanted)
    reading = LogReader(folder, lambda process: wants(process, wanted))
    try:
        _show(reading.last(count), terminal)
        while follow:
            await asyncio.sleep(_POLL_S)
            _show(reading.new(), terminal)
    finally:
        reading.close()
    return Exit.OK


def wants(process: str, wanted: Sequence[str]) -> bool:
    """Whether a process matches a name or pattern in `wanted`; an empty one matches all."""
    return not wanted or any(
        fnmatch(process, each) or process.startswith((f"{each}.", f"{each}-")) for each in wanted
    )


def _check(folder: Path, wanted: Sequence[str]) -> None:
    """Raises InvalidRequest if there are no logs, or none of a wanted process."""
    known = processes(folder)
    if not known:
        raise InvalidRequest(
            f"there are no logs in {folder}: `fleet up` writes them; if it was started with "
            "--data-dir, give the same one here"
        )
    for each in wanted:
        if not any(wants(process, [each]) for process in known):
            raise InvalidRequest(f"no process is named {each}; there are {', '.join(known)}")


def _show(lines: Sequence[Line], terminal: Terminal) -> None:
    width = max((len(line.process) for line in lines), default=0)
    for line in lines:
        if terminal.json:
            terminal.write_json_object({"at": line.at, "process": line.process, "text": line.text})
            continue
        text = visible(line.text, "\t")
        if terminal.is_interactive:
            at = line.at.astimezone().strftime("%H:%M:%S")
            terminal.write(f"{at} {line.process:<{width}} | {text}\n")
        else:
            terminal.write(f"{line.at.isoformat()} {line.process} | {text}\n")
