"""`fleet up`: the whole fleet on this machine, in the foreground."""

from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.commands.options import Json
from fleet.cli.exit_codes import run


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
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what every process prints.")
    ] = False,
    json: Json = False,
) -> None:
    """Run everything on this machine; Ctrl-C ends it, a second one at once.

    It prints five lines, then only what changes; `fleet logs` has what the processes print.
    """
    from fleet.cli.foreground import serve  # noqa: PLC0415 - imports all that a fleet consists of

    run(
        serve(
            port=port,
            shims=shims,
            workers=workers,
            data_dir=data_dir,
            given=backend or (),
            variables={"FLEET_INSECURE": "true"} if insecure else {},
            verbose=verbose,
            json=json,
        )
    )
