"""`fleet batch`: submit a file of requests, watch its progress, cancel it, download its results."""

import asyncio
import sys
from codecs import getincrementaldecoder
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, cast

import typer
from rich.progress import Progress, TaskID
from typing_extensions import override

from contract.errors import InvalidRequest, RequestError
from contract.roster import utc
from contract.wire import encode
from fleet.atomic_file import check_apart, whole
from fleet.cli.commands.options import PASSED, All, At, Backend, Json, Newest, Timeout, Url, time_of
from fleet.cli.exit_codes import Exit, run
from fleet.cli.paging import collect_pages
from fleet.cli.tables import Ago, Id
from fleet.cli.terminal import DEFAULT_ROWS, Terminal
from fleet.client.async_client import AsyncClient
from fleet.client.batches import AsyncBatches, BatchView, first_endpoint
from fleet.client.errors import GaveUpWaiting
from fleet.embed.encoding import check_utf8_lines
from fleet.visible import visible, visible_json

app = typer.Typer(help="Files of requests: submit, watch, cancel, results.", no_args_is_help=False)

BatchId = Annotated[
    str, typer.Argument(metavar="BATCH", help="As in batch_0123..., or a unique prefix.")
]
_COLUMNS: Final = ("batch", "status", "endpoint", "total", "done", "failed", "created")
_POLL_S: Final = 1.0


@app.callback(invoke_without_command=True)
def newest(context: typer.Context) -> None:
    """List the newest batches if no command is given."""
    if context.invoked_subcommand is None:
        run(_list(DEFAULT_ROWS, Terminal(), None))


@app.command("list")
def list_(
    *,
    limit: Newest = DEFAULT_ROWS,
    all_: All = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """List batches, newest first."""
    run(_list(None if all_ else limit, Terminal(json=json), url))


async def _list(most: int | None, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        found, has_more = await collect_pages(fleet.batches.page, most)
    terminal.print_rows(found, _COLUMNS, (_row(batch) for batch in found))
    if has_more and not terminal.json:
        terminal.message(f"the newest {len(found)}: --limit N shows more, --all all of them")
    return Exit.OK


def _row(batch: BatchView) -> tuple[object, ...]:
    counts = batch.request_counts
    status = f"from {utc(batch.not_before or 0)}" if batch.is_scheduled else batch.status
    return (
        Id(batch.id), status, batch.endpoint, counts.total, counts.completed, counts.failed,
        Ago(batch.created_at),
    )  # fmt: skip


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="One request a line.")],
    *,
    endpoint: Annotated[
        str | None, typer.Option(help="As in /v1/embeddings.  [default: the first line's]")
    ] = None,
    window: Annotated[str, typer.Option(help="Time until it expires: 30m, 24h, 7d.")] = "24h",
    backend: Backend = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Watch it until it ends.")] = False,
    at: At = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Upload a file of requests and start its batch; prints the batch's id.

    With --at its requests start then; the file is checked at once, and this terminal is not needed.
    """
    fields = {
        "endpoint": endpoint, "completion_window": window, "backend": backend,
        "not_before": time_of(at),
    }  # fmt: skip
    run(_submit(file, fields, Terminal(json=json), url, wait=wait))


async def _submit(
    file: Path,
    fields: dict[str, Any],
    terminal: Terminal,
    url: str | None,
    *,
    wait: bool,
) -> Exit:
    try:
        check_utf8_lines(file)
        fields["endpoint"] = fields["endpoint"] or first_endpoint(file)
    except OSError as error:
        raise InvalidRequest(f"cannot read {file}: {error.strerror}") from error
    async with AsyncClient(url) as fleet:
        with terminal.bytes_bar() as bar, _ProgressFile(file, bar) as opened:
            batch = await fleet.batches.submit(opened, name=file.name, **fields)
        if not terminal.json:
            terminal.write(f"{batch.id}\n")
        elif not wait:
            terminal.write_json(encode(batch))
        if wait:
            return await _watched(fleet.batches, batch, None, terminal)
        if batch.not_before is not None:
            terminal.message(f"its requests start at {utc(batch.not_before)}")
        elif fields["not_before"] is not None:
            terminal.message(f"{PASSED}: its requests start at once")
        terminal.message(f"follow it with `fleet batch watch {batch.id}`")
        return Exit.OK


class _ProgressFile(BufferedReader):
    """A file that shows on a bar how much of it was read."""

    def __init__(self, file: Path, bar: Progress) -> None:
        super().__init__(file.open("rb", buffering=0))
        self._bar = bar
        self._task = bar.add_task(visible(f"upload {file.name}"), total=file.stat().st_size)

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._bar.update(self._task, completed=self.tell())
        return data


@app.command()
def watch(batch: BatchId, *, timeout: Timeout = None, json: Json = False, url: Url = None) -> None:
    """Show the progress of a batch until it ends; Ctrl-C stops watching, the batch continues."""
    run(_watch(batch, timeout, Terminal(json=json), url))


async def _watch(
    batch_id: str, timeout_s: float | None, terminal: Terminal, url: str | None
) -> Exit:
    async with AsyncClient(url) as fleet:
        batch = await fleet.batches.look(batch_id)
        return await _watched(fleet.batches, batch, timeout_s, terminal)


async def _watched(
    batches: AsyncBatches, batch: BatchView, timeout_s: float | None, terminal: Terminal
) -> Exit:
    last = batch
    try:
        async with asyncio.timeout(timeout_s):
            with nullcontext() if terminal.json else terminal.count_bar("batch") as bar:
                task = bar.add_task(batch.status, total=None, rate="") if bar else None
                async with aclosing(_changes(batches, batch)) as changes:
                    async for last in changes:
                        _show(last, terminal, bar, task)
    except TimeoutError:
        raise GaveUpWaiting(f"batch {batch.id} is {last.status} and continues") from None
    except asyncio.CancelledError:
        terminal.message(
            f"batch {batch.id} continues without this terminal: follow it with `fleet batch watch "
            f"{batch.id}`, cancel it with `fleet batch cancel {batch.id}`"
        )
        raise
    return _report(last, terminal)


async def _changes(batches: AsyncBatches, batch: BatchView) -> AsyncGenerator[BatchView, None]:
    """Yield the batch, and again after each change until it has ended."""
    yield batch
    while not batch.has_ended:
        await asyncio.sleep(_POLL_S)
        now = await batches.look(batch.id)
        if now != batch:
            batch = now
            yield batch


def _show(batch: BatchView, terminal: Terminal, bar: Progress | None, task: TaskID | None) -> None:
    if bar is None or task is None:
        terminal.write_json(encode(batch))
        return
    counts = batch.request_counts
    failed = f", {counts.failed} failed" if counts.failed else ""
    bar.update(
        task,
        description=batch.status + failed,
        total=counts.total or None,
        completed=counts.completed + counts.failed,
    )
    speed = bar.tasks[task].speed
    bar.update(task, rate=f"{speed:.0f}/s" if speed else "")


def _report(batch: BatchView, terminal: Terminal) -> Exit:
    """Print how a batch ended; returns the exit code."""
    counts = batch.request_counts
    terminal.message(
        f"batch {batch.id}: {batch.status}, {counts.completed} of {counts.total} completed, "
        f"{counts.failed} failed"
    )
    for error in batch.errors.data if batch.errors else ():
        where = f"line {error.line}: " if error.line else ""
        terminal.message(f"{where}{error.message} ({error.code})", style="red")
    return Exit.OK if batch.status == "completed" else Exit.JOB_FAILED


@app.command()
def cancel(batch: BatchId, *, json: Json = False, url: Url = None) -> None:
    """Cancel a batch; results of requests that are done by then can be downloaded."""
    run(_cancel(batch, Terminal(json=json), url))


async def _cancel(batch_id: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        batch = await fleet.batches.cancel(batch_id)
    if terminal.json:
        terminal.write_json(encode(batch))
    else:
        terminal.write(f"{batch.id} {batch.status}\n")
    return Exit.OK


@app.command()
def results(
    batch: BatchId,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="File of results; - is stdout.")],
    errors: Annotated[Path | None, typer.Option(help="File of errors; - is stdout.")] = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Download the results of a batch that has ended, in no particular order."""
    run(_results(batch, out, errors, Terminal(json=json), url))


