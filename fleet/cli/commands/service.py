"""`fleet service`: systemd runs the fleet, a shim or workers, and lets them drain."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.exit_codes import Exit
from fleet.cli.terminal import Terminal
from fleet.local.systemd_units import What, folder, unit

app = typer.Typer(help="Run the fleet as a service of systemd.", no_args_is_help=True)


@app.command()
def install(
    what: Annotated[
        What, typer.Argument(help="`fleet up`, a shim alone, or workers of this machine.")
    ] = "up",
    *,
    user: Annotated[
        bool, typer.Option("--user", help="A service of this user, not of the system.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the unit; write nothing.")
    ] = False,
    options: Annotated[
        str, typer.Option(help="More of its command line, as in '--scale box=0..4'.")
    ] = "",
) -> None:
    """Write the unit, and print the commands that start it; settings go into fleet.env."""
    interpreter = Path(sys.executable)
    program = interpreter.with_name("fleet") if what == "up" else interpreter
    made = unit(what, program=program, options=options, is_user=user)
    terminal = Terminal(json=False)
    path = folder(is_user=user) / made.name
    if dry_run:
        terminal.write_line(f"# {path}")
        terminal.write_line(made.text.rstrip())
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made.text, encoding="utf-8")
    except OSError as error:
        terminal.message(f"{path} cannot be written: {error.strerror}; use sudo, or --user")
        raise typer.Exit(Exit.FAILED) from None
    terminal.message(f"{path} is written; now:")
    for command in made.commands:
        terminal.write_line(command)
