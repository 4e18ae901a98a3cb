"""`fleet embed`: a file of texts in, a file of vectors out."""

import asyncio
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contract.errors import FleetError, UnknownModel
from fleet.atomic_file import check_apart
from fleet.cli.commands.options import Backend, Json, Model, Url
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
    typer.Option("--column", "--field", "-c", help="Where the text is.  [default: text or input]"),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="Between cells of a table, as in ';'; tab has a name.  [default: detected]"),
]
Errors = Annotated[
    Path | None,
    typer.Option(help="Which texts have no vector, and why.  [default: <out>.errors.jsonl]"),
]


@dataclass(frozen=True)
class _Asked:
    """What the command line says."""

    source: TextSource
    out: Path
    errors: Path
    model: str | None
    backend: str | None
    dimensions: int | None
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
    dimensions: Annotated[
        int | None, typer.Option(min=1, help="Of a vector, where the model lets one choose.")
    ] = None,
    errors: Errors = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget what an interrupted run has done.")
    ] = False,
    texts_a_job: Annotated[int, typer.Option(min=1, max=8192)] = TEXTS_A_JOB,
    jobs_in_flight: Annotated[int, typer.Option(min=1, max=1000)] = JOBS_IN_FLIGHT,
    priority: Annotated[str, typer.Option(help="interactive, standard, batch")] = "standard",
    json: Json = False,
    url: Url = None,
) -> None:
    """Turn texts into vectors, in order; interrupted, the same command goes on where it was.

    The output appears when it is whole. A text that cannot be embedded has no vector in it (null,
    or NaN), stands in the file of errors, and costs no other one its own.
    """
    source = TextSource(file, column, _character(delimiter))
    asked = _Asked(
        source, out, errors or out.with_name(f"{out.name}.errors.jsonl"),
        model, backend, dimensions, restart,
    )  # fmt: skip
    more = {
        "texts_a_job": texts_a_job, "jobs_in_flight": jobs_in_flight, "priority": priority,
        "dimensions": dimensions,
    }  # fmt: skip
    run(_embed(asked, more, Terminal(json=json), url))


def _character(delimiter: str | None) -> str | None:
    found = {"tab": "\t", "\\t": "\t"}.get(delimiter or "", delimiter)
    if found is not None and (len(found) != 1 or found in '\r\n"'):
        raise typer.BadParameter("one character, or tab", param_hint="--delimiter")
    return found


async def _embed(asked: _Asked, more: dict[str, Any], terminal: Terminal, url: str | None) -> Exit:
    from fleet.embed.embedder import Embedding  # noqa: PLC0415 - numpy takes half a second to import
    from fleet.embed.spool import Facts, facts_of, path_for, spool  # noqa: PLC0415
    from fleet.embed.vector_file import check_output  # noqa: PLC0415

    check_output(asked.out)
    check_apart([asked.source.file], [asked.out, asked.errors, path_for(asked.out)])
    survey = asked.source.survey()
    if not survey.rows:
        terminal.say(f"{asked.source.file} holds no text: nothing to do")
        return Exit.FAILED
    before = None if asked.restart else facts_of(asked.out)
    async with AsyncClient(url) as fleet:
        model = asked.model or (before.model if before else await _chosen(fleet, asked, terminal))
        work = Embedding(fleet, model, asked.backend, **more)
        facts = Facts(
            digest=survey.digest,
            column=asked.source.column,
            delimiter=asked.source.delimiter,
            model=model,
            backend=asked.backend,
            dimensions=asked.dimensions,
        )
        with spool(asked.out, facts, restart=asked.restart) as kept:
            work.run = kept.facts.run
            await _fill(kept, work, asked, survey, terminal)
            await _write(kept, asked, survey.rows, terminal)
            return _verdict(kept, asked, survey.rows, terminal)


async def _fill(
    kept: "Spool", work: "Embedding", asked: _Asked, survey: FileSurvey, terminal: Terminal
) -> None:
    """Embed what is not in the spool yet."""
    if kept.rows:
        terminal.say(f"{kept.rows} of {survey.rows} rows were done before: going on from there")

    async def all_of_it() -> None:
        texts = islice(asked.source.rows(), kept.rows, None)
        with terminal.steps("embed", work.model, survey.rows, kept.rows) as advance:
            async for block in work.blocks(texts, kept.rows):
                kept.add(block)
                advance(block.count)

    try:
        await detachable(all_of_it(), lambda: work.under_way, terminal)
    except (FleetError, KeyboardInterrupt):
        if kept.rows:
            terminal.say(
                f"{kept.rows} of {survey.rows} rows are kept in {kept.path}: the same command goes "
                "on from there"
            )
        raise


async def _write(kept: "Spool", asked: _Asked, total: int, terminal: Terminal) -> None:
    """Make the files out of the spool; each appears whole or not at all."""
    from fleet.embed.vector_file import errors_file, output  # noqa: PLC0415

    if not kept.dimension:
        first = next(each for block in kept.blocks() for each in block.bad)
        kept.delete()
        raise JobEnded(f"no text could be embedded. The first: {first.message}")
    rows = asked.source.rows()
    with (
        errors_file(asked.errors, wanted=kept.bad > 0) as errors,
        output(asked.out, total) as writer,
        terminal.steps("write", str(asked.out), total) as advance,
    ):
        for block in kept.blocks():
            texts = list(islice(rows, block.count))
            writer.write(texts, block)
            errors.write(texts, block)
            advance(block.count)
            # A second of writing must not be deaf to Ctrl-C.
            await asyncio.sleep(0)
    kept.delete()


def _verdict(kept: "Spool", asked: _Asked, total: int, terminal: Terminal) -> Exit:
    terminal.say(f"{total - kept.bad} vectors in {asked.out}")
    if kept.bad:
        terminal.say(
            f"{kept.bad} of {total} texts have none: {asked.errors} says why", style="bold red"
        )
    if terminal.json:
        told = {"rows": total, "failed": kept.bad, "model": kept.facts.model, "out": str(asked.out)}
        terminal.mapping({**told, **({"errors": str(asked.errors)} if kept.bad else {})})
    return Exit.JOB_FAILED if kept.bad else Exit.OK


async def _chosen(fleet: AsyncClient, asked: _Asked, terminal: Terminal) -> str:
    models = await fleet.models()
    found = model_for("embed", (each for each in models if asked.backend in {None, each.backend}))
    if found is None:
        raise UnknownModel("no model here can embed: look at `fleet models`, or name one")
    terminal.say(f"{found.name} on {found.backend}")
    return found.name
