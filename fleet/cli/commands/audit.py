"""`fleet audit`: who did what with rights to change the fleet, and who was refused."""

from collections.abc import Sequence
from typing import Annotated, Final

import typer

from contract.tenants import AuditEntry
from fleet.cli.commands.options import All, Json, Newest, Url
from fleet.cli.exit_codes import Exit, run
from fleet.cli.paging import collect_pages
from fleet.cli.tables import Ago, Id, Wrapped
from fleet.cli.terminal import DEFAULT_ROWS, Terminal
from fleet.client.async_client import AsyncClient

_COLUMNS: Final = ("when", "tenant", "key", "name", "action", "subject", "status", "from")

Refused = Annotated[
    bool, typer.Option("--refused", help="What was refused to keys that lack the permission.")
]


def audit(
    *,
    refused: Refused = False,
    limit: Newest = DEFAULT_ROWS,
    all_: All = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """List what was done with rights to change the fleet, newest first: who, when, what."""
    run(_audit(None if all_ else limit, Terminal(json=json), url, refused=refused))


async def _audit(most: int | None, terminal: Terminal, url: str | None, *, refused: bool) -> Exit:
    async with AsyncClient(url) as fleet:

        async def page(limit: int, before: str | None) -> tuple[Sequence[AuditEntry], str | None]:
            found = await fleet.audit(refused=refused, limit=limit, before=before)
            return found.entries, found.next

        entries, has_more = await collect_pages(page, most)
    terminal.print_rows(entries, _COLUMNS, (_row(entry) for entry in entries))
    if has_more and not terminal.json:
        terminal.message(f"the newest {len(entries)}: --limit N shows more, --all all of them")
    return Exit.OK


def _row(entry: AuditEntry) -> tuple[object, ...]:
    return (
        Ago(entry.at), entry.tenant, Id(entry.key) if entry.key else None, entry.key_name or None,
        entry.action, Wrapped(entry.subject), entry.status, entry.address or None,
    )  # fmt: skip
