"""The rows of a batch as jobs: at most a window of them in the queue, each collected at its end.

A row's job id is derived from the batch and the row, so a second enqueue finds the first job. A
driver that resumes a batch finds the jobs of the previous one, and no row runs twice.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from starlette.exceptions import HTTPException

from api_shim.batch.lines import PendingRow
from api_shim.batch.parts import RowResult, failed_row, job_failed, succeeded
from api_shim.batch.row_bodies import RowBody
from api_shim.batch.supported_endpoints import ENDPOINTS, BatchJob, BatchRequest
from api_shim.dependencies import Dependencies
from api_shim.following.long_answer import LongAnswer
from api_shim.http.error_hints import hints_for
from api_shim.http.headers import Preferences
from api_shim.http.json_body import made_of_large
from api_shim.http.problems import Refusal, field_errors, told
from api_shim.submission.selection import without_effort
from api_shim.submission.submission import Submission, stored
from contract.batches import Batch
from contract.chat import ChatRequest
from contract.errors import (
    BudgetSpent,
    FleetError,
    NoWorker,
    QueueFull,
    RateLimited,
    RelayUnavailable,
    UnknownBackend,
    UnknownModel,
)
from contract.events import LAST_WORDS, Usage
from contract.jobs import AnyRequest
from contract.json_texts.json_scan import LARGE_BYTES
from contract.result import Fold, Result
from relay.batches import BatchJobs
from relay.queue import Queue
from telemetry.trace_context import context_of

_AT_ONCE: Final = 8
"""Results that are read concurrently, if they are small."""
_HELD_BYTES: Final = 16 * 2**20
"""Of lines that are in memory at once, if they are as large as the last ones, or one line."""
_PAUSE_S: Final = 2.0
_LONGEST_WAIT_S: Final = 30.0
"""Between two tries of a batch whose tenant is at its limit of tokens or money."""
_LONGEST_PAUSE_S: Final = 5.0
"""A full queue names the time at which it has room for all of its jobs; a batch needs less."""


class InFlightRow(NamedTuple):
    """A row whose job is enqueued."""

    row: int
    custom_id: str
    begin: Callable[[], RowBody]
    left_out: tuple[str, ...]


class RowDeferred(Exception):
    """Raised for a row that cannot be enqueued now."""

    def __init__(self, pause_s: float) -> None:
        """Retry after `pause_s` seconds."""
        super().__init__()
        self.pause_s = pause_s


class JobWindow:
    """The rows of one batch whose jobs are enqueued."""

    def __init__(self, dependencies: Dependencies, rows: BatchJobs, batch: Batch) -> None:
        """No row is enqueued yet."""
        self._dependencies = dependencies
        self._rows = rows
        self._batch = batch
        self._submission = Submission(
            dependencies.submission, batch.tenant, Preferences(), hints=hints_for(batch.endpoint)
        )
        # Webhooks are told of the end of the batch, not of its rows.
        self._queue = Queue(dependencies.connection, is_for_rows=True)
        self._read = ENDPOINTS[batch.endpoint]
        self._line_bytes = _HELD_BYTES
        """Of the largest line of the last results; before them, as if it were a large one."""
        self._seen: set[str] = set()
        self._missing_since: dict[str, float] = {}
        self.in_flight: dict[str, InFlightRow] = {}
        """By job id."""

    async def enqueue(self, waiting: PendingRow) -> tuple[RowResult, str] | None:
        """Enqueue a row as a job; returns the row's result if it is invalid.

        Raises RowDeferred, RelayUnavailable; any other error becomes the row's result.
        """
        job_id = job_id_of(self._batch.id, waiting.number)
        custom_id = waiting.row.custom_id
        try:
            parsed = await self._parse(waiting, job_id)
            request = parsed.request
            if parsed.may_not_think and isinstance(request, ChatRequest):
                await self._dependencies.roster.recent()
                fleet = self._dependencies.listed(self._batch.tenant, request.model)
                request = without_effort(request, fleet)
            await self._enqueue(request, job_id)
        except RelayUnavailable:
            raise
        except (RateLimited, BudgetSpent) as spent:
            raise RowDeferred(min(_LONGEST_WAIT_S, spent.retry_after_s or _PAUSE_S)) from spent
        except QueueFull as full:
            # The refused enqueue may have left a job that ended before it was queued.
            await self._rows.forget([job_id], self._batch.tenant.name)
            raise RowDeferred(min(_LONGEST_PAUSE_S, full.retry_after_s or _PAUSE_S)) from full
        except (FleetError, HTTPException) as error:
            self._defer_if_temporary(error, waiting.row.body)
            return failed_row(waiting.number, job_id, custom_id, error), job_id
        except ValidationError as error:
            refusal = _refusal(error, waiting.row.body)
            return failed_row(waiting.number, job_id, custom_id, refusal), job_id
        self.in_flight[job_id] = InFlightRow(
            waiting.number, custom_id, parsed.begin, parsed.left_out
        )
        return None

    async def _parse(self, waiting: PendingRow, job_id: str) -> BatchRequest:
        parsed = await self._parsed(waiting, job_id)
        request = parsed.request.model_copy(
            update={
                "backend": self._batch.backend or parsed.request.backend,
                "priority": "batch",
                "on_disconnect": "continue",
                "deadline_s": None,
                "callback_url": None,  # of the batch, not of its rows
                "retention": "ttl",  # the batch deletes them as their answers are stored
                "metadata": {"batch_id": self._batch.id, "custom_id": waiting.row.custom_id},
            }
        )
        return parsed._replace(request=request)

    async def _parsed(self, waiting: PendingRow, job_id: str) -> BatchRequest:
        read = partial(self._read, waiting.row.body, self._job(job_id))
        return await made_of_large(read) if waiting.size_bytes > LARGE_BYTES else read()

    def _job(self, job_id: str) -> BatchJob:
        return BatchJob(job_id, int(self._dependencies.connection.now()))

    async def _enqueue(self, request: AnyRequest, job_id: str) -> None:
        placed = await self._submission.place(request)
        trace = context_of(self._batch.traceparent, self._batch.tracestate)
        with self._dependencies.metrics.tracing.submitting(request.kind, trace) as span:
            span.set({"llmfleet.batch.id": self._batch.id, "llmfleet.job.id": job_id})
            self._dependencies.redis_disk.demand_room()
            await self._queue.enqueue(
                stored(placed), queue=placed.queue, tenant=self._batch.tenant, job_id=job_id
            )
        self._seen.add(_model(request))

    def _defer_if_temporary(
        self, error: FleetError | HTTPException, body: Mapping[str, Any]
    ) -> None:
        """Raise RowDeferred if a worker that serves the model may still come, or come back."""
        code = getattr(error, "code", "")
        if code == NoWorker.code:
            raise RowDeferred(_PAUSE_S)
        if code not in {UnknownModel.code, UnknownBackend.code}:
            return
        model = str(body.get("model"))
        now = asyncio.get_running_loop().time()
        since = self._missing_since.setdefault(model, now)
        missing_s = self._dependencies.settings.batch_missing_s
        if model in self._seen or now - since < missing_s:
            raise RowDeferred(min(_PAUSE_S, missing_s))

    async def ended_ids(self) -> list[str]:
        """Ids of jobs that have ended; jobs that Redis has lost are dropped from the window."""
        ids = list(self.in_flight)
        statuses = await self._rows.statuses(ids) if ids else []
        for id, status in zip(ids, statuses, strict=True):
            if status is None:
                del self.in_flight[id]
        return [id for id, status in zip(ids, statuses, strict=True) if status in LAST_WORDS]

    async def collect(self, job_ids: Sequence[str]) -> list[tuple[RowResult, str]]:
        """The results of these jobs, which have ended; at most `at_once` of them."""
        found = await asyncio.gather(*(self._collect(id) for id in job_ids))
        self._line_bytes = max(len(answer.line) for answer, _ in found)
        return list(found)

    @property
    def at_once(self) -> int:
        """How many of the next results may be in memory at once."""
        return max(1, min(_AT_ONCE, _HELD_BYTES // self._line_bytes))

    async def _collect(self, job_id: str) -> tuple[RowResult, str]:
        return await self.answer(job_id, self.in_flight.pop(job_id)), job_id

    async def answer(self, job_id: str, in_flight: InFlightRow) -> RowResult:
        """The result of a job that has ended, as a line of the output or error file."""
        body = in_flight.begin()
        long = LongAnswer(self._dependencies.log, job_id, body.kinds, entry=body.entry)
        result = await self._result(job_id, long, body)
        end = result.error or result.cancelled
        if end is not None:
            return job_failed(in_flight.row, job_id, in_flight.custom_id, end)
        vectors = result.embeddings
        is_large = vectors is not None and len(vectors.data) > LARGE_BYTES
        model = await self._answering(job_id)
        make = partial(self._made, job_id, in_flight, body, result, model, is_large=is_large)
        answer = await asyncio.to_thread(make) if is_large else make()
        line = await long.filled(body.within(answer.line))
        return answer._replace(line=line, usage=result.usage or Usage())

    async def _result(self, job_id: str, long: LongAnswer, body: RowBody) -> Result:
        """The result with the marks of `long`; the body gets the events that it is made of."""
        answer = Fold()
        async with aclosing(self._dependencies.log.read(job_id)) as pages:
            async for frames in pages:
                body.hear(frames)
                for frame in long.passed_on(frames):
                    answer.add_frame(frame)
                    body.add(frame)
        return answer.result

    def _made(
        self,
        job_id: str,
        in_flight: InFlightRow,
        body: RowBody,
        result: Result,
        model: str | None,
        *,
        is_large: bool,
    ) -> RowResult:
        made = body.made(result)
        if model is not None and "model" in made:
            made = {**made, "model": model}
        left_out = (*in_flight.left_out, *self._submission.named(result.ignored))
        return succeeded(
            in_flight.row, job_id, in_flight.custom_id, made, left_out, is_large=is_large
        )

    async def _answering(self, job_id: str) -> str | None:
        """The model that answered, where the row has named an alias."""
        if not self._dependencies.aliases.table.aliases:
            return None
        record = await self._dependencies.records.find(job_id)
        return record.model if record is not None and record.alias is not None else None

    async def in_flight_row(self, waiting: PendingRow, job_id: str) -> InFlightRow | None:
        """A row that an earlier driver enqueued; None if its body is invalid."""
        try:
            parsed = await self._parsed(waiting, job_id)
        except (FleetError, ValidationError, HTTPException):
            return None
        custom_id = waiting.row.custom_id
        return InFlightRow(waiting.number, custom_id, parsed.begin, parsed.left_out)


def job_id_of(batch_id: str, row: int) -> str:
    """The job id of a row, the same for every driver and attempt."""
    return blake2b(f"{batch_id}/{row}".encode(), digest_size=16).hexdigest()


def _model(request: AnyRequest) -> str:
    return getattr(request, "model", "")


def _refusal(error: ValidationError, body: Any) -> Refusal:
    """What the endpoint itself would say of this body."""
    listed = error.errors(include_url=False, include_input=False)
    found = [{**each, "loc": ("body", *each["loc"])} for each in listed]
    detail = told(field_errors(found, body), len(found))
    return Refusal("invalid_request", detail, status=400)
