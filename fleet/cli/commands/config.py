"""`fleet config show`: every setting, its value, and its origin. `fleet trust`: of fleet.toml."""

import json as json_text
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from pydantic import SecretStr

from contract.errors import InvalidRequest
from contract.settings import (
    TABLES,
    TOO_DEEP,
    FleetSettings,
    digest,
    guarded,
    read_trusted,
    trusted_list,
)
from fleet.atomic_file import whole
from fleet.cli.commands.options import Json
from fleet.cli.exit_codes import Exit, run
from fleet.cli.tables import Wrapped
from fleet.cli.terminal import Terminal
from fleet.client.settings import ClientSettings, UpSettings, data_folder
from relay.settings import RelaySettings
from telemetry.plain_text import redacted
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
    return "fleet.toml" if {name, TABLES.get(name)} & file.keys() else "default"


def _backends() -> Iterator[Setting]:
    for variable in sorted(os.environ):
        value = os.environ[variable]
        if variable.startswith(VARIABLE_PREFIX) and value.startswith("@/"):
            yield Setting(variable, value, "environment")  # the name of a file
        elif variable in WELL_KNOWN or (variable.startswith(VARIABLE_PREFIX) and "://" in value):
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
    except RecursionError:
        raise InvalidRequest(f"fleet.toml: {TOO_DEEP}") from None


def trust(
    file: Annotated[
        Path, typer.Argument(help="The file, or its folder.", show_default=True)
    ] = Path("fleet.toml"),
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Trust it no longer.")] = False,
    json: Json = False,
) -> None:
    """Let a fleet.toml set addresses, folders and who may call, as it sets them now."""

    async def command() -> Exit:
        return _trust(given, Terminal(json=json), remove=remove)

    given = file / "fleet.toml" if file.is_dir() else file
    run(command())


def _trust(file: Path, terminal: Terminal, *, remove: bool) -> Exit:
    place, known = str(file.resolve()), read_trusted()
    told: dict[str, Any] = {}
    if remove:
        known.pop(place, None)
    else:
        found = _read(file)
        told, known[place] = guarded(found), digest(file, found)
    _write(known)
    if terminal.json:
        terminal.write_json_object({"file": place, "trusted": not remove, "settings": list(told)})
        return Exit.OK
    for name, value in told.items():
        terminal.message(f"{name} = {_shown(name, value)}")
    terminal.message(f"{place} is trusted {'no longer' if remove else 'with these settings'}")
    return Exit.OK


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{file} cannot be read: {error}") from None
    except RecursionError:
        raise InvalidRequest(f"{file} cannot be read: {TOO_DEEP}") from None


def _shown(name: str, value: Any) -> str:
    """A value for the terminal; keys are masked."""
    if name.endswith("_key"):
        return "***"
    if isinstance(value, dict):
        return ", ".join(f"{each}: {_address(entry)}" for each, entry in value.items())
    return redacted(str(value))


def _address(entry: Any) -> str:
    """Where a backend is, as far as that is no secret."""
    if isinstance(entry, dict):
        entry = entry.get("url") or entry.get("urls") or entry.get("type")
    return redacted(str(entry))


def _write(known: dict[str, str]) -> None:
    place = trusted_list()
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(f"cannot write to {place.parent}: {error.strerror}") from error
    with whole(place, private=True) as opened:
        opened.write(json_text.dumps(known, indent=1, sort_keys=True).encode())
