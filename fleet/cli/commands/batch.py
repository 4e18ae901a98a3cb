"""`fleet batch`: submit a file of requests, watch how far it is, cancel it, fetch the answers."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer
from rich.progress import Progress, TaskID
from typing_extensions import override

from contract.errors import InvalidRequest, RequestError
from contract.wire import encode
from fleet.atomic_file import check_apart, whole
from fleet.cli.commands.options import All, Backend, Json, Newest, Timeout, Url
from fleet.cli.exit_codes import Exit, run
from fleet.cli.tables import Ago, Id
from fleet.cli.terminal import FEW, Terminal
from fleet.client.async_client import AsyncClient
from fleet.client.batches import AsyncBatches, BatchView, first_endpoint
from fleet.client.errors import GaveUpWaiting
from fleet.client.paging import gathered
from fleet.embed.encoding import check_utf8_lines

app = typer.Typer(help="Files of requests: submit, watch, cancel, results.", no_args_is_help=False)

BatchId = Annotated[
    str, typer.Argument(metavar="BATCH", help="As in batch_0123..., or enough of its beginning.")
]
_COLUMNS: Final = ("batch", "status", "endpoint", "total", "done", "failed", "created")
_LOOK_S: Final = 1.0


@app.callback(invoke_without_command=True)
def newest(context: typer.Context) -> None:
    """List the newest batches when no other verb is given."""
    if context.invoked_subcommand is None:
        run(_list(FEW, Terminal(), None))


@app.command("list")
def list_(
    *,
    limit: Newest = FEW,
    all_: All = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """List batches, newest first."""
    run(_list(None if all_ else limit, Terminal(json=json), url))


async def _list(most: int | None, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        found, has_more = await gathered(fleet.batches.page, most)
    terminal.rows(found, _COLUMNS, (_row(batch) for batch in found))
    if has_more and not terminal.json:
        terminal.say(f"the newest {len(found)}: --limit N shows more, --all all of them")
    return Exit.OK


def _row(batch: BatchView) -> tuple[object, ...]:
    counts = batch.request_counts
    return (
        Id(batch.id), batch.status, batch.endpoint, counts.total, counts.completed, counts.failed,
        Ago(batch.created_at),
    )  # fmt: skip


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A request a line.")],
    *,
    endpoint: Annotated[
        str | None, typer.Option(help="As in /v1/embeddings.  [default: the first line's]")
    ] = None,
    window: Annotated[str, typer.Option(help="Time until it is given up: 30m, 24h, 7d.")] = "24h",
    backend: Backend = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Watch it to its end.")] = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """Upload a file of requests and begin its batch; prints the batch's id."""
    wish = {"endpoint": endpoint, "completion_window": window, "backend": backend}
    run(_submit(file, wish, Terminal(json=json), url, wait=wait))


async def _submit(
    file: Path,
    wish: dict[str, Any],
    terminal: Terminal,
    url: str | None,
    *,
    wait: bool,
) -> Exit:
    try:
        check_utf8_lines(file)
        wish["endpoint"] = wish["endpoint"] or first_endpoint(file)
    except OSError as error:
        raise InvalidRequest(f"cannot read {file}: {error.strerror}") from error
    async with AsyncClient(url) as fleet:
        with terminal.downloading() as bar, _Counted(file, bar) as opened:
            batch = await fleet.batches.submit(opened, name=file.name, **wish)
        if not terminal.json:
            terminal.words(f"{batch.id}\n")
        elif not wait:
            terminal.line(encode(batch))
        if wait:
            return await _watched(fleet.batches, batch, None, terminal)
        terminal.say(f"follow it with `fleet batch watch {batch.id}`")
        return Exit.OK


class _Counted(BufferedReader):
    """A file that shows how much of it was read."""

    def __init__(self, file: Path, bar: Progress) -> None:
        super().__init__(file.open("rb", buffering=0))
        self._bar = bar
        self._task = bar.add_task(f"upload {file.name}", total=file.stat().st_size)

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._bar.update(self._task, completed=self.tell())
        return data


