"""`fleet doctor`: check this machine, a row a check; exit 1 if something needed is broken."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from fleet.cli.commands.options import Json, Url
from fleet.cli.exit_codes import Exit, run
from fleet.cli.tables import Wrapped
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient
from fleet.doctor.finding import Finding
from fleet.doctor.vectors import vectors

app = typer.Typer(help="Find what is wrong on this machine, and how to fix it.")


@app.callback(invoke_without_command=True)
def doctor(context: typer.Context, *, json: Json = False) -> None:
    """Find what is wrong on this machine, and how to fix it."""
    if context.invoked_subcommand is None:
        run(_doctor(Terminal(json=json)))


@app.command()
def embed(
    model: Annotated[str | None, typer.Argument(help="[default: every model that embeds]")] = None,
    *,
    json: Json = False,
    url: Url = None,
) -> None:
    """Compare vectors of texts sent alone and together, to see whether jobs may share requests."""

    async def command() -> Exit:
        async with AsyncClient(url) as fleet:
            return _report(await vectors(fleet, model), Terminal(json=json))

    run(command())


async def _doctor(terminal: Terminal) -> Exit:
    return _report(await findings(), terminal)


def _report(found: Sequence[Finding], terminal: Terminal) -> Exit:
    """Print the findings; returns the exit code."""
    terminal.print_rows(
        found, ("", Wrapped("what"), Wrapped("found")), (_row(each) for each in found)
    )
    broken = [each.what for each in found if each.state == "broken"]
    if broken:
        terminal.message(f"{len(broken)} broken: {', '.join(broken)}", "bold red")
    return Exit.FAILED if broken else Exit.OK


def _row(found: Finding) -> tuple[str, str, str]:
    marks = {"ok": "ok", "note": "note", "broken": "BROKEN"}
    fix = f"\n-> {found.fix}" if found.fix else ""
    return marks[found.state], found.what, found.detail + fix


async def findings() -> list[Finding]:
    """The findings of all checks, in the order in which they are shown."""
    # Imported here because they import every backend.
    from fleet.doctor import machine, services  # noqa: PLC0415

    redis, shims, backends = await asyncio.gather(
        services.redis(), services.shims(), services.backends()
    )
    return [
        machine.python(),
        *redis,
        machine.data_folder(),
        machine.port(any(each.state == "ok" for each in shims)),
        *shims,
        *backends,
        machine.open_files(),
        machine.local_embeddings(),
        machine.llama_server(),
    ]
