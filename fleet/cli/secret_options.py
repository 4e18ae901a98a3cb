"""Options that may hold a key: they take it from a file, never from the command line.

Every user of a machine can list the command lines of all its processes.
"""

from pathlib import Path
from typing import Final

import typer
from pydantic import SecretStr

from workers.backends.dsn import DsnError, parse
from workers.config import secret_file

FILE_MARK: Final = "@"
"""Begins a value that is the name of a file."""
_KEPT: Final = "every user of this machine can read the command lines of its processes"


def backend_given(option: str, flag: str = "--backend") -> str:
    """`NAME=DSN` of an option `NAME=DSN` or `NAME=@FILE`; raises typer.BadParameter.

    A DSN with a key must come from a file.
    """
    name, equals, dsn = option.partition("=")
    variable = f"LLM_{name.upper()}"
    if not equals:
        return option  # refused where its name is checked
    if dsn.startswith(FILE_MARK):
        return f"{name}={_read(f'{flag} {name}', dsn)}"
    try:
        has_key = parse(variable, dsn).key is not None
    except DsnError:
        return option
    if has_key:
        raise typer.BadParameter(
            f"{flag} {name}: its DSN holds a key, and {_KEPT}: write the DSN into a file and give "
            f"{name}=@FILE, or set {variable} in the environment"
        )
    return option


def api_key_given(value: str | None) -> SecretStr | None:
    """The key in the file that `--api-key @FILE` names; raises typer.BadParameter."""
    if value is None:
        return None
    if not value.startswith(FILE_MARK):
        raise typer.BadParameter(
            f"--api-key takes a file, because {_KEPT}: write the key into one and give "
            "--api-key @FILE, or set FLEET_API_KEY"
        )
    return SecretStr(_read("--api-key", value))


def _read(option: str, value: str) -> str:
    try:
        return secret_file(option, Path(value.removeprefix(FILE_MARK)).expanduser())
    except DsnError as error:
        raise typer.BadParameter(str(error)) from None
