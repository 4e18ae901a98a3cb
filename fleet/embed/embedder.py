"""From texts to vectors: a few jobs at a time, in order, each text's trouble its own.

A job that fails because of a text is asked again without it: the job says which text it was, or it
is looked for by halves. Where a text may have broken a server or a worker, each is asked alone, so
that the worker packs them anew and only the one pays. What is wrong with all of them (no such
model, no backend) ends the run.
"""

import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, NamedTuple

import numpy as np

from contract.errors import (
    BackendRejected,
    BadAnswer,
    ContextExceeded,
    FleetError,
    InputTooLarge,
    InvalidRequest,
    LogFull,
    NotFinite,
    PayloadTooLarge,
    Refused,
    ServerFault,
    TruncatedStream,
    WorkerLost,
)
from contract.requests import Request
from fleet.client.async_client import AsyncClient
from fleet.client.errors import JobEnded
from fleet.client.job import AsyncJob
from fleet.client.map import MappedJobs, MapResult
from fleet.client.requests import request_of
from fleet.client.results import WrongCount, demand_done, rows_of
from fleet.client.window import in_order
from fleet.embed.spool import Bad, Block, Rows
from fleet.embed.text_files import Text

_BREAKS: Final = (BadAnswer, ServerFault, TruncatedStream, WorkerLost)
"""What one of the texts may have caused, or something else."""
_OF_A_TEXT: Final = (
    BackendRejected, ContextExceeded, InputTooLarge, InvalidRequest, LogFull, NotFinite,
    PayloadTooLarge, Refused, WrongCount, *_BREAKS,
)  # fmt: skip
"""What does not concern every text: one of them, or so many together."""
_NAMED: Final = re.compile(r"^input\[(\d+)\]")
"""How a worker says which text of a job it was."""
_ALONE: Final = 3
_TOGETHER: Final = 2
"""Attempts: what breaks a server is found sooner one by one, with other texts between that work."""
_ALONE_AT_ONCE: Final = 32
"""Jobs of one text each, out of a job that broke something: a worker packs them again."""
_MOST_CHARACTERS: Final = 4 * 2**20
"""Of all texts of a job: a shim takes no request of any size."""
_SUSPICIOUS: Final = 8
"""Texts that may fail while none has succeeded yet."""
_HOPELESS: Final = 1000
"""Texts that may fail one after the other, later."""


class _Row(NamedTuple):
    at: int
    text: str


class _Found(NamedTuple):
    row: _Row
    vector: "np.ndarray[tuple[int], np.dtype[np.float32]] | None"
    bad: Bad | None = None


