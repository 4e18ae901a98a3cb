"""`fleet up`: runs the whole fleet on this machine, in the foreground."""

from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.commands.options import Json, backend_given
from fleet.cli.exit_codes import run

Port = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, help="First port; 0: free ones.  [default: FLEET_PORT, else 8700]"
    ),
]
DataFolder = Annotated[Path | None, typer.Option(help="Data folder.  [default: FLEET_DATA_DIR]")]
Backends = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=DSN",
        help="As in box=ollama://10.0.0.5; NAME=@FILE reads the DSN, with its key, from a file.",
    ),
]
Scale = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=LEAST..MOST",
        help="As in box=0..4: start and end workers of this backend by demand.",
    ),
]
ScaleDownAfter = Annotated[
    float, typer.Option(min=0, max=86400, help="Seconds of lower demand before a worker is ended.")
]


def up(
    *,
    port: Port = None,
    shims: Annotated[int, typer.Option(min=1, max=64, help="Number of HTTP processes.")] = 1,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes for each backend.")] = 1,
    data_dir: DataFolder = None,
    backend: Backends = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="While there are no API keys, serve other machines, too."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what every process prints.")
    ] = False,
    scale: Scale = None,
    scale_down_after: ScaleDownAfter = 60.0,
    json: Json = False,
) -> None:
    """Run the whole fleet on this machine; Ctrl-C stops it, a second one immediately.

    It prints five lines, then only changes; `fleet logs` has the output of its processes.
    """
    from fleet.cli.foreground import serve  # noqa: PLC0415 - slow to import

    run(
        serve(
            port=port,
            shims=shims,
            workers=workers,
            data_dir=data_dir,
            given=[backend_given(each) for each in backend or ()],
            variables={"FLEET_INSECURE": "true"} if insecure else {},
            scales=scale or (),
            down_after_s=scale_down_after,
            verbose=verbose,
            json=json,
        )
    )
