"""`fleet queues`: list them; pause and resume one, and set its run windows."""

from typing import Annotated

import typer

from contract.roster import QueueTimes, QueueView, utc
from fleet.cli.commands.options import All, Json, Limit, Url, time_of
from fleet.cli.exit_codes import Exit, run
from fleet.cli.tables import span
from fleet.cli.terminal import Terminal
from fleet.client.async_client import AsyncClient

app = typer.Typer(help="List queues; pause and resume one, and set its run windows.")

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="As in box.chat.")]


@app.callback(invoke_without_command=True)
def all_(
    context: typer.Context,
    *,
    limit: Limit = None,
    all_: All = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """List queues if no command is given, busy ones first."""
    if context.invoked_subcommand is None:
        terminal = Terminal(json=json)
        run(_list(terminal, url, terminal.row_limit(limit, all_=all_)))


@app.command("list")
def list_(*, limit: Limit = None, all_: All = False, json: Json = False, url: Url = None) -> None:
    """List queues, busy ones first: waiting and running jobs, age of the oldest, pauses."""
    terminal = Terminal(json=json)
    run(_list(terminal, url, terminal.row_limit(limit, all_=all_)))


async def _list(terminal: Terminal, url: str | None, most: int | None) -> Exit:
    async with AsyncClient(url) as fleet:
        found = sorted(await fleet.queues(), key=_busy_first)
    columns = (
        "queue", "waiting", "oldest", "running", "slots", "workers", "ended/s", "paused", "windows",
    )  # fmt: skip
    rows = (
        (
            each.name,
            each.depth,
            None if each.oldest_s is None else span(each.oldest_s),
            each.in_flight,
            each.slots,
            each.workers,
            each.drain_per_s and f"{each.drain_per_s:.3g}",
            _pause(each),
            "; ".join(each.windows) or None,
        )
        for each in found
    )
    terminal.print_rows(found, columns, rows, most)
    return Exit.OK


def _busy_first(queue: QueueView) -> tuple[bool, bool, bool, str]:
    return queue.paused is None, not queue.depth, not queue.in_flight, queue.name


def _pause(queue: QueueView) -> str | None:
    if queue.paused is None:
        return None
    until = queue.paused.until
    return "yes" if until is None else f"until {utc(until)}"


@app.command()
def pause(
    queue: Name,
    *,
    until: Annotated[
        str | None,
        typer.Option(
            help="When it runs again: 06:00 (the next one here), RFC 3339, or unix seconds.  "
            "[default: once it is resumed]"
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="For those who wait, at most 200 characters.")] = "",
    json: Json = False,
    url: Url = None,
) -> None:
    """Start no more jobs of a queue: those that run go on, others wait. For admins."""
    run(_pause_one(queue, time_of(until, "--until"), reason, Terminal(json=json), url))


async def _pause_one(
    queue: str, until: float | None, reason: str, terminal: Terminal, url: str | None
) -> Exit:
    async with AsyncClient(url) as fleet:
        return _told(terminal, await fleet.pause_queue(queue, until=until, reason=reason))


@app.command()
def resume(queue: Name, *, json: Json = False, url: Url = None) -> None:
    """Start jobs of a paused queue again. For admins."""
    run(_resume(queue, Terminal(json=json), url))


async def _resume(queue: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        return _told(terminal, await fleet.resume_queue(queue))


@app.command()
def windows(
    queue: Name,
    windows: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WINDOW...", help='As in "mon-fri 22:00-06:00 Europe/Berlin", each quoted.'
        ),
    ] = None,
    *,
    always: Annotated[bool, typer.Option(help="Remove them: it runs at any time.")] = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """Let a queue run only at these times of the week; outside of them it is paused. For admins."""
    if bool(windows) == always:
        raise typer.BadParameter("give run windows, or --always to remove them")
    run(_windows(queue, windows or [], Terminal(json=json), url))


async def _windows(queue: str, windows: list[str], terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        return _told(terminal, await fleet.set_run_windows(queue, windows))


def _told(terminal: Terminal, times: QueueTimes) -> Exit:
    if terminal.json:
        terminal.print_rows((times,), (), ())
        return Exit.OK
    now = "its jobs start" if times.paused is None else times.paused.text
    when = f"; run windows: {'; '.join(times.windows)}" if times.windows else ""
    terminal.message(f"{times.name}: {now}{when}")
    return Exit.OK
