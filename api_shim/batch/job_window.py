"""A batch's rows as jobs: a bounded number of them in the queue, each collected when it has ended.

A row's job has an id that follows from the batch and the row, so to enqueue it again is to find it:
whoever takes a batch over finds the jobs of the driver before, running or done, and no row runs
twice because of it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from starlette.exceptions import HTTPException

from api_shim.batch.lines import Waiting
from api_shim.batch.parts import RowAnswer, ended, good, refused
from api_shim.batch.supported_endpoints import ENDPOINTS, BatchJob, BatchRequest, RenderBody
from api_shim.dependencies import Dependencies
from api_shim.http.error_hints import OPENAI
from api_shim.http.headers import Preferences
from api_shim.http.problems import Refusal
from api_shim.submission.submission import Submission
from contract.batches import Batch
from contract.errors import (
    FleetError,
    NoWorker,
    QueueFull,
    RelayUnavailable,
    UnknownBackend,
    UnknownModel,
)
from contract.events import LAST_WORDS, Usage
from contract.jobs import AnyRequest
from contract.redis_keys import backend_of
from relay.batches import BatchJobs

_AT_ONCE: Final = 8
"""Answers that are read at once; a batch of images reads one at a time, for they are large."""
_HEAVY: Final = frozenset({"/v1/images/generations"})
_PAUSE_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 5.0
"""A full queue says when it will have room for all; a batch looks for room for some."""


class InFlightRow(NamedTuple):
    """A row that is a job."""

    row: int
    custom_id: str
    render: RenderBody
    left_out: tuple[str, ...]


class NotYet(Exception):
    """The row has to wait."""

    def __init__(self, pause_s: float) -> None:
        """Wait this long before the next try."""
        super().__init__()
        self.pause_s = pause_s


class JobWindow:
    """The rows of one batch that are jobs now."""

    def __init__(self, dependencies: Dependencies, rows: BatchJobs, batch: Batch) -> None:
        """Nothing enqueued."""
        self._dependencies = dependencies
        self._rows = rows
        self._batch = batch
        self._submission = Submission(
            dependencies.submission, batch.tenant, Preferences(), hints=OPENAI
        )
        self._read = ENDPOINTS[batch.endpoint]
        self._at_once = 1 if batch.endpoint in _HEAVY else _AT_ONCE
        self._seen: set[str] = set()
        self._missing_since: dict[str, float] = {}
        self.in_flight: dict[str, InFlightRow] = {}
        """By the id of its job."""

    async def issue(self, waiting: Waiting) -> tuple[RowAnswer, str] | None:
        """Make a job of a row; its answer at once if it cannot be one.

        Raises NotYet, RelayUnavailable; any other error is the row's own.
        """
        job_id = job_id_of(self._batch.id, waiting.number)
        custom_id = waiting.row.custom_id
        try:
            asked = self._asked(waiting, job_id)
            await self._enqueue(asked.request, job_id)
        except RelayUnavailable:
            raise
        except QueueFull as full:
            # It may have left a job behind that ended before it began.
            await self._rows.forget([job_id], self._batch.tenant.name)
            raise NotYet(min(_LONGEST_PAUSE_S, full.retry_after_s or _PAUSE_S)) from full
        except (FleetError, HTTPException) as error:
            self._wait_for_whoever_may_come(error, waiting.row.body)
            return refused(waiting.number, job_id, custom_id, error), job_id
        except ValidationError as error:
            return refused(waiting.number, job_id, custom_id, _refusal(error)), job_id
        self.in_flight[job_id] = InFlightRow(
            waiting.number, custom_id, asked.render, asked.left_out
        )
        return None

    def _asked(self, waiting: Waiting, job_id: str) -> BatchRequest:
        asked = self._read(waiting.row.body, self._job(job_id))
        request = asked.request.model_copy(
            update={
                "backend": self._batch.backend or asked.request.backend,
                "priority": "batch",
                "on_disconnect": "continue",
                "deadline_s": None,
                "metadata": {"batch_id": self._batch.id, "custom_id": waiting.row.custom_id},
            }
        )
        return asked._replace(request=request)

    def _job(self, job_id: str) -> BatchJob:
        return BatchJob(job_id, int(self._dependencies.connection.now()))

    async def _enqueue(self, request: AnyRequest, job_id: str) -> None:
        queue = await self._submission.queue_for(request)
        request = request.model_copy(update={"backend": backend_of(queue)})
        await self._dependencies.queue.enqueue(
            request, queue=queue, tenant=self._batch.tenant, job_id=job_id
        )
        self._seen.add(_model(request))

    def _wait_for_whoever_may_come(
        self, error: FleetError | HTTPException, body: Mapping[str, Any]
    ) -> None:
        """Raise NotYet if the fleet lacks what it had, or may have soon: a worker comes back."""
        code = getattr(error, "code", "")
        if code == NoWorker.code:
            raise NotYet(_PAUSE_S)
        if code not in {UnknownModel.code, UnknownBackend.code}:
            return
        model = str(body.get("model"))
        now = asyncio.get_running_loop().time()
        since = self._missing_since.setdefault(model, now)
        missing_s = self._dependencies.settings.batch_missing_s
        if model in self._seen or now - since < missing_s:
            raise NotYet(min(_PAUSE_S, missing_s))

    async def ended_ids(self) -> list[str]:
        """Ids of jobs that have ended. Jobs that Redis has lost are let go of."""
        ids = list(self.in_flight)
        statuses = await self._rows.statuses(ids) if ids else []
        for id, status in zip(ids, statuses, strict=True):
            if status is None:
                del self.in_flight[id]
        return [id for id, status in zip(ids, statuses, strict=True) if status in LAST_WORDS]

    async def collected(self, job_ids: Sequence[str]) -> list[tuple[RowAnswer, str]]:
        """The answers of some jobs that have ended, not more than `at_once`."""
        return list(await asyncio.gather(*(self._collect(id) for id in job_ids)))

    @property
    def at_once(self) -> int:
        """How many answers may be in memory at once."""
        return self._at_once

    async def _collect(self, job_id: str) -> tuple[RowAnswer, str]:
        return await self.answer(job_id, self.in_flight.pop(job_id)), job_id

    async def answer(self, job_id: str, in_flight: InFlightRow) -> RowAnswer:
        """What a job that has ended said, as a line."""
        result = await self._dependencies.log.result(job_id)
        end = result.error or result.cancelled
        if end is not None:
            return ended(in_flight.row, job_id, in_flight.custom_id, end)
        body = in_flight.render(result)
        left_out = (*in_flight.left_out, *result.ignored)
        answer = good(in_flight.row, job_id, in_flight.custom_id, body, left_out)
        return answer._replace(usage=result.usage or Usage())

    def telling_of(self, waiting: Waiting, job_id: str) -> InFlightRow | None:
        """A row of an earlier driver as if this one had enqueued it; None if it is no request."""
        try:
            asked = self._read(waiting.row.body, self._job(job_id))
        except (FleetError, ValidationError, HTTPException):
            return None
        return InFlightRow(waiting.number, waiting.row.custom_id, asked.render, asked.left_out)


def job_id_of(batch_id: str, row: int) -> str:
    """The id that the job of a row has, whoever enqueues it and however often."""
    return blake2b(f"{batch_id}/{row}".encode(), digest_size=16).hexdigest()


def _model(request: AnyRequest) -> str:
    return getattr(request, "model", "")


def _refusal(error: ValidationError) -> Refusal:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "body"
    return Refusal("invalid_request", f"{field}: {first['msg']}", status=400)
