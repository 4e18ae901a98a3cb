"""Options that several commands share."""

import functools
import inspect
import re
from collections.abc import Callable
from datetime import datetime, time, timedelta
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

_TIME_OF_DAY: Final = re.compile(r"\d{1,2}:\d\d")


def next_time(text: str, now: datetime) -> float:
    """Unix seconds of what somebody types: `22:00` (the next one), or a `Moment`.

    A time of day is in the time zone of `now`, else by this machine's clock. Raises ValueError.
    """
    if not _TIME_OF_DAY.fullmatch(text.strip()):
        return unix_seconds(text)
    try:
        clock = time.fromisoformat(text.strip().zfill(len("00:00")))
    except ValueError:
        raise ValueError(f"{text!r} is no time of day: write it as in 22:00") from None
    wall = datetime.combine(now.date(), clock, now.tzinfo)
    if wall <= now:
        wall = datetime.combine(now.date() + timedelta(days=1), clock, now.tzinfo)
    return wall.timestamp()


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


def _key(given: str | None) -> SecretStr | None:
    if given is None:
        return None
    from fleet.cli.secret_options import api_key_given  # noqa: PLC0415 - slow to import

    return api_key_given(given)


def with_key(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--api-key` to a command that sends requests, which is one that has `--url`."""
    signature = inspect.signature(command, eval_str=True)
    if "url" not in signature.parameters:
        return command

    @functools.wraps(command)
    def command_with_key(*args: Any, api_key: str | None = None, **options: Any) -> Any:
        token = api_key_option.set(_key(api_key))
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
