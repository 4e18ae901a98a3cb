"""`fleet tenants`: the deletion of what a tenant has."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import typer

from contract.tenants import TenantReceipt
from contract.wire import encode
from fleet.cli.commands.options import Json, Url
from fleet.cli.exit_codes import Exit, run
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient

app = typer.Typer(
    help="Delete everything that a tenant has, and read the receipt.", no_args_is_help=True
)

_RECEIPT_EVERY_S: Final = 1.0

Name = Annotated[str, typer.Argument(help="The tenant's name.")]


@app.command()
def delete(
    name: Name,
    *,
    confirm: Annotated[
        str | None, typer.Option(help="The name again, in place of the question.")
    ] = None,
    usage: Annotated[
        Literal["keep", "delete"], typer.Option(help="Whether to keep what it has used.")
    ] = "keep",
    wait: Annotated[bool, typer.Option(help="Wait until everything is deleted.")] = True,
    json: Json = False,
    url: Url = None,
) -> None:
    """Delete a tenant's keys, jobs, files, batches, webhooks and cached vectors, for good."""
    if confirm is None:
        confirm = typer.prompt(f"This cannot be undone. Write {name} to delete it", err=True)
    run(_delete(name, confirm, usage, Terminal(json=json), url, wait=wait))


async def _delete(
    name: str,
    confirm: str,
    usage: Literal["keep", "delete"],
    terminal: Terminal,
    url: str | None,
    *,
    wait: bool,
) -> Exit:
    async with AsyncClient(url) as fleet:
        receipt = await fleet.delete_tenant(name, confirm=confirm, usage=usage)
        while wait and receipt.status == "running":
            await asyncio.sleep(_RECEIPT_EVERY_S)
            receipt = await fleet.tenant_receipt(name)
    return _show_receipt(receipt, terminal)


@app.command()
def receipt(name: Name, *, json: Json = False, url: Url = None) -> None:
    """Show what the last deletion of a tenant has deleted."""
    run(_receipt(name, Terminal(json=json), url))


async def _receipt(name: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        found = await fleet.tenant_receipt(name)
    return _show_receipt(found, terminal)


def _when(at: float | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at, UTC):%F %T} UTC"


def _show_receipt(receipt: TenantReceipt, terminal: Terminal) -> Exit:
    if terminal.json:
        terminal.write_json(encode(receipt))
    else:
        for what, count in receipt.counts.items():
            terminal.write(f"{count:>10} {what.replace('_', ' ')}\n")
        kept = ", its usage is kept" if receipt.usage == "keep" else ""
        why = f": {receipt.reason}" if receipt.reason else ""
        began, end = (_when(at) for at in (receipt.requested_at, receipt.ended_at))
        ended = f" since {end}" if end else ""
        terminal.message(
            f"the deletion of {receipt.tenant}, which {receipt.requested_by} began {began}, is "
            f"{receipt.status}{ended}{why}{kept}"
        )
    return Exit.FAILED if receipt.status == "incomplete" else Exit.OK
