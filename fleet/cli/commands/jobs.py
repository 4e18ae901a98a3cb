"""`fleet jobs`: list, show, watch and cancel jobs, and retry dead letters."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer
from pydantic import ValidationError

from contract.events import BEGINNING, EventId
from contract.jobs import JobSummary, JobView
from contract.requests import Kind
from contract.result import Status
from contract.roster import utc
from contract.wire import WireModel, encode
from fleet.cli.commands.options import All, Json, Newest, Raw, Timeout, Url
from fleet.cli.event_printer import print_events
from fleet.cli.exit_codes import Exit, run
from fleet.cli.interrupts import detachable
from fleet.cli.paging import collect_pages
from fleet.cli.tables import Ago, Id, Wrapped
from fleet.cli.terminal import DEFAULT_ROWS, Terminal
from fleet.client.async_client import AsyncClient
from fleet.client.job import with_time_limit

app = typer.Typer(
    help="List, show, watch and cancel jobs; retry dead letters.",
    no_args_is_help=False,
)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Its id, or a unique prefix.")]
_COLUMNS = ("job", "status", "queue", "model", "tries", "age")


@app.callback(invoke_without_command=True)
def newest(context: typer.Context) -> None:
    """List the newest jobs if no command is given."""
    if context.invoked_subcommand is None:
        run(_list(Terminal(), None, JobFilter(), DEFAULT_ROWS))


@app.command("list")
def list_(
    *,
    status: Annotated[str | None, typer.Option(help="queued, running, done, failed ...")] = None,
    kind: Annotated[str | None, typer.Option(help="chat, embed, pull ...")] = None,
    queue: Annotated[str | None, typer.Option(help="As in ollama.chat.")] = None,
    limit: Newest = DEFAULT_ROWS,
    all_: All = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """List jobs, newest first."""
    given = {"status": status, "kind": kind, "queue": queue}
    try:
        wanted = JobFilter.model_validate({name: value for name, value in given.items() if value})
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"]) from error
    run(_list(Terminal(json=json), url, wanted, None if all_ else limit))


class JobFilter(WireModel):
    """Which jobs to list; None: all."""

    status: Status | None = None
    kind: Kind | None = None
    queue: str | None = None


async def _list(terminal: Terminal, url: str | None, wanted: JobFilter, most: int | None) -> Exit:
    async with AsyncClient(url) as fleet:

        async def page(limit: int, before: str | None) -> tuple[Sequence[JobSummary], str | None]:
            found = await fleet.jobs(**dict(wanted), limit=limit, before=before)
            return found.jobs, found.next

        jobs, has_more = await collect_pages(page, most)
    terminal.print_rows(jobs, _COLUMNS, (_row(record) for record in jobs))
    if has_more and not terminal.json:
        terminal.message(f"the newest {len(jobs)}: --limit N shows more, --all all of them")
    return Exit.OK


def _row(record: JobSummary) -> tuple[object, ...]:
    return (
        Id(record.id), record.status, record.queue, record.model, record.tries,
        Ago(record.created_at),
    )  # fmt: skip


@app.command()
def scheduled(
    *,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=200, help="Number of jobs.")
    ] = 50,
    json: Json = False,
    url: Url = None,
) -> None:
    """List jobs that may not start yet, the next first, and what they wait for."""
    run(_scheduled(limit, Terminal(json=json), url))


async def _scheduled(limit: int, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        found = await fleet.scheduled(limit)
    columns = ("job", "waits for", "queue", "model", "tenant")
    rows = [(Id(job.id), _obstacle(job), job.queue, job.model, job.tenant) for job in found.jobs]
    terminal.print_rows(found.jobs, columns, rows)
    if not (found.complete or terminal.json):
        terminal.message(f"the first {len(found.jobs)} that were found; there are more")
    return Exit.OK


def _obstacle(job: JobSummary) -> str:
    if job.blocked:
        return ", ".join(parent[:8] for parent in (*job.after, *job.after_any))
    return utc(job.not_before or 0.0)


@app.command()
def show(job: JobId, *, json: Json = False, url: Url = None) -> None:
    """Show a job: its record, its position in the queue, its result so far."""
    run(_show(job, Terminal(json=json), url))


async def _show(job_id: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        view = await fleet.job(job_id).view()
    if terminal.json:
        terminal.write_json(encode(view))
    else:
        terminal.print_table(("field", Wrapped("value")), _facts(view))
    return Exit.OK


def _facts(view: JobView) -> list[tuple[str, object]]:
    facts = view.model_dump(exclude={"result", "v", "metadata"}, exclude_none=True)
    times = "created_at", "not_before", "freed_at", "deadline_at", "started_at", "ended_at"
    for name in times:
        if name in facts:
            facts[name] = datetime.fromtimestamp(facts[name]).astimezone().isoformat(" ", "seconds")
    result = view.result
    shown = {
        "error": result.error and f"{result.error.code}: {result.error.message}",
        "vectors": result.embeddings and result.embeddings.count,
        "documents": len(result.ranking) or None,
        "words": result.content,
    }
    return [(name, value) for name, value in (facts | shown).items() if value not in (None, "")]


@app.command()
def watch(
    job: JobId,
    *,
    after: Annotated[str | None, typer.Option(help="Only events after this id, as 1-17.")] = None,
    timeout: Timeout = None,
    raw: Raw = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """Print a job's events, all or after an id; Ctrl-C detaches, a second one cancels."""
    try:
        cursor = EventId.parse(after) if after else BEGINNING
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    run(_watch(job, cursor, timeout, Terminal(json=json, raw=raw), url))


async def _watch(
    job_id: str, after: EventId, timeout_s: float | None, terminal: Terminal, url: str | None
) -> Exit:
    async with AsyncClient(url) as fleet:
        job = fleet.job(job_id)
        watching = with_time_limit(print_events(job, terminal, after), job, timeout_s)
        await detachable(watching, lambda: [job], terminal)
    return Exit.OK


@app.command()
def cancel(job: JobId, *, json: Json = False, url: Url = None) -> None:
    """Cancel a job in any phase; repeated: the same output."""
    run(_cancel(job, Terminal(json=json), url))


async def _cancel(job_id: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        view = await fleet.job(job_id).cancel()
    if terminal.json:
        terminal.write_json(encode(view))
    else:
        terminal.write(f"{view.id} {view.status}\n")
    return Exit.OK


@app.command()
def retry(job: JobId, *, json: Json = False, url: Url = None) -> None:
    """Run a dead letter again as a new job; repeated: the same new job."""
    run(retry_all([job], Terminal(json=json), url))


async def retry_all(job_ids: list[str], terminal: Terminal, url: str | None) -> Exit:
    """Run dead letters again, and print the ids of the new jobs."""
    async with AsyncClient(url) as fleet:
        for job_id in job_ids:
            new = await fleet.job(job_id).retry()
            if terminal.json and new.accepted is not None:
                terminal.write_json(encode(new.accepted))
            else:
                terminal.write(f"{new.id}\n")
                terminal.message(f"{job_id} runs again: `fleet jobs watch {new.id}` follows it")
    return Exit.OK
