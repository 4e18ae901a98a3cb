"""`fleet webhooks`: addresses to which the ends of jobs and batches are posted."""

import time
from typing import Annotated, Final

import typer

from contract.batches import window_s
from contract.webhooks.webhook_models import Delivery, DeliveryState, IssuedWebhook, WebhookView
from contract.wire import encode
from fleet.cli.commands.options import All, Json, Limit, Url, time_of
from fleet.cli.exit_codes import Exit, run
from fleet.cli.tables import Ago, Wrapped
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient

app = typer.Typer(
    help="Have the ends of jobs and batches posted to an address, signed.", no_args_is_help=True
)

_COLUMNS: Final = (
    "webhook", Wrapped("address"), Wrapped("events"), "name", "waiting", Wrapped("problem"),
    "created",
)  # fmt: skip
_DELIVERIES: Final = (
    "delivery", "event", "of", "state", "tries", "status", Wrapped("problem"), "ended",
)  # fmt: skip
Webhook = Annotated[
    str,
    typer.Argument(
        help="Id of the webhook; `callbacks` for the addresses that single requests name."
    ),
]


@app.command()
def add(
    address: Annotated[str, typer.Argument(help="Where events are posted: an http or https URL.")],
    *,
    event: Annotated[
        list[str] | None,
        typer.Option(
            "--event",
            "-e",
            help="As in job.failed, job.*, response.* or batch.*; may be repeated."
            "  [default: job.* and batch.*]",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="A note for humans.")] = "",
    json: Json = False,
    url: Url = None,
) -> None:
    """Register an address and print the secret of its signatures, only this once."""
    run(_add(address, event or [], name, Terminal(json=json), url))


async def _add(
    address: str, events: list[str], name: str, terminal: Terminal, url: str | None
) -> Exit:
    fields = {"events": events} if events else {}
    async with AsyncClient(url) as fleet:
        _show(await fleet.webhooks.add(address, name=name, **fields), terminal)
    return Exit.OK


def _show(issued: IssuedWebhook, terminal: Terminal) -> None:
    if terminal.json:
        terminal.write_json(encode(issued))
        return
    terminal.write(f"{issued.secret.get_secret_value()}\n")
    what = issued.id if issued.url is None else f"webhook {issued.id}, {issued.url}"
    terminal.message(f"the secret of {what}, shown only once: the receiver verifies with it")


@app.command("list")
def list_(*, limit: Limit = None, all_: All = False, json: Json = False, url: Url = None) -> None:
    """List webhooks: what waits for each, and why the last try failed."""
    terminal = Terminal(json=json)
    run(_list(terminal, url, terminal.row_limit(limit, all_=all_)))


async def _list(terminal: Terminal, url: str | None, most: int | None) -> Exit:
    async with AsyncClient(url) as fleet:
        found = await fleet.webhooks.list()
    terminal.print_rows(found, _COLUMNS, (_row(each) for each in found), most)
    return Exit.OK


def _row(webhook: WebhookView) -> tuple[object, ...]:
    problem = f"disabled: {webhook.disabled_reason}" if webhook.disabled_at else webhook.error
    if webhook.tries and not webhook.disabled_at:
        problem = f"{webhook.tries} failed tries, the last: {problem}"
    return (
        webhook.id, webhook.url or "of each request", " ".join(webhook.events),
        webhook.name or None, webhook.waiting, problem or None, Ago(webhook.created_at),
    )  # fmt: skip


@app.command()
def rotate(
    webhook: Webhook,
    *,
    overlap: Annotated[
        str, typer.Option(help="How long the old secret signs, too, as in 24h; 0: not at all.")
    ] = "24h",
    json: Json = False,
    url: Url = None,
) -> None:
    """Replace a secret and print the new one, only this once. `callbacks` gets its first one."""
    run(_rotate(webhook, _seconds(overlap, "--overlap"), Terminal(json=json), url))