async def _results(
    batch_id: str, out: Path, errors: Path | None, terminal: Terminal, url: str | None
) -> Exit:
    check_apart([], [each for each in (out, errors) if each is not None and str(each) != "-"])
    async with AsyncClient(url) as fleet:
        batch = await fleet.batches.look(batch_id)
        if not batch.has_ended:
            raise RequestError(
                f"batch {batch.id} is {batch.status}: wait for it with `fleet batch watch "
                f"{batch.id}`, or cancel it with `fleet batch cancel {batch.id}`"
            )
        for file_id, path in ((batch.output_file_id, out), (batch.error_file_id, errors)):
            if file_id is not None and path is not None:
                await _fetch(fleet.batches, file_id, path, terminal)
    if batch.error_file_id is not None and errors is None:
        terminal.message(
            f"{batch.request_counts.failed} requests failed: --errors FILE fetches why"
        )
    if terminal.json:
        terminal.write_json(encode(batch))
    return Exit.OK if batch.output_file_id else _report(batch, terminal)


async def _fetch(batches: AsyncBatches, file_id: str, path: Path, terminal: Terminal) -> None:
    with terminal.bytes_bar() as bar:
        task = bar.add_task(visible(str(path)), total=None)
        with whole(path) if str(path) != "-" else nullcontext(_stdout()) as opened:
            async with aclosing(batches.fetch(file_id, opened)) as counts:
                async for count in counts:
                    bar.advance(task, count)
        bar.update(task, total=bar.tasks[task].completed)
    if str(path) != "-":
        terminal.message(f"{file_id} is in {path}")


def _stdout() -> BinaryIO:
    return cast("BinaryIO", _Shown()) if sys.stdout.isatty() else sys.stdout.buffer


class _Shown(RawIOBase):
    """Writes lines of JSON to a terminal, with the control characters escaped that they hold."""

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")("replace")

    @override
    def write(self, data: Any) -> int:
        sys.stdout.write(visible_json(self._decoder.decode(data)))
        return len(data)
