"""`fleet embed`: a file of texts in, a file of vectors out."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contract.errors import UnknownModel
from fleet.aio import JOBS_IN_FLIGHT, TEXTS_A_JOB, AsyncClient
from fleet.commands.options import Backend, Json, Model, Url
from fleet.exits import Exit, run
from fleet.interrupts import detachable
from fleet.reports import model_for
from fleet.terminal import Terminal

if TYPE_CHECKING:
    from fleet.embedding import Embedding


def embed(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help=".txt or .jsonl")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help=".jsonl or .npy")],
    model: Model = None,
    backend: Backend = None,
    texts_a_job: Annotated[int, typer.Option(min=1, max=8192)] = TEXTS_A_JOB,
    jobs_in_flight: Annotated[int, typer.Option(min=1, max=1000)] = JOBS_IN_FLIGHT,
    priority: Annotated[str, typer.Option(help="interactive, standard, batch")] = "standard",
    json: Json = False,
    url: Url = None,
) -> None:
    """Turn texts into vectors, in order; the output is written whole or not at all."""
    from fleet.embedding import Embedding  # noqa: PLC0415 - numpy takes half a second to import

    async def command() -> Exit:
        async with AsyncClient(url) as fleet:
            chosen = model or await _chosen(fleet, backend)
            work = Embedding(fleet, chosen, backend, texts_a_job, jobs_in_flight, priority)
            return await _embed(work, file, out, Terminal(json=json))

    run(command())


async def _embed(work: "Embedding", file: Path, out: Path, terminal: Terminal) -> Exit:
    from fleet.embedding import output, texts  # noqa: PLC0415

    total = sum(1 for _ in texts(file))
    if not total:
        terminal.say(f"{file} holds no text: nothing to do")
        return Exit.FAILED
    with output(out, total) as writer, terminal.counting("embed") as bar:
        task = bar.add_task(work.model, total=total, rate="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            speed = bar.tasks[task].speed
            bar.update(task, rate=f"{speed:.0f}/s" if speed else "")

        doing = work.run(texts(file), writer, advance)
        done = await detachable(doing, lambda: list(work.under_way.values()), terminal)
    terminal.say(f"{done} vectors in {out}")
    if terminal.json:
        terminal.mapping({"rows": done, "model": work.model, "out": str(out)})
    return Exit.OK


async def _chosen(fleet: AsyncClient, backend: str | None) -> str:
    models = await fleet.models()
    found = model_for("embed", (each for each in models if backend in {None, each.backend}))
    if found is None:
        raise UnknownModel("no model here can embed: look at `fleet models`, or name one")
    sys.stderr.write(f"{found.name} on {found.backend}\n")
    return found.name
