"""`fleet jobs`: list them, look at one, follow one, cancel one, run a dead one again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer
from pydantic import ValidationError

from contract.events import BEGINNING, EventId
from contract.jobs import JobRecord, JobView
from contract.requests import Kind
from contract.result import Status
from contract.wire import WireModel, encode
from fleet.cli.commands.options import All, Json, Newest, Timeout, Url
from fleet.cli.event_printer import followed
from fleet.cli.exit_codes import Exit, run
from fleet.cli.interrupts import detachable
from fleet.cli.tables import Ago, Id, Whole
from fleet.cli.terminal import FEW, Terminal
from fleet.client.async_client import AsyncClient
from fleet.client.job import patiently
from fleet.client.paging import gathered

app = typer.Typer(
    help="List jobs, look at one, follow one, cancel one, run a dead one again.",
    no_args_is_help=False,
)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Its id, or enough of its beginning.")]
_COLUMNS = ("job", "status", "queue", "model", "try", "age")


@app.callback(invoke_without_command=True)
def newest(context: typer.Context) -> None:
    """List the newest jobs when no other verb is given."""
    if context.invoked_subcommand is None:
        run(_list(Terminal(), None, JobChoice(), FEW))


@app.command("list")
def list_(
    *,
    status: Annotated[str | None, typer.Option(help="queued, running, done, failed ...")] = None,
    kind: Annotated[str | None, typer.Option(help="chat, embed, pull ...")] = None,
    queue: Annotated[str | None, typer.Option(help="As in ollama.chat.")] = None,
    limit: Newest = FEW,
    all_: All = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """List jobs, newest first."""
    given = {"status": status, "kind": kind, "queue": queue}
    try:
        wanted = JobChoice.model_validate({name: value for name, value in given.items() if value})
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"]) from error
    run(_list(Terminal(json=json), url, wanted, None if all_ else limit))


class JobChoice(WireModel):
    """Which jobs to list."""

    status: Status | None = None
    kind: Kind | None = None
    queue: str | None = None


async def _list(terminal: Terminal, url: str | None, wanted: JobChoice, most: int | None) -> Exit:
    async with AsyncClient(url) as fleet:

        async def page(limit: int, before: str | None) -> tuple[Sequence[JobRecord], str | None]:
            found = await fleet.jobs(**dict(wanted), limit=limit, before=before)
            return found.jobs, found.next

        jobs, has_more = await gathered(page, most)
    terminal.rows(jobs, _COLUMNS, (_row(record) for record in jobs))
    if has_more and not terminal.json:
        terminal.say(f"the newest {len(jobs)}: --limit N shows more, --all all of them")
    return Exit.OK


def _row(record: JobRecord) -> tuple[object, ...]:
    return (
        Id(record.id), record.status, record.queue, record.model, record.attempt,
        Ago(record.created_at),
    )  # fmt: skip


@app.command()
def show(job: JobId, *, json: Json = False, url: Url = None) -> None:
    """Look at one job: its record, where it stands, what it said so far."""
    run(_show(job, Terminal(json=json), url))


async def _show(job_id: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        view = await fleet.job(job_id).view()
    if terminal.json:
        terminal.line(encode(view))
    else:
        terminal.table(("field", Whole("value")), _facts(view))
    return Exit.OK


def _facts(view: JobView) -> list[tuple[str, object]]:
    facts = view.model_dump(exclude={"result", "v", "metadata"}, exclude_none=True)
    for name in ("created_at", "deadline_at", "started_at", "ended_at"):
        if name in facts:
            facts[name] = datetime.fromtimestamp(facts[name]).astimezone().isoformat(" ", "seconds")
    result = view.result
    told = {
        "error": result.error and f"{result.error.code}: {result.error.message}",
        "vectors": result.embeddings and result.embeddings.count,
        "words": result.content,
    }
    return [(name, value) for name, value in (facts | told).items() if value not in (None, "")]


@app.command()
def watch(
    job: JobId,
    *,
    after: Annotated[str | None, typer.Option(help="Only events after this id, as 1-17.")] = None,
    timeout: Timeout = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Follow a job from its first word, or from a cursor; Ctrl-C lets go, a second one cancels."""
    try:
        cursor = EventId.parse(after) if after else BEGINNING
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    run(_watch(job, cursor, timeout, Terminal(json=json), url))


async def _watch(
    job_id: str, after: EventId, timeout_s: float | None, terminal: Terminal, url: str | None
) -> Exit:
    async with AsyncClient(url) as fleet:
        job = fleet.job(job_id)
        watching = patiently(followed(job, terminal, after), job, timeout_s)
        await detachable(watching, lambda: [job], terminal)
    return Exit.OK


@app.command()
def cancel(job: JobId, *, json: Json = False, url: Url = None) -> None:
    """Cancel a job in any phase; again: the same answer."""
    run(_cancel(job, Terminal(json=json), url))


async def _cancel(job_id: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        view = await fleet.job(job_id).cancel()
    if terminal.json:
        terminal.line(encode(view))
    else:
        terminal.words(f"{view.id} {view.status}\n")
    return Exit.OK


@app.command()
def retry(job: JobId, *, json: Json = False, url: Url = None) -> None:
    """Run a dead letter again as a new job; again: the same new job."""
    run(retried([job], Terminal(json=json), url))


async def retried(job_ids: list[str], terminal: Terminal, url: str | None) -> Exit:
    """Run dead letters again, and say as which jobs."""
    async with AsyncClient(url) as fleet:
        for job_id in job_ids:
            new = await fleet.job(job_id).retry()
            if terminal.json and new.accepted is not None:
                terminal.line(encode(new.accepted))
            else:
                terminal.words(f"{new.id}\n")
                terminal.say(f"{job_id} runs again: `fleet jobs watch {new.id}` follows it")
    return Exit.OK
