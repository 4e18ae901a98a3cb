"""From a file of texts to a file of vectors: streamed both ways, a few jobs at a time, in order.

Invariant: the output appears under its name only when every row is in it.
"""

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from pydantic_core import from_json, to_json

from contract.embeddings import EmbedRequest
from contract.errors import InvalidRequest, QueueFull
from contract.result import Embeddings
from fleet.aio import AsyncClient
from fleet.asking import batches
from fleet.exits import raise_unless_done
from fleet.job import AsyncJob
from fleet.whole_file import whole
from fleet.window import in_order

Rows = np.ndarray[tuple[int, int], np.dtype[np.float32]]

_FULL_S = 2.0
"""How long to wait when a full queue names no time."""


class Text(NamedTuple):
    """A row of the input."""

    text: str
    id: Any = None
    """What a JSONL line calls itself, if it does."""


def texts(file: Path) -> Iterator[Text]:
    """The texts of a file: one a line, or in `.jsonl` the field `text` or `input` of each line.

    Raises InvalidRequest naming the line that is none.
    """
    read = _json_line if file.suffix == ".jsonl" else _plain_line
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield read(line)
            except ValueError as error:
                raise InvalidRequest(f"{file}, line {number}: {error}") from error


def _plain_line(line: str) -> Text:
    text = line.rstrip("\r\n")
    if not text.strip():
        raise ValueError("it is empty: delete it, or write a .jsonl file")
    return Text(text)


def _json_line(line: str) -> Text:
    row = from_json(line)
    if isinstance(row, str):
        return Text(row)
    text = row.get("text", row.get("input")) if isinstance(row, dict) else None
    if not isinstance(text, str) or not text:
        raise ValueError('it wants {"text": "..."} or {"input": "..."}')
    return Text(text, row.get("id"))


class Writer(Protocol):
    """Takes rows in order."""

    def write(self, batch: list[Text], rows: Rows, /) -> None:
        """Add the rows of a batch."""
        ...


class JsonLines:
    """One object a line: `index`, the input's `id` if it has one, `embedding`."""

    def __init__(self, file: IO[bytes]) -> None:
        """Write to an open file."""
        self._file = file
        self._index = 0

    def write(self, batch: list[Text], rows: Rows, /) -> None:
        """Numbers are as short as they can be and still read back as the same float32."""
        for text, row in zip(batch, rows, strict=True):
            head = {"index": self._index} | ({} if text.id is None else {"id": text.id})
            numbers = ",".join(row.astype(str)).encode()
            self._file.write(to_json(head)[:-1] + b',"embedding":[' + numbers + b"]}\n")
            self._index += 1


class Npy:
    """A float32 array, one row a text; its header, which says how many, is written first."""

    def __init__(self, file: IO[bytes], total: int) -> None:
        """Write to an open file."""
        self._file = file
        self._total = total
        self._started = False

    def write(self, _batch: list[Text], rows: Rows, /) -> None:
        """Add the rows of a batch."""
        if not self._started:
            header = {"descr": "<f4", "fortran_order": False, "shape": (self._total, rows.shape[1])}
            np.lib.format.write_array_header_1_0(self._file, header)
            self._started = True
        self._file.write(rows.astype("<f4").tobytes())


@contextmanager
def output(file: Path, total: int) -> Iterator[Writer]:
    """A writer for `.jsonl` or `.npy`; the file appears when the context ends well, or not at all.

    Raises InvalidRequest for another kind of file.
    """
    if file.suffix not in {".jsonl", ".npy"}:
        raise InvalidRequest(f"{file}: name the output .jsonl or .npy")
    with whole(file) as opened:
        yield Npy(opened, total) if file.suffix == ".npy" else JsonLines(opened)


@dataclass
class Embedding:
    """One run over a file. `under_way` are the jobs that have not ended."""

    fleet: AsyncClient
    model: str
    backend: str | None = None
    texts_a_job: int = 256
    jobs_in_flight: int = 4
    priority: str = "standard"
    under_way: dict[str, AsyncJob] = field(default_factory=dict)

    async def run(
        self, source: Iterator[Text], writer: Writer, advance: Callable[[int], None]
    ) -> int:
        """Embed every text and write its row; returns how many. Raises JobEnded."""
        total = 0
        async with aclosing(self.rows(source)) as blocks:
            async for batch, rows in blocks:
                writer.write(batch, rows)
                total += len(batch)
                advance(len(batch))
        return total

    def rows(self, source: Iterator[Text]) -> AsyncGenerator[tuple[list[Text], Rows], None]:
        """Batches with their vectors, in order, a bounded number of them under way."""
        return in_order(batches(source, self.texts_a_job), self._one, self.jobs_in_flight)

    async def _one(self, batch: list[Text]) -> tuple[list[Text], Rows]:
        fields = {
            "model": self.model,
            "backend": self.backend,
            "priority": self.priority,
            "input": [text.text for text in batch],
        }
        job = await self._patiently(EmbedRequest.model_validate(fields))
        self.under_way[job.id] = job
        result = await job.outcome()
        del self.under_way[job.id]
        raise_unless_done(job.id, result)
        return batch, array_of(result.embeddings, len(batch))

    async def _patiently(self, request: EmbedRequest) -> AsyncJob:
        while True:
            try:
                return await self.fleet.enqueue(request)
            except QueueFull as full:
                await asyncio.sleep(full.retry_after_s or _FULL_S)


class WrongCount(InvalidRequest):
    """A job gave another number of vectors than it was given texts."""

    code = "wrong_count"


def array_of(found: Embeddings | None, expected: int) -> Rows:
    """The vectors of a job as an array; raises WrongCount."""
    if found is None or found.count != expected:
        count = found.count if found else 0
        raise WrongCount(f"{count} vectors came back for {expected} texts: nothing was written")
    flat = np.frombuffer(base64.b64decode(found.data), dtype="<f4")
    return flat.reshape(found.count, found.dimension).astype(np.float32)
