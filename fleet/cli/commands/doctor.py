"""`fleet doctor`: look at everything, a row each; exit 1 if something that is needed is broken."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from fleet.cli.commands.options import Json, Url
from fleet.cli.exit_codes import Exit, run
from fleet.cli.tables import Whole
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient
from fleet.doctor.finding import Finding
from fleet.doctor.vectors import vectors

app = typer.Typer(help="Find what is wrong on this machine, and say the fix.")


@app.callback(invoke_without_command=True)
def doctor(context: typer.Context, *, json: Json = False) -> None:
    """Find what is wrong on this machine, and say the fix."""
    if context.invoked_subcommand is None:
        run(_doctor(Terminal(json=json)))


@app.command()
def embed(
    model: Annotated[str | None, typer.Argument(help="Else every model that embeds.")] = None,
    *,
    json: Json = False,
    url: Url = None,
) -> None:
    """Compare vectors of texts that are sent alone and together: may jobs share requests?"""

    async def command() -> Exit:
        async with AsyncClient(url) as fleet:
            return _told(await vectors(fleet, model), Terminal(json=json))

    run(command())


async def _doctor(terminal: Terminal) -> Exit:
    return _told(await findings(), terminal)


def _told(found: Sequence[Finding], terminal: Terminal) -> Exit:
    terminal.rows(found, ("", Whole("what"), Whole("found")), (_row(each) for each in found))
    sick = [each for each in found if each.state == "broken"]
    if sick:
        terminal.say(f"{len(sick)} broken: {', '.join(each.what for each in sick)}", "bold red")
    return Exit.FAILED if sick else Exit.OK


def _row(found: Finding) -> tuple[str, str, str]:
    marks = {"ok": "ok", "note": "note", "broken": "BROKEN"}
    fix = f"\n-> {found.fix}" if found.fix else ""
    return marks[found.state], found.what, found.detail + fix


async def findings() -> list[Finding]:
    """Everything, in the order in which a person would ask."""
    # They load every backend, which no other command should wait for.
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
