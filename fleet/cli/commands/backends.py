"""`fleet backends`: list them, and add or remove one while the fleet runs."""

import sys
from typing import Annotated

import typer

from fleet.cli.commands.options import All, Json, Limit, Url, backend_given
from fleet.cli.commands.roster import show_backends
from fleet.cli.exit_codes import Exit, run
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient

app = typer.Typer(help="List backends; add or remove one while the fleet runs.")


@app.callback(invoke_without_command=True)
def all_(context: typer.Context, *, json: Json = False, url: Url = None) -> None:
    """List backends if no command is given: health, address, capabilities."""
    if context.invoked_subcommand is None:
        terminal = Terminal(json=json)
        run(_list(terminal, url, terminal.row_limit(None, all_=False)))


@app.command("list")
def list_(*, limit: Limit = None, all_: All = False, json: Json = False, url: Url = None) -> None:
    """List backends: health, address, capabilities."""
    terminal = Terminal(json=json)
    run(_list(terminal, url, terminal.row_limit(limit, all_=all_)))


async def _list(terminal: Terminal, url: str | None, most: int | None) -> Exit:
    async with AsyncClient(url) as fleet:
        show_backends(terminal, await fleet.backends(), most)
    return Exit.OK


@app.command()
def add(
    backend: Annotated[
        str,
        typer.Argument(
            metavar="NAME=DSN",
            help="As in box=ollama://10.0.0.5:11434; NAME=@FILE reads the DSN, with its key, from "
            "a file, NAME=- from stdin.",
        ),
    ],
    *,
    json: Json = False,
    url: Url = None,
) -> None:
    """Start a worker for a backend in the running fleet; it stops with `fleet up`."""
    name, equals, dsn = backend_given(backend, "backends add").partition("=")
    if not (name and equals and dsn):
        raise typer.BadParameter("expected NAME=DSN, as in box=ollama://10.0.0.5:11434")
    run(_add(name, sys.stdin.readline().strip() if dsn == "-" else dsn, Terminal(json=json), url))


async def _add(name: str, dsn: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        found = await fleet.add_backend(name, dsn)
    if found is None:
        terminal.message(
            f"the worker of {name} is starting; `fleet backends` shows it once it has reported, "
            "`fleet logs` shows why if it does not"
        )
        if terminal.json:
            terminal.write_json_object({"name": name, "status": "starting"})
        return Exit.OK
    show_backends(terminal, (found,))
    return Exit.OK if found.healthy else Exit.FAILED


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Name of the backend.")],
    *,
    json: Json = False,
    url: Url = None,
) -> None:
    """Stop a backend's workers; running jobs are finished or handed over, others stay queued."""
    run(_remove(name, Terminal(json=json), url))


async def _remove(name: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        gone = await fleet.remove_backend(name)
    if terminal.json:
        terminal.print_rows((gone,), (), ())
        return Exit.OK
    wait = f"; {gone.waiting} jobs wait until it is added again" if gone.waiting else ""
    terminal.message(f"{name} is removed{wait}")
    return Exit.OK
