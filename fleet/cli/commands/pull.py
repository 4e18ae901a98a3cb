"""`fleet pull`: download a model to a backend, with a bar for each layer."""

from typing import Annotated

import typer

from contract.errors import UnknownBackend
from contract.models import PullRequest
from fleet.cli.commands.options import Backend, Json, Url
from fleet.cli.event_printer import followed
from fleet.cli.exit_codes import Exit, run
from fleet.cli.interrupts import detachable
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient


def pull(
    model: Annotated[str, typer.Argument(help="As the backend names it.")],
    *,
    backend: Backend = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Download a model; Ctrl-C lets go of it, a second one cancels it."""
    run(_pull(model, backend, Terminal(json=json), url))


async def _pull(model: str, backend: str | None, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        where = backend or await _only_puller(fleet)
        job = await fleet.enqueue(PullRequest(model=model, backend=where))
        await detachable(followed(job, terminal), lambda: [job], terminal)
    terminal.say(f"{model} is on {where}")
    return Exit.OK


async def _only_puller(fleet: AsyncClient) -> str:
    able = [each.name for each in await fleet.backends() if "pull" in each.capabilities]
    if len(able) == 1:
        return able[0]
    names = ", ".join(able)
    raise UnknownBackend(
        f"name one with --backend: {names} can pull" if able else "no live backend can pull models"
    )