@dataclass
class Embedding:
    """One run over many texts."""

    fleet: AsyncClient
    model: str
    backend: str | None = None
    texts_a_job: int = 256
    jobs_in_flight: int = 4
    priority: str = "standard"
    dimensions: int | None = None
    run: str = ""
    """Names the run, so that it finds the jobs again that it had begun before it was killed."""
    _failed: int = 0
    """Texts since the last one that did not."""
    _worked: bool = False
    _many: MappedJobs = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is asked yet; raises InvalidRequest for what no job could be asked for."""
        wishes = {
            "model": self.model, "backend": self.backend, "priority": self.priority,
            "dimensions": self.dimensions,
        }  # fmt: skip
        said: dict[str, Any] = {name: value for name, value in wishes.items() if value is not None}
        request_of("embed", {**said, "input": ["a text"]})
        self._many = self.fleet.many(kind="embed", **said)

    @property
    def under_way(self) -> list[AsyncJob]:
        """Jobs that have not ended."""
        return list(self._many.under_way.values())

    def blocks(self, texts: Iterator[Text], first: int = 0) -> AsyncGenerator[Block, None]:
        """Vectors of the texts, of which the first is row `first`, in order.

        No more texts are taken than are under way. Raises JobEnded, and what ends every job.
        """
        self._many.key = self._key if self.run else None
        return in_order(_batches(texts, first, self.texts_a_job), self._block, self.jobs_in_flight)

    async def _block(self, batch: "_Batch") -> Block:
        rows = [
            _Row(index, text.text)
            for index, text in enumerate(batch.texts, batch.first)
            if text.problem is None
        ]
        found = await self._embedded(rows) if rows else []
        bad = [
            Bad(index, "no_text", text.problem)
            for index, text in enumerate(batch.texts, batch.first)
            if text.problem is not None
        ]
        return _block_of(batch, found, bad)

    async def _embedded(self, rows: Sequence[_Row]) -> list[_Found]:
        if not rows:
            return []
        attempts = _ALONE if len(rows) == 1 else _TOGETHER
        asked = {"input": [row.text for row in rows], "max_attempts": attempts}
        answer = await self._many.one((rows[0].at, asked))
        try:
            vectors = rows_of(answer)
        except FleetError as error:
            return await self._without(rows, answer, error)
        self._failed, self._worked = 0, True
        return [_found(row, vector) for row, vector in zip(rows, vectors, strict=True)]

    async def _without(
        self, rows: Sequence[_Row], answer: MapResult, error: FleetError
    ) -> list[_Found]:
        """What can be had of the texts of a job that failed."""
        if not isinstance(error, _OF_A_TEXT):
            if answer.job_id and answer.outcome:
                demand_done(answer.job_id, answer.outcome)
            raise error
        if len(rows) == 1:
            return [self._given_up(rows[0], error)]
        named = _NAMED.match(error.message)
        at = int(named[1]) if named else len(rows)
        if isinstance(error, _BREAKS):
            if at < len(rows):  # the others have worked; it may have been chance
                before, after = (
                    await self._embedded(rows[:at]),
                    await self._embedded(rows[at + 1 :]),
                )
                return [*before, *await self._embedded([rows[at]]), *after]
            alone = in_order(([row] for row in rows), self._embedded, _ALONE_AT_ONCE)
            return [found async for each in alone for found in each]
        if at < len(rows):
            given_up = [self._given_up(rows[at], error)]
            before, after = await self._embedded(rows[:at]), await self._embedded(rows[at + 1 :])
            return [*before, *given_up, *after]
        middle = len(rows) // 2
        return [*await self._embedded(rows[:middle]), *await self._embedded(rows[middle:])]

    def _given_up(self, row: _Row, error: FleetError) -> _Found:
        """Raises JobEnded where it can hardly be the text's fault."""
        self._failed += 1
        if self._failed >= (_HOPELESS if self._worked else _SUSPICIOUS):
            raise JobEnded(
                f"{self._failed} texts failed and none between them did not, so it is not the "
                f"texts. The last: {error.message}"
            )
        return _Found(
            row, None, Bad(row.at, error.code, _NAMED.sub("", error.message).lstrip(": "))
        )

    def _key(self, first: int, request: Request) -> str:
        """The same texts in the same place of the same run are the same job."""
        digest = sha256(request.model_dump_json().encode()).hexdigest()
        return f"embed-{self.run}-{first}-{digest[:32]}"


class _Batch(NamedTuple):
    first: int
    texts: list[Text]


def _batches(texts: Iterator[Text], first: int, size: int) -> Iterator[_Batch]:
    """Up to `size` texts, and about four million characters, at a time."""
    batch, characters = _Batch(first, []), 0
    for text in texts:
        if batch.texts and (
            len(batch.texts) >= size or characters + len(text.text) > _MOST_CHARACTERS
        ):
            yield batch
            batch, characters = _Batch(batch.first + len(batch.texts), []), 0
        batch.texts.append(text)
        characters += len(text.text)
    if batch.texts:
        yield batch


def _found(row: _Row, vector: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> _Found:
    if np.isfinite(vector).all():
        return _Found(row, vector)
    return _Found(row, None, Bad(row.at, "not_finite", "its vector has numbers that are none"))


def _block_of(batch: _Batch, found: Sequence[_Found], bad: Sequence[Bad]) -> Block:
    good = {each.row.at: each.vector for each in found if each.vector is not None}
    width = next((vector.shape[0] for vector in good.values()), 0)
    rows: Rows = np.full((len(batch.texts), width), np.nan, np.float32)
    for index, vector in good.items():
        rows[index - batch.first] = vector
    given_up = [each.bad for each in found if each.bad is not None]
    return Block(len(batch.texts), rows, sorted([*bad, *given_up]))
