"""`fleet dead`: dead letters and unreadable messages: list, show, retry, purge."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from contract.jobs import DeadLetter, DeadView
from contract.wire import encode
from fleet.cli.commands.jobs import JobId, retry_all
from fleet.cli.commands.options import All, Json, Newest, Url
from fleet.cli.exit_codes import Exit, run
from fleet.cli.paging import collect_pages
from fleet.cli.tables import Ago, Id, Wrapped
from fleet.cli.terminal import DEFAULT_ROWS, Terminal
from fleet.client.async_client import AsyncClient

app = typer.Typer(
    help="Jobs that ran out of attempts: list, show, retry, purge.", no_args_is_help=False
)

Jobs = Annotated[
    list[str] | None, typer.Argument(metavar="JOB...", help="Ids, or unique prefixes.")
]
Queue = Annotated[str | None, typer.Option(help="As in ollama.chat.")]
Kind = Annotated[str | None, typer.Option(help="chat, embed, pull ...")]
Tenant = Annotated[str | None, typer.Option(help="Only of this tenant; for admins.")]
_COLUMNS: Final = ("job", "queue", "model", "tenant", "tries", "died", "error")


@app.callback(invoke_without_command=True)
def newest(context: typer.Context) -> None:
    """List the newest dead letters if no command is given."""
    if context.invoked_subcommand is None:
        run(_list({}, DEFAULT_ROWS, Terminal(), None))


@app.command("list")
def list_(
    *,
    queue: Queue = None,
    kind: Kind = None,
    tenant: Tenant = None,
    limit: Newest = DEFAULT_ROWS,
    all_: All = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """List dead letters, newest first, each with its last error."""
    most = None if all_ else limit
    run(_list(_which(queue, kind, tenant), most, Terminal(json=json), url))


def _which(queue: str | None, kind: str | None, tenant: str | None) -> dict[str, Any]:
    given = {"queue": queue, "kind": kind, "tenant": tenant}
    return {name: value for name, value in given.items() if value is not None}


async def _list(
    which: dict[str, Any], most: int | None, terminal: Terminal, url: str | None
) -> Exit:
    async with AsyncClient(url) as fleet:
        unreadable = 0

        async def page(limit: int, before: str | None) -> tuple[Sequence[DeadLetter], str | None]:
            nonlocal unreadable
            found = await fleet.dead(**which, limit=limit, before=before)
            unreadable = found.unreadable or unreadable
            return found.letters, found.next

        letters, has_more = await collect_pages(page, most)
    terminal.print_rows(letters, _COLUMNS, (_row(letter) for letter in letters))
    if has_more and not terminal.json:
        terminal.message(f"the newest {len(letters)}: --limit N shows more, --all all of them")
    if unreadable:
        terminal.message(f"{unreadable} messages could not be read: `fleet dead messages`")
    return Exit.OK


@app.command()
def messages(
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200)] = DEFAULT_ROWS,
    purge: Annotated[bool, typer.Option("--purge", help="Delete all of them.")] = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """List messages that no worker could read; --json has their first bytes in base64."""
    run(_messages(limit, Terminal(json=json), url, purge=purge))


async def _messages(limit: int, terminal: Terminal, url: str | None, *, purge: bool) -> Exit:
    async with AsyncClient(url) as fleet:
        page = await fleet.dead_messages(limit=limit)
        gone = await fleet.purge_dead_messages() if purge else None
    rows = (
        (Ago(it.at), it.queue, it.size_bytes, it.job_id and Id(it.job_id), it.reason)
        for it in page.messages
    )
    terminal.print_rows(page.messages, ("set aside", "queue", "bytes", "job", Wrapped("why")), rows)
    if page.total > len(page.messages):
        terminal.message(f"{page.total} in total; the newest 1,000 are kept")
    if gone is not None:
        terminal.message(f"{gone} messages deleted")
    return Exit.OK


def _row(letter: DeadLetter) -> tuple[object, ...]:
    return (
        Id(letter.id), letter.queue, letter.model, letter.tenant, letter.tries,
        Ago(letter.dead_at), letter.error and letter.error.code,
    )  # fmt: skip


def _time(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")


@app.command()
def show(job: JobId, *, json: Json = False, url: Url = None) -> None:
    """Show a dead letter: its record and last error; with --json also its request."""
    run(_show(job, Terminal(json=json), url))


async def _show(job_id: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        view = await fleet.dead_letter(job_id)
    if terminal.json:
        terminal.write_json(encode(view))
    else:
        terminal.print_table(("field", Wrapped("value")), _facts(view))
    return Exit.OK


def _facts(view: DeadView) -> list[tuple[str, object]]:
    facts = view.model_dump(exclude={"request", "error", "v", "metadata"}, exclude_none=True)
    for name in ("created_at", "deadline_at", "started_at", "ended_at", "dead_at"):
        if name in facts:
            facts[name] = _time(facts[name])
    facts["error"] = view.error and f"{view.error.code}: {view.error.message}"
    return [(name, value) for name, value in facts.items() if value not in (None, "")]


@app.command()
def retry(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="`fleet dead` shows them.")],
    *,
    json: Json = False,
    url: Url = None,
) -> None:
    """Run dead letters again, each as a new job; repeated: the same new job."""
    run(retry_all(jobs, Terminal(json=json), url))


@app.command()
def purge(
    jobs: Jobs = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="All of them, or all that match.")] = False,
    queue: Queue = None,
    kind: Kind = None,
    tenant: Tenant = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """Delete dead letters: those named, or --all that match. Asks for confirmation."""
    which = _which(queue, kind, tenant)
    if bool(jobs) == all_ or (jobs and which):
        raise typer.BadParameter("give either jobs, or --all with filters")
    what = f"{len(jobs)} dead letters" if jobs else "all dead letters"
    matching = "".join(f" of {name} {value}" for name, value in which.items())
    if not yes:
        typer.confirm(f"Delete {what}{matching}?", abort=True, err=True)
    run(_purge(jobs or [], which, Terminal(json=json), url))


async def _purge(
    jobs: list[str], which: dict[str, Any], terminal: Terminal, url: str | None
) -> Exit:
    async with AsyncClient(url) as fleet:
        if jobs:
            purged = sum([await fleet.purge_dead(job_id) for job_id in jobs])
        else:
            purged = await fleet.purge_dead(**which)
    if terminal.json:
        terminal.write_json_object({"purged": purged})
    else:
        terminal.message(f"{purged} dead letters deleted")
    return Exit.OK
