"""`fleet alias`: names that stand for models, with parameters and fallbacks."""

import json as json_text
from collections.abc import Iterable
from typing import Annotated, Any, Final

import typer

from contract.aliases.alias_table import AliasView, TargetView
from contract.redis_keys import BACKEND_NAME
from contract.wire import encode
from fleet.cli.commands.options import All, Json, Limit, Url
from fleet.cli.exit_codes import Exit, run
from fleet.cli.tables import Wrapped
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient

app = typer.Typer(
    help="List, set and remove aliases: names that stand for models.", no_args_is_help=True
)

_COLUMNS: Final = ("alias", Wrapped("stands for"), "origin", Wrapped("problem"))

Name = Annotated[str, typer.Argument(help="Name of the alias; `*` stands for any characters.")]
_PARAMETER: Final = "As in temperature=0.2 or num_ctx=16384; may be repeated."


def _target(text: str) -> dict[str, str]:
    """The target that `qwen3:8b` or `qwen3:8b@box` means."""
    model, at, backend = text.rpartition("@")
    if at and model and BACKEND_NAME.match(backend):
        return {"model": model, "backend": backend}
    return {"model": text}


def _parameters(given: Iterable[str], option: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{option} {each}: write it as in temperature=0.2")
        try:
            found[name] = json_text.loads(text)
        except ValueError:
            found[name] = text
    return found


@app.command("list")
def list_(*, limit: Limit = None, all_: All = False, json: Json = False, url: Url = None) -> None:
    """List aliases: what each stands for, in order, and what is wrong with it now."""
    terminal = Terminal(json=json)
    run(_list(terminal, url, terminal.row_limit(limit, all_=all_)))


async def _list(terminal: Terminal, url: str | None, most: int | None) -> Exit:
    async with AsyncClient(url) as fleet:
        found = await fleet.aliases()
    terminal.print_rows(found, _COLUMNS, (_row(alias) for alias in found), most)
    return Exit.OK


def _row(alias: AliasView) -> tuple[object, ...]:
    problems = [alias.problem] if alias.problem else []
    problems += [f"{each.model}: {each.problem}" for each in alias.targets if each.problem]
    if alias.shadows:
        problems.append("it hides a model of its name")
    targets = ", then ".join(map(_shown, alias.targets)) or alias.alias.model
    return alias.name, targets, alias.origin, "; ".join(problems) or None


def _shown(target: TargetView) -> str:
    return f"{target.model}@{target.backend}" if target.backend else target.model


@app.command()
def show(name: Name, *, json: Json = False, url: Url = None) -> None:
    """Show an alias: its targets, and its parameters to admins."""
    run(_show(name, Terminal(json=json), url))


async def _show(name: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        alias = await fleet.alias(name)
    _print(alias, terminal)
    return Exit.OK


def _print(alias: AliasView, terminal: Terminal) -> None:
    if terminal.json:
        terminal.write_json(encode(alias))
        return
    columns = ("target", "backend", "waits s", Wrapped("problem"))
    terminal.print_table(
        columns, ((it.model, it.backend, it.wait_s, it.problem) for it in alias.targets)
    )
    for field in ("default", "force"):
        for name, value in getattr(alias.alias, field).items():
            terminal.message(f"{field} {name} = {json_text.dumps(value, ensure_ascii=False)}")
    for text in filter(None, [alias.problem, alias.shadows and "it hides a model of its name"]):
        terminal.message(str(text))


@app.command("set")
def set_(
    name: Name,
    model: Annotated[str, typer.Argument(help="A model or another alias; MODEL@BACKEND.")],
    *,
    fallback: Annotated[
        list[str] | None,
        typer.Option("--fallback", "-f", help="MODEL or MODEL@BACKEND; repeated: in this order."),
    ] = None,
    default: Annotated[list[str] | None, typer.Option(help=f"If left out. {_PARAMETER}")] = None,
    force: Annotated[list[str] | None, typer.Option(help=f"Always. {_PARAMETER}")] = None,
    system: Annotated[
        str | None, typer.Option(help="System prompt of conversations that have none.")
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(min=0, max=86400, help="Seconds before a job moves on.  [default: 30]"),
    ] = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Set an alias for all shims at once; it replaces one of the same name."""
    fields: dict[str, Any] = {
        **_target(model),
        "fallbacks": [_target(each) for each in fallback or ()],
        "default": _parameters(default or (), "--default"),
        "force": _parameters(force or (), "--force"),
    }
    if system is not None:
        fields["default"]["system"] = system
    if wait is not None:
        fields["wait_s"] = wait
    run(_set(name, fields, Terminal(json=json), url))


async def _set(name: str, fields: dict[str, Any], terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        _print(await fleet.set_alias(name, **fields), terminal)
    return Exit.OK


@app.command()
def remove(name: Name, *, url: Url = None) -> None:
    """Remove an alias that was set; one of fleet.toml with its name counts again."""
    run(_remove(name, Terminal(json=False), url))


async def _remove(name: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        await fleet.remove_alias(name)
    terminal.message(f"the alias {name} is removed")
    return Exit.OK
