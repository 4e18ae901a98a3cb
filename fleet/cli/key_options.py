"""What `fleet keys` takes to say what a key may do and use, and how its text is read."""

import re
from typing import Annotated, Final

import typer

from contract.requests import Retention, retention_of
from contract.tenants import EVERY, USE

WaitingJobs = Annotated[
    int | None, typer.Option(help="Jobs of the tenant that may wait in one queue.")
]
WaitingTokens = Annotated[int | None, typer.Option(help="Estimated tokens of those jobs.")]
WaitingBytes = Annotated[
    int | None, typer.Option(help="Bytes of the requests of those jobs, and of scheduled ones.")
]
TokensMinute = Annotated[
    int | None, typer.Option(help="Tokens of prompts and answers in 60 seconds.")
]
TokensDay = Annotated[int | None, typer.Option(help="Tokens in a day (UTC).")]
SpendDay = Annotated[
    float | None, typer.Option(help="Money in a day (UTC), by the prices of FLEET_PRICES.")
]
SpendMonth = Annotated[float | None, typer.Option(help="Money in a month (UTC).")]

Allow = Annotated[
    str | None,
    typer.Option(
        help="What the key may do, with commas between: " + ", ".join(EVERY) + ", and `use` for "
        "all that a key may do by default: use models, and not change them.",
    ),
]
Models = Annotated[
    str | None,
    typer.Option(help="Only these models, with commas between; `*` stands for any characters."),
]
Backends = Annotated[str | None, typer.Option(help="Only these backends, in the same way.")]

Kept = Annotated[
    str | None,
    typer.Option(
        "--retention",
        help="How long the texts of its jobs are kept after their end at most: none, seconds, or "
        "ttl for as long as the fleet keeps any.",
    ),
]

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def names(text: str | None) -> list[str] | None:
    """The names of an option that has commas between them."""
    return None if text is None else [each.strip() for each in text.split(",") if each.strip()]


def retention_in(text: str | None) -> Retention | None:
    """A retention, as `--retention` has it."""
    try:
        return None if text is None else retention_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--retention") from None


def permissions_in(allow: str | None) -> list[str] | None:
    """The permissions of `--allow`, `use` among them spelled out."""
    given = names(allow)
    if given is None:
        return None
    found = [each for name in given for each in (USE if name == "use" else (name,))]
    unknown = [name for name in found if name not in EVERY]
    if unknown:
        raise typer.BadParameter(
            f"there is no permission {unknown[0][:40]}: choose from use, {', '.join(EVERY)}",
            param_hint="--allow",
        )
    return found


def duration_s(text: str) -> float:
    """Seconds, of a text as 90d."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise typer.BadParameter("expected a number and s, m, h or d, as in 90d")
    return float(match[1]) * _SECONDS[match[2]]