async def _rotate(webhook: str, overlap_s: float, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        _show(await fleet.webhooks.rotate(webhook, overlap_s), terminal)
    return Exit.OK


def _seconds(text: str, option: str) -> float:
    if text.strip() == "0":
        return 0.0
    try:
        return window_s(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from None


@app.command()
def remove(webhook: Webhook, *, url: Url = None) -> None:
    """Remove a webhook, and what waits for it."""
    run(_remove(webhook, Terminal(json=False), url))


async def _remove(webhook: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        await fleet.webhooks.remove(webhook)
    terminal.message(f"the webhook {webhook} is removed")
    return Exit.OK


@app.command()
def enable(webhook: Webhook, *, url: Url = None) -> None:
    """Post to a webhook again, what waits for it at once; `replay` sends what it has missed."""
    run(_enable(webhook, Terminal(json=False), url, enabled=True))


@app.command()
def disable(webhook: Webhook, *, url: Url = None) -> None:
    """Post nothing to a webhook until it is enabled."""
    run(_enable(webhook, Terminal(json=False), url, enabled=False))


async def _enable(webhook: str, terminal: Terminal, url: str | None, *, enabled: bool) -> Exit:
    async with AsyncClient(url) as fleet:
        await fleet.webhooks.change(webhook, enabled=enabled)
    terminal.message(f"the webhook {webhook} is {'enabled' if enabled else 'disabled'}")
    return Exit.OK


@app.command()
def deliveries(
    webhook: Webhook,
    *,
    state: Annotated[
        str | None, typer.Option(help="Only those: waiting, delivered, failed or dropped.")
    ] = None,
    limit: Limit = None,
    all_: All = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """List deliveries, the newest first: what was sent, how often, and the last answer."""
    terminal = Terminal(json=json)
    most = terminal.row_limit(limit, all_=all_)
    run(_deliveries(webhook, _state(state), terminal, url, most))


def _state(text: str | None) -> DeliveryState | None:
    match text:
        case None | "waiting" | "delivered" | "failed" | "dropped":
            return text
        case _:
            raise typer.BadParameter("--state: it is waiting, delivered, failed or dropped")


async def _deliveries(
    webhook: str,
    state: DeliveryState | None,
    terminal: Terminal,
    url: str | None,
    most: int | None,
) -> Exit:
    async with AsyncClient(url) as fleet:
        found = await fleet.webhooks.deliveries(webhook, state=state, limit=1000)
    terminal.print_rows(found, _DELIVERIES, (_delivery(each) for each in found), most)
    return Exit.OK


def _delivery(delivery: Delivery) -> tuple[object, ...]:
    return (
        delivery.id, delivery.type, delivery.subject, delivery.state, delivery.tries,
        delivery.status, delivery.error or None, Ago(delivery.at),
    )  # fmt: skip


@app.command()
def replay(
    webhook: Webhook,
    delivery: Annotated[
        str | None, typer.Argument(help="Id of one delivery, as `deliveries` lists it.")
    ] = None,
    *,
    since: Annotated[
        str | None,
        typer.Option(
            help="All of what has ended since: a duration as in 2h, RFC 3339, or unix seconds."
        ),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="With --since: only those that failed or were dropped.")
    ] = False,
    url: Url = None,
) -> None:
    """Deliver again, with the same ids, in the order of the ends."""
    if (delivery is None) == (since is None):
        raise typer.BadParameter("give the id of a delivery, or --since")
    run(_replay(webhook, delivery, _moment(since), Terminal(json=False), url, failed_only=failed))


def _moment(since: str | None) -> float | None:
    if since is None:
        return None
    try:
        return time.time() - window_s(since)
    except ValueError:
        return time_of(since, "--since")


async def _replay(
    webhook: str,
    delivery: str | None,
    since: float | None,
    terminal: Terminal,
    url: str | None,
    *,
    failed_only: bool,
) -> Exit:
    async with AsyncClient(url) as fleet:
        told = await fleet.webhooks.replay(
            webhook, id=delivery, since=since, failed_only=failed_only
        )
    left = f"; {told.dropped} more have no room in its queue" if told.dropped else ""
    terminal.message(f"deliveries that are made again: {told.replayed}{left}")
    return Exit.OK
