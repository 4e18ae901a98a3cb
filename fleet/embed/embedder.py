"""Embeds texts with a few jobs at a time, in order; a text that fails does not affect the others.

If a job fails because of one text, the others are sent again without it: the error names the text,
or it is found by bisection. If a text may have crashed a server or a worker, each text is sent in a
job of its own. Errors that concern all texts (unknown model, no backend) end the run.
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
from fleet.client.job import AsyncJob, raise_job_ended
from fleet.client.map import MappedJobs, MapResult
from fleet.client.requests import request_of
from fleet.client.results import WrongCount, rows_of
from fleet.client.window import in_order
from fleet.embed.spool import Bad, Block, Rows
from fleet.embed.text_files import Text

_BREAKS: Final = (BadAnswer, ServerFault, TruncatedStream, WorkerLost)
"""Errors that one of the texts may have caused, or something else."""
_OF_A_TEXT: Final = (
    BackendRejected, ContextExceeded, InputTooLarge, InvalidRequest, LogFull, NotFinite,
    PayloadTooLarge, Refused, WrongCount, *_BREAKS,
)  # fmt: skip
"""Errors that do not concern every text: of one text, or of a job's size."""
_NAMED: Final = re.compile(r"^input\[(\d+)\]")
"""How a worker names the text of a job that failed."""
_ALONE: Final = 3
_TOGETHER: Final = 2
"""Attempts of jobs with one text and with more: a text that crashes a server is found alone."""
_ALONE_AT_ONCE: Final = 32
"""Jobs of one text each that are in flight at once; the worker packs them into requests."""
_MOST_CHARACTERS: Final = 4 * 2**20
"""Characters of all texts of a job: shims limit the size of a request."""
_MOST_FAILURES_AT_START: Final = 8
"""Texts that may fail before the first success."""
_MOST_FAILURES: Final = 1000
"""Texts that may fail in a row after the first success."""


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
    task: str | None = None
    not_before: float | None = None
    """Unix seconds at which the first jobs may start."""
    run: str = ""
    """Id of the run: after a restart it finds its jobs by it."""
    ignored: set[str] = field(default_factory=set)
    """Options that the backend has ignored so far."""
    _failed: int = 0
    """Texts that failed since the last success."""
    _has_succeeded: bool = False
    _many: MappedJobs = field(init=False)

    def __post_init__(self) -> None:
        """Raises InvalidRequest for invalid options; sends no request."""
        given = {
            "model": self.model, "backend": self.backend, "priority": self.priority,
            "dimensions": self.dimensions, "task": self.task, "not_before": self.not_before,
        }  # fmt: skip
        fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        request_of("embed", {**fields, "input": ["a text"]})
        self._many = self.fleet.many(kind="embed", **fields)

    @property
    def under_way(self) -> list[AsyncJob]:
        """Jobs that have not ended."""
        return list(self._many.under_way.values())

    def blocks(self, texts: Iterator[Text], first: int = 0) -> AsyncGenerator[Block, None]:
        """Yield the vectors of the texts in order; the first text is row `first`.

        Texts are read only as jobs are sent. Raises JobEnded, and errors that concern all texts.
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
        fields = {"input": [row.text for row in rows], "max_attempts": attempts}
        answer = await self._many.one((rows[0].at, fields))
        try:
            vectors = rows_of(answer)
        except FleetError as error:
            return await self._after_failure(rows, answer, error)
        self._failed, self._has_succeeded = 0, True
        self.ignored.update(answer.result.ignored)
        return [_found(row, vector) for row, vector in zip(rows, vectors, strict=True)]

    async def _after_failure(
        self, rows: Sequence[_Row], answer: MapResult, error: FleetError
    ) -> list[_Found]:
        """Send the texts of a failed job again, without the one that failed or in smaller jobs."""
        if not isinstance(error, _OF_A_TEXT):
            if answer.job_id and answer.outcome:
                raise_job_ended(answer.job_id, answer.outcome)
            raise error
        if len(rows) == 1:
            return [self._given_up(rows[0], error)]
        named = _NAMED.match(error.message)
        at = int(named[1]) if named else len(rows)
        if isinstance(error, _BREAKS):
            if at < len(rows):  # the error may not be the named text's: it is sent again, last
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
        """The row with its error; raises JobEnded if too many texts failed in a row."""
        self._failed += 1
        if self._failed >= (_MOST_FAILURES if self._has_succeeded else _MOST_FAILURES_AT_START):
            raise JobEnded(
                f"{self._failed} texts failed in a row, so the cause is not the texts. The last "
                f"error: {error.message}"
            )
        return _Found(
            row, None, Bad(row.at, error.code, _NAMED.sub("", error.message).lstrip(": "))
        )

    def _key(self, first: int, request: Request) -> str:
        """The Idempotency-Key of a job, from the run, the first row and the texts."""
        digest = sha256(request.model_dump_json().encode()).hexdigest()
        return f"embed-{self.run}-{first}-{digest[:32]}"


class _Batch(NamedTuple):
    first: int
    texts: list[Text]


def _batches(texts: Iterator[Text], first: int, size: int) -> Iterator[_Batch]:
    """Yield batches of up to `size` texts and about four million characters."""
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
    return _Found(row, None, Bad(row.at, "not_finite", "its vector has NaN or infinity"))


def _block_of(batch: _Batch, found: Sequence[_Found], bad: Sequence[Bad]) -> Block:
    good = {each.row.at: each.vector for each in found if each.vector is not None}
    width = next((vector.shape[0] for vector in good.values()), 0)
    rows: Rows = np.full((len(batch.texts), width), np.nan, np.float32)
    for index, vector in good.items():
        rows[index - batch.first] = vector
    given_up = [each.bad for each in found if each.bad is not None]
    return Block(len(batch.texts), rows, sorted([*bad, *given_up]))
