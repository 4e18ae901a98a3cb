"""`fleet config show`: every setting, its value, and the origin of the value."""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from pydantic import SecretStr

from contract.errors import InvalidRequest
from contract.settings import FleetSettings
from fleet.cli.commands.options import Json
from fleet.cli.exit_codes import Exit, run
from fleet.cli.tables import Wrapped
from fleet.cli.terminal import Terminal
from fleet.client.settings import ClientSettings, UpSettings, data_folder
from relay.settings import RelaySettings
from workers.backends.dsn import VARIABLE_PREFIX, WELL_KNOWN

app = typer.Typer(help="Show the configuration.", no_args_is_help=True)


class Setting(NamedTuple):
    """A setting, its value and the origin of the value."""

    name: str
    value: str
    origin: str


@app.command()
def show(
    *,
    origin: Annotated[bool, typer.Option("--origin", help="Show origins of values.")] = False,
    json: Json = False,
) -> None:
    """Show every setting; secrets are masked."""
    run(_show(Terminal(json=json), with_origin=origin))


async def _show(terminal: Terminal, *, with_origin: bool) -> Exit:
    found = [*_settings(), *_backends()]
    if terminal.json:
        for each in found:
            terminal.write_json_object(each._asdict())
        return Exit.OK
    width = 3 if with_origin else 2
    columns = ("name", Wrapped("value"), "origin")
    terminal.print_table(columns[:width], (each[:width] for each in found))
    return Exit.OK


def _settings() -> Iterator[Setting]:
    file = _file()
    shown: set[str] = set()
    classes: list[type[FleetSettings]] = [ClientSettings, UpSettings, RelaySettings, *_others()]
    for settings in classes:
        values = settings()
        for name in settings.model_fields:
            if name not in shown:
                shown.add(name)
                value = data_folder().resolve() if name == "data_dir" else getattr(values, name)
                yield Setting(name, _masked(value), _origin(name, file))


def _others() -> tuple[type[FleetSettings], ...]:
    from api_shim.settings import ShimSettings  # noqa: PLC0415 - slow to import
    from workers.settings import WorkerSettings  # noqa: PLC0415

    return ShimSettings, WorkerSettings


def _origin(name: str, file: dict[str, Any]) -> str:
    variable = f"FLEET_{name.upper()}"
    if any(found.upper() == variable for found in os.environ):
        return f"environment ({variable})"
    return "fleet.toml" if name in file else "default"


def _backends() -> Iterator[Setting]:
    for variable in sorted(os.environ):
        value = os.environ[variable]
        if variable in WELL_KNOWN or (variable.startswith(VARIABLE_PREFIX) and "://" in value):
            yield Setting(variable, f"{value.partition('://')[0]}://***", "environment")
    for name in _file().get("backends", {}):
        yield Setting(f"backends.{name}", "***", "fleet.toml")


def _masked(value: object) -> str:
    """The text of a value; of a secret URL without its credentials, of other secrets `***`."""
    if not isinstance(value, SecretStr):
        return str(value)
    protocol, separator, rest = value.get_secret_value().partition("://")
    return f"{protocol}://{rest.rpartition('@')[2]}" if separator else str(value)


def _file() -> dict[str, Any]:
    file = Path("fleet.toml")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(f"fleet.toml: {error}") from error
