"""Exit codes of the `fleet` command, and the mapping from errors to them."""

import asyncio
import sys
from collections.abc import Coroutine
from enum import IntEnum
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from contract.errors import FleetError, InvalidRequest, InvalidSetting
from fleet.client.errors import (
    FleetUnreachable,
    GaveUpWaiting,
    JobCancelled,
    JobEnded,
    NoFleet,
    NotAuthorised,
)
from fleet.visible import visible


class Exit(IntEnum):
    """Exit codes; scripts rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    GAVE_UP_WAITING = 3
    NOT_AUTHORISED = 4
    JOB_FAILED = 5
    DEAD_LETTERED = 6
    UNREACHABLE = 7
    INTERRUPTED = 130


_OF_ERRORS: dict[type[FleetError], Exit] = {
    FleetUnreachable: Exit.UNREACHABLE,
    NoFleet: Exit.UNREACHABLE,
    NotAuthorised: Exit.NOT_AUTHORISED,
    GaveUpWaiting: Exit.GAVE_UP_WAITING,
    JobCancelled: Exit.JOB_FAILED,
    InvalidRequest: Exit.USAGE,
    InvalidSetting: Exit.USAGE,
}


_COMMANDS = {"GET /api/v1/models": "`fleet models`", "POST /api/v1/jobs/pull": "`fleet pull`"}
"""Commands by the request that each makes."""


def exit_of(error: FleetError) -> Exit:
    """The exit code for an error."""
    if isinstance(error, JobEnded):
        return Exit.DEAD_LETTERED if error.is_dead else Exit.JOB_FAILED
    codes = (code for kind, code in _OF_ERRORS.items() if isinstance(error, kind))
    return next(codes, Exit.FAILED)


def run(command: Coroutine[Any, Any, Exit | None]) -> NoReturn:
    """Run a command and exit with its code; an error is printed on stderr."""
    try:
        code = asyncio.run(command) or Exit.OK
    except FleetError as error:
        complain(error)
        code = exit_of(error)
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    raise typer.Exit(code)


def complain(error: FleetError) -> None:
    """Print an error on stderr."""
    # Not as markup: a message has words of backends and models, which may look like a tag.
    text = Text.assemble(("error", "bold red"), f": {visible(_as_commands(error.message))}")
    Console(stderr=True, soft_wrap=True).print(text)
    sys.stderr.flush()


def _as_commands(text: str) -> str:
    """The message with commands in place of the paths that the shim recommends."""
    for path, command in _COMMANDS.items():
        text = text.replace(path, command)
    return text
