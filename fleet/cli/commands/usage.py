"""`fleet usage`: what tenants used, as a table, or as a CSV or Parquet file."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from contract.errors import InvalidRequest
from contract.usage import GROUPS, GroupBy, UsagePage, UsageRow
from fleet.atomic_file import whole
from fleet.cli.commands.options import All, Backend, Json, Limit, Url
from fleet.cli.exit_codes import Exit, run
from fleet.cli.tables import span
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient

_PAGE: Final = 1000
_NUMBERS: Final = (
    "requests", "prompt_tokens", "completion_tokens", "cached_tokens", "images", "backend_s",
    "estimated",
)  # fmt: skip
_HEADINGS: Final = ("requests", "in", "out", "cached", "images", "seconds", "estimated")

From = Annotated[
    datetime | None,
    typer.Option("--from", formats=["%Y-%m-%d"], help="First day (UTC).  [default: 30 days ago]"),
]
To = Annotated[
    datetime | None,
    typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, included.  [default: today]"),
]
By = Annotated[str, typer.Option(help="What tells rows apart: day, tenant, backend, model, kind.")]
Limits = Annotated[bool, typer.Option("--limits", help="Show how full the limits are instead.")]
Csv = Annotated[Path | None, typer.Option("--csv", dir_okay=False, help="Write a CSV file.")]
Parquet = Annotated[
    Path | None, typer.Option("--parquet", dir_okay=False, help="Write a Parquet file.")
]


def usage(
    *,
    from_: From = None,
    to: To = None,
    by: By = "day,tenant,model",
    tenant: Annotated[str | None, typer.Option(help="Of this tenant (an admin's key).")] = None,
    backend: Backend = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Of this model.")] = None,
    csv: Csv = None,
    parquet: Parquet = None,
    limits: Limits = False,
    limit: Limit = None,
    all_: All = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """Show tokens, requests, images, seconds and cost, by day, tenant and model."""
    which = {
        "first_day": from_ and from_.date(), "last_day": to and to.date(), "tenant": tenant,
        "backend": backend, "model": model,
    }  # fmt: skip
    terminal = Terminal(json=json)
    most = terminal.row_limit(limit, all_=all_)

    async def command() -> Exit:
        groups = _groups(by)
        async with AsyncClient(url) as fleet:
            if limits:
                await _show_limits(fleet, terminal, tenant)
            elif csv is None and parquet is None:
                await _show(fleet, terminal, groups, which, most)
            if csv is not None:
                data = await fleet.usage_file("csv", group_by=groups, **which)
                _write(terminal, csv, data)
            if parquet is not None:
                data = await fleet.usage_file("parquet", group_by=groups, **which)
                _write(terminal, parquet, data)
        return Exit.OK

    run(command())


def _groups(text: str) -> tuple[GroupBy, ...]:
    names = {name.strip() for name in text.split(",") if name.strip()}
    unknown = sorted(names - set(GROUPS))
    if unknown:
        raise InvalidRequest(f"--by: there is no {unknown[0]!r}; choose from {', '.join(GROUPS)}")
    return tuple(name for name in GROUPS if name in names)


def _write(terminal: Terminal, file: Path, data: bytes) -> None:
    with whole(file) as opened:
        opened.write(data)
    terminal.message(f"wrote {file} ({len(data)} bytes)")


async def _show_limits(fleet: AsyncClient, terminal: Terminal, tenant: str | None) -> None:
    found = await fleet.usage_limits(tenant)
    if terminal.json:
        terminal.print_rows(found, (), ())
        return
    rows = [
        (each.tenant, limit.name, f"{limit.used:g}", f"{limit.limit:g}",
         f"{limit.used / limit.limit:.0%}", span(limit.free_in_s), each.reserved_jobs)
        for each in found
        for limit in each.limits
    ]  # fmt: skip
    columns = ("tenant", "limit", "used", "of", "full", "free in", "open jobs")
    terminal.print_table(columns, rows)
    if not rows:
        terminal.message("no tenant has a limit of tokens or money")


async def _show(
    fleet: AsyncClient,
    terminal: Terminal,
    groups: Sequence[GroupBy],
    which: dict[str, Any],
    most: int | None,
) -> None:
    rows: list[UsageRow] = []
    after: str | None = None
    while True:
        page = await fleet.usage(group_by=groups, limit=_PAGE, after=after, **which)
        rows += page.rows
        after = page.next
        if after is None or (most is not None and len(rows) > most):
            break
    columns = (*groups, *_HEADINGS, f"cost ({page.currency})")
    terminal.print_rows(rows, columns, (_cells(groups, row) for row in rows), most)
    if not terminal.json:
        terminal.message(_total(page))


def _cells(groups: Sequence[GroupBy], row: UsageRow) -> tuple[object, ...]:
    names = (getattr(row, name) or None for name in groups)
    numbers = (getattr(row, name) for name in _NUMBERS)
    return (*names, *numbers, f"{row.cost:.6f}")


def _total(page: UsagePage) -> str:
    total = page.total
    said = f", {total.estimated} of them with estimated tokens" if total.estimated else ""
    return (
        f"{page.first_day} to {page.last_day}: {total.requests} requests{said}, "
        f"{total.prompt_tokens} tokens in, {total.completion_tokens} out, "
        f"{total.cost:.4f} {page.currency}"
    )
