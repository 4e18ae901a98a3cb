"""`fleet pull`, `show`, `load`, `unload`, `rm`, `cp`, `create`: one model of a backend."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from pydantic_core import from_json

from contract.errors import UnknownBackend
from contract.json_lines import json_line
from contract.models import PullRequest
from contract.result import Result
from fleet.cli.commands.options import Backend, Json, Url
from fleet.cli.event_printer import print_events
from fleet.cli.exit_codes import Exit, run
from fleet.cli.interrupts import detachable
from fleet.cli.tables import Wrapped
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient
from fleet.client.job import raise_job_ended
from fleet.client.requests import request_of

Named = Annotated[str, typer.Argument(metavar="MODEL", help="As the backend names it.")]
_LONGEST_VALUE = 160


def pull(
    model: Named,
    *,
    backend: Backend = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Download a model; Ctrl-C detaches from the job, a second one cancels it."""
    run(_pull(model, backend, Terminal(json=json), url))


async def _pull(model: str, backend: str | None, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        where = backend or await _only_puller(fleet)
        job = await fleet.enqueue(PullRequest(model=model, backend=where))
        await detachable(print_events(job, terminal), lambda: [job], terminal)
    terminal.message(f"{model} is on {where}")
    return Exit.OK


async def _only_puller(fleet: AsyncClient) -> str:
    able = [each.name for each in await fleet.backends() if "pull" in each.capabilities]
    if len(able) == 1:
        return able[0]
    names = ", ".join(able)
    raise UnknownBackend(
        f"name one with --backend: {names} can pull" if able else "no live backend can pull models"
    )


def show(model: Named, *, backend: Backend = None, json: Json = False, url: Url = None) -> None:
    """Show the details of a model as its backend reports them."""
    run(_show(model, backend, Terminal(json=json), url))


async def _show(model: str, backend: str | None, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        job = await fleet.enqueue("show", model=model, backend=backend)
        result = await job.outcome()
    raise_job_ended(job.id, result)
    details = result.details or {}
    if terminal.json:
        terminal.write_json_object(details)
    else:
        terminal.print_table(("field", Wrapped("value")), facts(details))
    return Exit.OK


def facts(details: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A row for each field, nested ones as `details.family`; long texts are cut."""
    rows: list[tuple[str, str]] = []
    for name, value in details.items():
        if isinstance(value, dict):
            rows += facts(value, f"{prefix}{name}.")
        elif value not in (None, "", [], ()):
            rows.append((prefix + name, _short(value)))
    return rows


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json_line(value).decode()
    first, *more = text.strip().splitlines() or [""]
    is_cut = bool(more) or len(first) > _LONGEST_VALUE
    return first[:_LONGEST_VALUE] + (" ..." if is_cut else "")


def load(
    model: Named,
    *,
    keep_alive: Annotated[
        float | None, typer.Option(help="Seconds to stay in memory; negative: forever.")
    ] = None,
    backend: Backend = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Load a model into memory."""
    fields = {"model": model, "keep_alive_s": keep_alive, "backend": backend}
    run(_done("load", fields, f"{model} is loaded", Terminal(json=json), url))


def unload(model: Named, *, backend: Backend = None, json: Json = False, url: Url = None) -> None:
    """Unload a model from memory."""
    fields = {"model": model, "backend": backend}
    run(_done("unload", fields, f"{model} is unloaded", Terminal(json=json), url))


def rm(model: Named, *, backend: Backend = None, json: Json = False, url: Url = None) -> None:
    """Delete a model from a backend."""
    fields = {"model": model, "backend": backend}
    run(_done("delete", fields, f"{model} is deleted", Terminal(json=json), url))


def cp(
    source: Annotated[str, typer.Argument(help="The model.")],
    destination: Annotated[str, typer.Argument(help="Name of the copy.")],
    *,
    backend: Backend = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Copy a model to another name."""
    fields = {"model": source, "destination": destination, "backend": backend}
    run(_done("copy", fields, f"{destination} is a copy of {source}", Terminal(json=json), url))


def create(
    name: Annotated[str, typer.Argument(help="Name of the new model.")],
    *,
    source: Annotated[str, typer.Option("--from", help="The model to create it from.")],
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    template: Annotated[str | None, typer.Option(help="Template of the prompt.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="As in temperature=0.2."),
    ] = None,
    backend: Backend = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Create a model from another, with its own system prompt and parameters."""
    fields = {
        "model": name,
        "source": source,
        "system": system,
        "template": template,
        "parameters": parameters(parameter or ()),
        "backend": backend,
    }
    run(_done("create", fields, f"{name} is created from {source}", Terminal(json=json), url))


def parameters(given: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` arguments; a value is JSON or else text, a repeated key makes a list.

    Raises typer.BadParameter.
    """
    found: dict[str, Any] = {}
    for each in given:
        key, equals, text = each.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"{each}: expected KEY=VALUE, as in temperature=0.2")
        try:
            value = from_json(text)
        except ValueError:
            value = text
        if key in found:
            before = found[key]
            value = [*(before if isinstance(before, list) else [before]), value]
        found[key] = value
    return found


async def _done(
    kind: Any, fields: dict[str, Any], success: str, terminal: Terminal, url: str | None
) -> Exit:
    request = request_of(kind, {name: value for name, value in fields.items() if value is not None})
    async with AsyncClient(url) as fleet:
        job = await fleet.enqueue(request)
        result: Result = await detachable(print_events(job, terminal), lambda: [job], terminal)
    where = f" on {job.accepted.queue.rpartition('.')[0]}" if job.accepted else ""
    terminal.message(f"{success}{where}")
    if result.ignored:
        terminal.message(f"ignored: {', '.join(result.ignored)}")
    return Exit.OK
