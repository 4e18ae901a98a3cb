"""Results of rows: buffered into parts, stored, then recorded in Redis in one step.

An object store cannot append, so each part is an object; all are joined at the end. A part is
written at a size, or at an age that grows with the number of parts: a short batch updates its
counts at once, a batch of a day leaves some thousand parts. Results that are buffered when this
process dies are not lost: they are still in the logs of their jobs.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import from_json
from starlette.exceptions import HTTPException

from api_shim.file_storage import Storage
from api_shim.following.job_refusals import refusal_of
from api_shim.http.problems import problem_of
from api_shim.openai.errors import encoded
from api_shim.submission.ignored_fields import HEADER, header_value
from contract.errors import FleetError, LeaseLost
from contract.events import COUNTS, Cancelled, Failed, Usage
from contract.json_lines import json_line, one_line
from contract.wire import json_pieces
from relay.batches import BatchJobs, BatchLease, BatchPart, BatchStore, parts_name
from telemetry.process_metrics import ProcessMetrics

_UNPROCESSABLE: Final = 422
_BAD_REQUEST: Final = 400

KEY_REVOKED: Final = "key_revoked"
UNFINISHED: Final[Mapping[str, str]] = {
    "batch_cancelled": "The batch was cancelled before this request was done.",
    "batch_expired": "The completion window ended before this request was done.",
    KEY_REVOKED: "The API key that created the batch was revoked, or expired, before this "
    "request was done.",
}
"""Error codes of requests that did not run to their end, with their messages."""


class RowResult(NamedTuple):
    """The result of a row."""

    row: int
    line: bytes
    """With its line end."""
    is_success: bool
    """Whether it goes to the output file; else to the error file."""
    usage: Usage = Usage()


def succeeded(
    row: int,
    job_id: str,
    custom_id: str,
    body: Mapping[str, Any],
    left_out: Sequence[str] = (),
    *,
    is_large: bool = False,
) -> RowResult:
    """A successful response; `left_out` are the fields of the body that were ignored.

    That of a large body is encoded in pieces, between which other threads go on.
    """
    response: dict[str, Any] = {"status_code": 200, "request_id": job_id, "body": body}
    if left_out:
        response["headers"] = {HEADER: header_value(left_out)}
    line = _line(job_id, custom_id, response, is_large=is_large)
    return RowResult(row, line, is_success=True)


def failed_row(
    row: int, job_id: str, custom_id: str, error: FleetError | HTTPException
) -> RowResult:
    """A request that was rejected, or whose job failed."""
    problem = problem_of(error, {"type": "http", "path": ""})
    status = _BAD_REQUEST if problem.status == _UNPROCESSABLE else problem.status
    body = from_json(encoded(problem))
    response = {"status_code": status, "request_id": job_id, "body": body}
    return RowResult(row, _line(job_id, custom_id, response), is_success=False)


def job_failed(row: int, job_id: str, custom_id: str, end: Failed | Cancelled) -> RowResult:
    """A request whose job failed or was cancelled."""
    return failed_row(row, job_id, custom_id, refusal_of(end))


def not_run(row: int, job_id: str, custom_id: str, code: str) -> RowResult:
    """A request that did not run to its end; `code` is a key of UNFINISHED."""
    error = {"code": code, "message": UNFINISHED[code]}
    return RowResult(row, _line(job_id, custom_id, None, error), is_success=False)


def _line(
    job_id: str,
    custom_id: str,
    response: Mapping[str, Any] | None,
    error: Mapping[str, str] | None = None,
    *,
    is_large: bool = False,
) -> bytes:
    line = {
        "id": f"batch_req_{job_id}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return b"".join(map(one_line, json_pieces(line)) if is_large else [json_line(line)]) + b"\n"


OUTPUT: Final = ".output"
ERRORS: Final = ".errors"
_FULL_BYTES: Final = 4 * 2**20
_FULL_ROWS: Final = 2000
_FIRST_AGE_S: Final = 1.0
_OLDER_BY_S: Final = 0.1
"""Added for each part."""
_LAST_AGE_S: Final = 30.0


class PartWriter:
    """Buffers and stores the results of one batch."""

    def __init__(
        self,
        batches: BatchStore,
        rows: BatchJobs,
        storage: Storage,
        lease: BatchLease,
        metrics: ProcessMetrics,
    ) -> None:
        """The buffer is empty."""
        self._metrics = metrics
        self._batches = batches
        self._rows = rows
        self._storage = storage
        self._lease = lease
        self._number = 0
        self._begun_at = 0.0
        self._reset()

    def _reset(self) -> None:
        self._output = bytearray()
        self._errors = bytearray()
        self._answers: list[tuple[int, str]] = []
        self._used = Usage()
        self.completed = 0
        """Successful results in the buffer."""
        self.failed = 0

    async def add(self, answer: RowResult, job_id: str) -> None:
        """Buffer a result; may flush, and raises what `flush` raises."""
        if not self._answers:
            self._begun_at = time.monotonic()
        (self._output if answer.is_success else self._errors).extend(answer.line)
        self._answers.append((answer.row, job_id))
        self._used = _add(self._used, answer.usage)
        self.completed += answer.is_success
        self.failed += not answer.is_success
        size_bytes = len(self._output) + len(self._errors)
        if size_bytes >= _FULL_BYTES or len(self._answers) >= _FULL_ROWS:
            await self.flush()

    @property
    def is_due(self) -> bool:
        """Whether the buffer is old enough to be flushed."""
        age_s = min(_LAST_AGE_S, _FIRST_AGE_S + self._number * _OLDER_BY_S)
        return bool(self._answers) and time.monotonic() - self._begun_at >= age_s

    async def flush(self) -> None:
        """Store the buffer as a part, record it, and delete its jobs.

        Raises LeaseLost, StorageUnavailable, RelayUnavailable.
        """
        if not self._answers:
            return
        name = f"{self._number:06d}-{self._lease.token}"
        where = f"{parts_name(self._lease.batch.id)}/{name}"
        for ending, data in ((OUTPUT, self._output), (ERRORS, self._errors)):
            if data:
                async with self._storage.write(where + ending) as writing:
                    await writing.write(bytes(data))
        rows = [row for row, _ in self._answers]
        marked = name + (OUTPUT if self._output else "") + (ERRORS if self._errors else "")
        part = BatchPart(marked, rows, self.completed, self.failed, self._used)
        if not await self._batches.commit(self._lease, part):
            raise LeaseLost(f"batch {self._lease.batch.id} is driven by another shim")
        jobs = [job_id for _, job_id in self._answers]
        self._metrics.series.count("batch_rows_total", "completed", by=self.completed)
        self._metrics.series.count("batch_rows_total", "failed", by=self.failed)
        self._number += 1
        self._reset()
        await self._rows.forget(jobs, self._lease.batch.tenant.name)


def stored_parts(batch_id: str, parts: list[str], ending: str) -> list[str]:
    """Object names of one kind (OUTPUT or ERRORS) for the names of all parts."""
    folder = parts_name(batch_id)
    return [f"{folder}/{part.partition('.')[0]}{ending}" for part in parts if ending in part]


def _add(one: Usage, other: Usage) -> Usage:
    return Usage(**{name: getattr(one, name) + getattr(other, name) for name in COUNTS})
