"""Options that several commands share, and those that may hold a key.

Every user of a machine can list the command lines of all its processes, so such an option takes the
name of a file.
"""

import functools
import inspect
import re
from collections.abc import Callable
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import SecretStr

from contract.requests import unix_seconds
from fleet.client.settings import api_key_option

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Raw = Annotated[
    bool,
    typer.Option(
        "--raw", help="Let control characters of the text reach the terminal as they are."
    ),
]
Url = Annotated[
    str | None,
    typer.Option("--url", help="URLs of shims, separated by commas.  [default: FLEET_URL]"),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="@FILE",
        help="File with the API key.  [default: FLEET_API_KEY]",
    ),
]
Backend = Annotated[str | None, typer.Option("--backend", "-b", help="Name of the backend.")]
Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Name of the model.  [default: a suitable one]")
]
Timeout = Annotated[
    float | None,
    typer.Option(min=0.001, help="Seconds to wait; the job continues then."),
]

Limit = Annotated[
    int | None,
    typer.Option("--limit", "-n", min=1, help="Number of rows.  [default: 20, in a pipe all]"),
]
Newest = Annotated[
    int, typer.Option("--limit", "-n", min=1, max=1_000_000, help="Number of newest rows.")
]
All = Annotated[bool, typer.Option("--all", "-a", help="Every row.")]

FILE_MARK: Final = "@"
"""Begins a value that is the name of a file."""
_KEPT: Final = "every user of this machine can read the command lines of its processes"
_TIME_OF_DAY: Final = re.compile(r"\d{1,2}:\d\d")


def next_time(text: str, now: datetime) -> float:
    """Unix seconds of what somebody types: `22:00` (the next one), or a `Moment`.

    A time of day is in the time zone of `now`, else by this machine's clock. One that comes twice
    in the night is the next of both, one that the clocks skip is as much later. Raises ValueError.
    """
    if not _TIME_OF_DAY.fullmatch(text.strip()):
        return unix_seconds(text)
    try:
        clock = time.fromisoformat(text.strip().zfill(len("00:00")))
    except ValueError:
        raise ValueError(f"{text!r} is no time of day: write it as in 22:00") from None
    days = (now.date(), now.date() + timedelta(days=1))
    walls = (datetime.combine(day, clock, now.tzinfo) for day in days)
    times = (wall.replace(fold=fold).timestamp() for wall in walls for fold in (0, 1))
    return next(at for at in times if at > now.timestamp())


At = Annotated[
    str | None,
    typer.Option(
        "--at",
        help="Start at this time: 22:00 (the next one here), RFC 3339, or unix seconds.",
    ),
]


def time_of(at: str | None, option: str = "--at") -> float | None:
    """Unix seconds of an option's time; raises typer.BadParameter."""
    try:
        # Without a time zone, because the offset of now may not be that of tonight.
        return None if at is None else next_time(at, datetime.now())  # noqa: DTZ005
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from None


PASSED: Final = "that time has passed"
"""Said of a time to start at that changes nothing."""


def backend_given(option: str, flag: str = "--backend") -> str:
    """`NAME=DSN` of an option `NAME=DSN` or `NAME=@FILE`; raises typer.BadParameter.

    A DSN with a key must come from a file.
    """
    from workers.backends.dsn import DsnError, parse  # noqa: PLC0415 - slow to import

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
    from workers.backends.dsn import DsnError  # noqa: PLC0415 - slow to import
    from workers.config import secret_file  # noqa: PLC0415

    try:
        return secret_file(option, Path(value.removeprefix(FILE_MARK)).expanduser())
    except DsnError as error:
        raise typer.BadParameter(str(error)) from None


def with_key(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--api-key` to a command that sends requests, which is one that has `--url`."""
    signature = inspect.signature(command, eval_str=True)
    if "url" not in signature.parameters:
        return command

    @functools.wraps(command)
    def command_with_key(*args: Any, api_key: str | None = None, **options: Any) -> Any:
        token = api_key_option.set(api_key_given(api_key))
        try:
            return command(*args, **options)
        finally:
            api_key_option.reset(token)

    option = inspect.Parameter(
        "api_key", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ApiKey
    )
    command_with_key.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), option]
    )
    command_with_key.__annotations__ = {**command.__annotations__, "api_key": ApiKey}
    return command_with_key


def all_with_key(group: typer.Typer) -> typer.Typer:
    """Add `--api-key` to each command of a group that sends requests; returns the group."""
    for each in (*group.registered_commands, group.registered_callback):
        if each is not None and each.callback is not None:
            each.callback = with_key(each.callback)
    return group