@app.command()
def watch(batch: BatchId, *, timeout: Timeout = None, json: Json = False, url: Url = None) -> None:
    """Show how far a batch is until it ends; Ctrl-C lets go, and the batch goes on."""
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
            with nullcontext() if terminal.json else terminal.counting("batch") as bar:
                task = bar.add_task(batch.status, total=None, rate="") if bar else None
                async with aclosing(_news(batches, batch)) as news:
                    async for last in news:
                        _show(last, terminal, bar, task)
    except TimeoutError:
        raise GaveUpWaiting(f"batch {batch.id} is {last.status} and goes on") from None
    except asyncio.CancelledError:
        terminal.say(
            f"batch {batch.id} goes on without this terminal: follow it with `fleet batch watch "
            f"{batch.id}`, cancel it with `fleet batch cancel {batch.id}`"
        )
        raise
    return _verdict(last, terminal)


async def _news(batches: AsyncBatches, batch: BatchView) -> AsyncGenerator[BatchView, None]:
    """The batch each time that it has changed, until it has ended."""
    yield batch
    while not batch.has_ended:
        await asyncio.sleep(_LOOK_S)
        now = await batches.look(batch.id)
        if now != batch:
            batch = now
            yield batch


def _show(batch: BatchView, terminal: Terminal, bar: Progress | None, task: TaskID | None) -> None:
    if bar is None or task is None:
        terminal.line(encode(batch))
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


def _verdict(batch: BatchView, terminal: Terminal) -> Exit:
    counts = batch.request_counts
    terminal.say(
        f"batch {batch.id}: {batch.status}, {counts.completed} of {counts.total} answered, "
        f"{counts.failed} failed"
    )
    for error in batch.errors.data if batch.errors else ():
        where = f"line {error.line}: " if error.line else ""
        terminal.say(f"{where}{error.message} ({error.code})", style="red")
    return Exit.OK if batch.status == "completed" else Exit.JOB_FAILED


@app.command()
def cancel(batch: BatchId, *, json: Json = False, url: Url = None) -> None:
    """End a batch soon; what is done by then can be fetched."""
    run(_cancel(batch, Terminal(json=json), url))


async def _cancel(batch_id: str, terminal: Terminal, url: str | None) -> Exit:
    async with AsyncClient(url) as fleet:
        batch = await fleet.batches.cancel(batch_id)
    if terminal.json:
        terminal.line(encode(batch))
    else:
        terminal.words(f"{batch.id} {batch.status}\n")
    return Exit.OK


@app.command()
def results(
    batch: BatchId,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Good answers; - is stdout.")],
    errors: Annotated[Path | None, typer.Option(help="What failed; - is stdout.")] = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Fetch the answers of a batch that has ended, however it did; in no order."""
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
                f"{batch.id}`, or end it with `fleet batch cancel {batch.id}`"
            )
        for file_id, path in ((batch.output_file_id, out), (batch.error_file_id, errors)):
            if file_id is not None and path is not None:
                await _fetch(fleet.batches, file_id, path, terminal)
    if batch.error_file_id is not None and errors is None:
        terminal.say(f"{batch.request_counts.failed} requests failed: --errors FILE fetches why")
    if terminal.json:
        terminal.line(encode(batch))
    return Exit.OK if batch.output_file_id else _verdict(batch, terminal)


async def _fetch(batches: AsyncBatches, file_id: str, path: Path, terminal: Terminal) -> None:
    with terminal.downloading() as bar:
        task = bar.add_task(str(path), total=None)
        with whole(path) if str(path) != "-" else nullcontext(_stdout()) as opened:
            async with aclosing(batches.fetch(file_id, opened)) as came:
                async for count in came:
                    bar.advance(task, count)
        bar.update(task, total=bar.tasks[task].completed)
    if str(path) != "-":
        terminal.say(f"{file_id} is in {path}")


def _stdout() -> BinaryIO:
    return sys.stdout.buffer
