"""Options that many commands take, spelt once."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON object, or one a line.")]
Url = Annotated[
    str | None,
    typer.Option("--url", help="Shims to ask, separated by commas.  [default: FLEET_URL]"),
]
Backend = Annotated[str | None, typer.Option("--backend", "-b", help="Name of the backend.")]
Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Name of the model; else one that can do it.")
]
Timeout = Annotated[
    float | None, typer.Option(min=0.001, help="Seconds to wait for the end; the job goes on.")
]
