"""Options that many commands take, spelt once."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from fleet.client.settings import spoken_key

Json = Annotated[bool, typer.Option("--json", help="One JSON object, or one a line.")]
Url = Annotated[
    str | None,
    typer.Option("--url", help="Shims to ask, separated by commas.  [default: FLEET_URL]"),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        help="Who asks; other users of this machine may see it in the process list.  "
        "[default: FLEET_API_KEY]",
    ),
]
Backend = Annotated[str | None, typer.Option("--backend", "-b", help="Name of the backend.")]
Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Name of the model; else one that can do it.")
]
Timeout = Annotated[
    float | None, typer.Option(min=0.001, help="Seconds to wait for the end; the job goes on.")
]

Limit = Annotated[
    int | None,
    typer.Option("--limit", "-n", min=1, help="Rows.  [default: 20, in a pipe all]"),
]
Newest = Annotated[
    int, typer.Option("--limit", "-n", min=1, max=1_000_000, help="The newest so many.")
]
All = Annotated[bool, typer.Option("--all", "-a", help="Every row.")]


def with_key(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with `--api-key`, if it is one that asks a shim: one that takes `--url`."""
    taken = inspect.signature(command, eval_str=True)
    if "url" not in taken.parameters:
        return command

    @functools.wraps(command)
    def keyed(*args: Any, api_key: str | None = None, **options: Any) -> Any:
        token = spoken_key.set(SecretStr(api_key) if api_key else None)
        try:
            return command(*args, **options)
        finally:
            spoken_key.reset(token)

    option = inspect.Parameter(
        "api_key", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ApiKey
    )
    keyed.__signature__ = taken.replace(  # type: ignore[attr-defined] # what inspect reads
        parameters=[*taken.parameters.values(), option]
    )
    keyed.__annotations__ = {**command.__annotations__, "api_key": ApiKey}
    return keyed


def all_with_key(group: typer.Typer) -> typer.Typer:
    """The group, with `--api-key` for each of its commands that asks a shim."""
    for each in (*group.registered_commands, group.registered_callback):
        if each is not None and each.callback is not None:
            each.callback = with_key(each.callback)
    return group
