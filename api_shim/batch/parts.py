"""Answers on their way into the storage: gathered into parts, stored, then listed in one step.

An object store cannot append, so each part is an object of its own, and all are put together at the
end. Parts are cut by size, or by age, which grows with their number: a short batch shows its
counts at once, and one that takes a day leaves some thousand parts. What is gathered and not
listed yet is no loss when this process dies: the answers still stand in their jobs' logs.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import from_json
from starlette.exceptions import HTTPException

from api_shim.file_storage import Storage
from api_shim.following.drop_in import refusal_of
from api_shim.http.problems import problem_of
from api_shim.openai.errors import encoded
from api_shim.submission.ignored_fields import HEADER, header_value
from contract.errors import FleetError, LeaseLost
from contract.events import COUNTS, Cancelled, Failed, Usage
from contract.json_lines import json_line
from relay.batches import BatchJobs, BatchLease, BatchPart, BatchStore, parts_name

_UNPROCESSABLE: Final = 422
_BAD_REQUEST: Final = 400

UNFINISHED: Final[Mapping[str, str]] = {
    "batch_cancelled": "The batch was cancelled before this request was done.",
    "batch_expired": "The completion window ended before this request was done.",
}
"""Codes of requests that were not run to their end, and what they mean."""


class RowAnswer(NamedTuple):
    """What became of a row."""

    row: int
    line: bytes
    """With its line end."""
    is_good: bool
    """Whether it belongs into the output file; else into the error file."""
    usage: Usage = Usage()


def good(
    row: int, job_id: str, custom_id: str, body: Mapping[str, Any], left_out: Sequence[str] = ()
) -> RowAnswer:
    """The answer that was asked for; `left_out` are fields that nothing was done with."""
    response: dict[str, Any] = {"status_code": 200, "request_id": job_id, "body": body}
    if left_out:
        response["headers"] = {HEADER: header_value(left_out)}
    return RowAnswer(row, _line(job_id, custom_id, response), is_good=True)


def refused(row: int, job_id: str, custom_id: str, error: FleetError | HTTPException) -> RowAnswer:
    """A request that could not become a job, or whose job failed."""
    problem = problem_of(error, {"type": "http", "path": ""})
    status = _BAD_REQUEST if problem.status == _UNPROCESSABLE else problem.status
    body = from_json(encoded(problem))
    response = {"status_code": status, "request_id": job_id, "body": body}
    return RowAnswer(row, _line(job_id, custom_id, response), is_good=False)


def ended(row: int, job_id: str, custom_id: str, end: Failed | Cancelled) -> RowAnswer:
    """A request whose job had another end than an answer."""
    return refused(row, job_id, custom_id, refusal_of(end))


def unfinished(row: int, job_id: str, custom_id: str, code: str) -> RowAnswer:
    """A request that was not run to its end, and will not be; `code` is one of UNFINISHED."""
    error = {"code": code, "message": UNFINISHED[code]}
    return RowAnswer(row, _line(job_id, custom_id, None, error), is_good=False)


def _line(
    job_id: str,
    custom_id: str,
    response: Mapping[str, Any] | None,
    error: Mapping[str, str] | None = None,
) -> bytes:
    return (
        json_line(
            {
                "id": f"batch_req_{job_id}",
                "custom_id": custom_id,
                "response": response,
                "error": error,
            }
        )
        + b"\n"
    )


GOOD: Final = ".output"
BAD: Final = ".errors"
_FULL_BYTES: Final = 4 * 2**20
_FULL_ROWS: Final = 2000
_FIRST_AGE_S: Final = 1.0
_OLDER_BY_S: Final = 0.1
"""For each part that there is."""
_LAST_AGE_S: Final = 30.0


class Parts:
    """Gathers the answers of one batch."""

    def __init__(
        self, batches: BatchStore, rows: BatchJobs, storage: Storage, lease: BatchLease
    ) -> None:
        """Nothing gathered."""
        self._batches = batches
        self._rows = rows
        self._storage = storage
        self._lease = lease
        self._number = 0
        self._begun_at = 0.0
        self._empty()

    def _empty(self) -> None:
        self._good = bytearray()
        self._bad = bytearray()
        self._answers: list[tuple[int, str]] = []
        self._used = Usage()
        self.completed = 0
        """Good answers that no part holds yet."""
        self.failed = 0

    async def add(self, answer: RowAnswer, job_id: str) -> None:
        """Gather an answer; may store a part. Raises what `flush` raises."""
        if not self._answers:
            self._begun_at = time.monotonic()
        (self._good if answer.is_good else self._bad).extend(answer.line)
        self._answers.append((answer.row, job_id))
        self._used = _sum(self._used, answer.usage)
        self.completed += answer.is_good
        self.failed += not answer.is_good
        size_bytes = len(self._good) + len(self._bad)
        if size_bytes >= _FULL_BYTES or len(self._answers) >= _FULL_ROWS:
            await self.flush()

    @property
    def is_due(self) -> bool:
        """Whether what is gathered has waited long enough."""
        age_s = min(_LAST_AGE_S, _FIRST_AGE_S + self._number * _OLDER_BY_S)
        return bool(self._answers) and time.monotonic() - self._begun_at >= age_s

    async def flush(self) -> None:
        """Store what is gathered, list it, and forget its jobs.

        Raises LeaseLost, StorageUnavailable, RelayUnavailable.
        """
        if not self._answers:
            return
        name = f"{self._number:06d}-{self._lease.token}"
        where = f"{parts_name(self._lease.batch.id)}/{name}"
        for ending, data in ((GOOD, self._good), (BAD, self._bad)):
            if data:
                async with self._storage.write(where + ending) as writing:
                    await writing.write(bytes(data))
        rows = [row for row, _ in self._answers]
        marked = name + (GOOD if self._good else "") + (BAD if self._bad else "")
        part = BatchPart(marked, rows, self.completed, self.failed, self._used)
        if not await self._batches.commit(self._lease, part):
            raise LeaseLost(f"batch {self._lease.batch.id} is driven by another shim")
        jobs = [job_id for _, job_id in self._answers]
        self._number += 1
        self._empty()
        await self._rows.forget(jobs, self._lease.batch.tenant.name)


def stored_parts(batch_id: str, parts: list[str], ending: str) -> list[str]:
    """Where the objects of one kind lie, for the names of all parts."""
    folder = parts_name(batch_id)
    return [f"{folder}/{part.partition('.')[0]}{ending}" for part in parts if ending in part]


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(**{name: getattr(one, name) + getattr(other, name) for name in COUNTS})
