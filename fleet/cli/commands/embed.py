"""`fleet embed`: a file of texts in, a file of vectors out."""

import asyncio
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contract.errors import FleetError, UnknownModel
from contract.roster import utc
from fleet.atomic_file import check_apart
from fleet.cli.commands.options import PASSED, At, Backend, Json, Model, Url, time_of
from fleet.cli.exit_codes import Exit, run
from fleet.cli.interrupts import detachable
from fleet.cli.terminal import Terminal
from fleet.client.async_client import JOBS_IN_FLIGHT, TEXTS_A_JOB, AsyncClient
from fleet.client.errors import JobEnded
from fleet.client.roster import model_for
from fleet.embed.text_files import FileSurvey, TextSource

if TYPE_CHECKING:
    from fleet.embed.embedder import Embedding
    from fleet.embed.spool import Spool

Column = Annotated[
    str | None,
    typer.Option("--column", "--field", "-c", help="Of the text.  [default: text or input]"),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="Delimiter of a table's cells, as in ';' or tab.  [default: detected]"),
]
Dimensions = Annotated[
    int | None, typer.Option(min=1, help="Length of a vector, if the model supports it.")
]
Purpose = Annotated[
    str | None, typer.Option(help="What the texts are for: query, document, classification ...")
]
Errors = Annotated[
    Path | None,
    typer.Option(help="File of the texts that failed, and why.  [default: <out>.errors.jsonl]"),
]


@dataclass(frozen=True)
class _Options:
    """Options of the command line."""

    source: TextSource
    out: Path
    errors: Path
    model: str | None
    backend: str | None
    dimensions: int | None
    task: str | None
    restart: bool


