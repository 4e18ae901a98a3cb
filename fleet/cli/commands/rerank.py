"""`fleet rerank`: a query and documents in, the documents by relevance out."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from contract.errors import InvalidRequest, UnknownModel
from contract.rerank import LONGEST_DOCUMENT
from fleet.cli.commands.options import Backend, Json, Model, Url
from fleet.cli.exit_codes import Exit, run
from fleet.cli.interrupts import detachable
from fleet.cli.terminal import Terminal
from fleet.client.async_client import JOBS_IN_FLIGHT, TEXTS_A_JOB, AsyncClient
from fleet.client.requests import batches
from fleet.client.results import scores_of
from fleet.client.roster import model_for
from fleet.embed.text_files import Text, TextSource, rows_in

_STDIN: Final = Path("-")
_MOST_BYTES: Final = 256 * 2**20
"""Of standard input, which is held in memory."""
_SHOWN: Final = 160
"""Characters of a document that a terminal shows."""


class _Found(NamedTuple):
    score: float
    at: int
    """Row in the file, from 0."""
    row: Text


class _Best:
    """The best documents so far; at most twice `most` are held, all without it."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._found: list[_Found] = []

    def add(self, found: Iterable[_Found]) -> None:
        self._found += found
        if self._most is not None and len(self._found) > 2 * self._most:
            self._found = self.in_order

    @property
    def in_order(self) -> list[_Found]:
        """The best first; equal ones in the order of the file."""
        return sorted(self._found, key=lambda each: (-each.score, each.at))[: self._most]


def rerank(
    query: Annotated[str, typer.Argument(help="What the documents are compared with.")],
    file: Annotated[
        Path,
        typer.Argument(help=".txt .jsonl .csv .tsv .parquet, or - for lines of standard input"),
    ] = _STDIN,
    *,
    top: Annotated[
        int | None, typer.Option("--top", "-n", min=1, help="Only the best ones.  [default: all]")
    ] = None,
    column: Annotated[
        str | None,
        typer.Option("--column", "--field", "-c", help="Of the text.  [default: text or input]"),
    ] = None,
    model: Model = None,
    backend: Backend = None,
    texts_a_job: Annotated[int, typer.Option(min=1, max=8192)] = TEXTS_A_JOB,
    jobs_in_flight: Annotated[int, typer.Option(min=1, max=1000)] = JOBS_IN_FLIGHT,
    priority: Annotated[str, typer.Option(help="interactive, standard, batch")] = "interactive",
    json: Json = False,
    url: Url = None,
) -> None:
    """Order documents by their relevance to a query: score, row and text of each, the best first.

    A line of standard input is a text, or a JSON object with one. Rows without a valid text are
    left out and counted.
    """
    rows = _rows_of_input(column) if file == _STDIN else TextSource(file, column).rows()
    fields = {"backend": backend, "priority": priority}
    run(_rerank(_Order(query, rows, top, texts_a_job, jobs_in_flight), model, fields,
                Terminal(json=json), url))  # fmt: skip


class _Order(NamedTuple):
    """What the command line asks for."""

    query: str
    rows: Iterator[Text]
    top: int | None
    texts_a_job: int
    jobs_in_flight: int


def _rows_of_input(column: str | None) -> Iterator[Text]:
    raw = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise typer.BadParameter(f"standard input has more than {_MOST_BYTES} bytes: name a file")
    return rows_in(raw.decode("utf-8-sig", "surrogateescape").splitlines(), column)


async def _rerank(
    order: _Order, model: str | None, fields: dict[str, Any], terminal: Terminal, url: str | None
) -> Exit:
    best, bad = _Best(order.top), _Skipped()
    async with AsyncClient(url) as fleet:
        chosen = model or await _choose(fleet, fields["backend"], terminal)
        many = fleet.many(kind="rerank", model=chosen, query=order.query, **fields)
        sent: dict[int, list[tuple[int, Text]]] = {}

        async def score() -> None:
            requests = _requests(order, sent, bad)
            async with aclosing(many.results(requests, order.jobs_in_flight)) as answers:
                async for answer in answers:
                    scores, rows = scores_of(answer), sent.pop(answer.index)
                    best.add(
                        _Found(score, at, row)
                        for score, (at, row) in zip(scores, rows, strict=True)
                    )

        await detachable(score(), many.under_way.values, terminal)
    found = best.in_order
    if not found:
        raise InvalidRequest(bad.first or "there is no document: write one a line")
    for each in found:
        _print(each, terminal)
    if bad.count:
        terminal.message(f"rows left out: {bad.count}. The first: {bad.first}", "bold red")
    return Exit.JOB_FAILED if bad.count else Exit.OK


class _Skipped:
    """Rows without a valid text."""

    def __init__(self) -> None:
        self.count = 0
        self.first: str | None = None

    def add(self, at: int, problem: str) -> None:
        self.count += 1
        self.first = self.first or f"row {at + 1}: {problem}"


def _requests(
    order: _Order, sent: dict[int, list[tuple[int, Text]]], bad: _Skipped
) -> Iterator[dict[str, Any]]:
    """The fields of each job; `sent` keeps its rows until its scores are there."""
    for number, rows in enumerate(batches(_valid(order.rows, bad), order.texts_a_job)):
        sent[number] = rows
        yield {"documents": [row.text for _, row in rows]}


def _valid(rows: Iterator[Text], bad: _Skipped) -> Iterator[tuple[int, Text]]:
    for at, row in enumerate(rows):
        problem = row.problem
        if problem is None and len(row.text) > LONGEST_DOCUMENT:
            problem = f"it has {len(row.text)} characters, and a document up to {LONGEST_DOCUMENT}"
        if problem is None:
            yield at, row
        else:
            bad.add(at, problem)


def _print(found: _Found, terminal: Terminal) -> None:
    score, at, row = found
    if terminal.json:
        named = {} if row.id is None else {"id": row.id}
        terminal.write_json_object({"score": score, "index": at, **named, "text": row.text})
        return
    text = " ".join(row.text.split())
    if terminal.is_interactive and len(text) > _SHOWN:
        text = f"{text[: _SHOWN - 1]}…"
    terminal.write_line(f"{score:.4f}\t{at + 1}\t{text}")


async def _choose(fleet: AsyncClient, backend: str | None, terminal: Terminal) -> str:
    models = await fleet.models()
    found = model_for("rerank", (each for each in models if backend in {None, each.backend}))
    if found is None:
        raise UnknownModel("no model can rerank: see `fleet models`, or name one")
    terminal.message(f"{found.name} on {found.backend}")
    return found.name
