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