def embed(
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help=".txt .jsonl .csv .tsv .parquet"),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help=".jsonl, .npy or .parquet")],
    column: Column = None,
    delimiter: Delimiter = None,
    model: Model = None,
    backend: Backend = None,
    dimensions: Dimensions = None,
    task: Purpose = None,
    errors: Errors = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard the results of an interrupted run.")
    ] = False,
    texts_a_job: Annotated[int, typer.Option(min=1, max=8192)] = TEXTS_A_JOB,
    jobs_in_flight: Annotated[int, typer.Option(min=1, max=1000)] = JOBS_IN_FLIGHT,
    priority: Annotated[str, typer.Option(help="interactive, standard, batch")] = "standard",
    at: At = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Embed texts, in order; after an interruption the same command continues where it stopped.

    The output is written when all texts are done. A text that cannot be embedded has no vector in
    it (null, or NaN) and is listed in the file of errors; the other texts are not affected.
    """
    source = TextSource(file, column, _character(delimiter))
    options = _Options(
        source, out, errors or out.with_name(f"{out.name}.errors.jsonl"),
        model, backend, dimensions, task, restart,
    )  # fmt: skip
    job_fields = {
        "texts_a_job": texts_a_job, "jobs_in_flight": jobs_in_flight, "priority": priority,
        "dimensions": dimensions, "task": task, "not_before": time_of(at),
    }  # fmt: skip
    run(_embed(options, job_fields, Terminal(json=json), url))


def _character(delimiter: str | None) -> str | None:
    found = {"tab": "\t", "\\t": "\t"}.get(delimiter or "", delimiter)
    if found is not None and (len(found) != 1 or found in '\r\n"'):
        raise typer.BadParameter("one character, or tab", param_hint="--delimiter")
    return found


async def _embed(
    options: _Options, job_fields: dict[str, Any], terminal: Terminal, url: str | None
) -> Exit:
    from fleet.embed.embedder import Embedding  # noqa: PLC0415 - numpy takes half a second to import
    from fleet.embed.spool import Facts, facts_of, path_for, spool  # noqa: PLC0415
    from fleet.embed.vector_file import check_output  # noqa: PLC0415

    check_output(options.out)
    check_apart([options.source.file], [options.out, options.errors, path_for(options.out)])
    survey = options.source.survey()
    if not survey.rows:
        terminal.message(f"{options.source.file} has no texts: nothing to do")
        return Exit.FAILED
    before = None if options.restart else facts_of(options.out)
    async with AsyncClient(url) as fleet:
        model = options.model or (
            before.model if before else await _choose(fleet, options, terminal)
        )
        work = Embedding(fleet, model, options.backend, **job_fields)
        facts = Facts(
            digest=survey.digest,
            column=options.source.column,
            delimiter=options.source.delimiter,
            model=model,
            backend=options.backend,
            dimensions=options.dimensions,
            task=options.task,
        )
        with spool(options.out, facts, restart=options.restart) as spooled:
            work.run = spooled.facts.run
            if work.not_before is not None:
                terminal.message(_begins(work.not_before))
            await _fill(spooled, work, options, survey, terminal)
            await _write(spooled, options, survey.rows, terminal)
            return _report(spooled, options, survey.rows, terminal)


def _begins(at: float) -> str:
    if at <= time():
        return f"{PASSED}: the first jobs start at once"
    return f"the first jobs start at {utc(at)}: keep this running until then"


async def _fill(
    spooled: "Spool", work: "Embedding", options: _Options, survey: FileSurvey, terminal: Terminal
) -> None:
    """Embed the rows that are not in the spool yet."""
    if spooled.rows:
        terminal.message(
            f"{spooled.rows} of {survey.rows} rows are done already: continuing from there"
        )

    async def embed_rest() -> None:
        texts = islice(options.source.rows(), spooled.rows, None)
        with terminal.step_bar("embed", work.model, survey.rows, spooled.rows) as advance:
            async for block in work.blocks(texts, spooled.rows):
                spooled.add(block)
                advance(block.count)

    try:
        await detachable(embed_rest(), lambda: work.under_way, terminal)
    except (FleetError, KeyboardInterrupt):
        if spooled.rows:
            terminal.message(
                f"{spooled.rows} of {survey.rows} rows are kept in {spooled.path}: "
                "the same command continues from there"
            )
        raise
    if options.task and "task" in work.ignored:
        terminal.notice(
            f"{work.model} has no prompt for the task {options.task}: the texts were embedded as"
            " they are"
        )


async def _write(spooled: "Spool", options: _Options, total: int, terminal: Terminal) -> None:
    """Write the output files from the spool; each is written completely or not at all."""
    from fleet.embed.vector_file import errors_file, output  # noqa: PLC0415

    if not spooled.dimension:
        first = next(each for block in spooled.blocks() for each in block.bad)
        spooled.delete()
        raise JobEnded(f"no text could be embedded. The first error: {first.message}")
    rows = options.source.rows()
    with (
        errors_file(options.errors, wanted=spooled.bad > 0) as errors,
        output(options.out, total) as writer,
        terminal.step_bar("write", str(options.out), total) as advance,
    ):
        for block in spooled.blocks():
            texts = list(islice(rows, block.count))
            writer.write(texts, block)
            errors.write(texts, block)
            advance(block.count)
            await asyncio.sleep(0)  # so that Ctrl-C is handled between blocks
    spooled.delete()


def _report(spooled: "Spool", options: _Options, total: int, terminal: Terminal) -> Exit:
    terminal.message(f"{total - spooled.bad} vectors in {options.out}")
    if spooled.bad:
        terminal.message(
            f"{spooled.bad} of {total} texts have none: {options.errors} says why", style="bold red"
        )
    if terminal.json:
        summary = {
            "rows": total,
            "failed": spooled.bad,
            "model": spooled.facts.model,
            "out": str(options.out),
        }
        terminal.write_json_object(
            {**summary, **({"errors": str(options.errors)} if spooled.bad else {})}
        )
    return Exit.JOB_FAILED if spooled.bad else Exit.OK


async def _choose(fleet: AsyncClient, options: _Options, terminal: Terminal) -> str:
    models = await fleet.models()
    found = model_for("embed", (each for each in models if options.backend in {None, each.backend}))
    if found is None:
        raise UnknownModel("no model can embed: see `fleet models`, or name one")
    terminal.message(f"{found.name} on {found.backend}")
    return found.name
