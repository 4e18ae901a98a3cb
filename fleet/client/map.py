"""Many requests, a few in flight at a time.

Invariant: a request that fails does not affect the others.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from contract.errors import (
    FleetError,
    InvalidRequest,
    NoWorker,
    QueueFull,
    RateLimited,
    RelayUnavailable,
)
from contract.requests import Kind, Request
from contract.result import Result
from fleet.client.errors import FleetUnreachable, NotAuthorised
from fleet.client.job import AsyncJob, raise_unless_done
from fleet.client.reconnect import RetryTimer
from fleet.client.requests import request_of
from fleet.client.window import as_done, in_order

REQUESTS_IN_FLIGHT = 16
_QUEUE_FULL_PAUSE_S = 2.0
"""Pause before the next try if a full queue sends no `Retry-After`."""
_MAX_RUNS = 20
"""Most jobs to enqueue under one key: the next one only if the last failed or was cancelled."""
_FATAL_ERRORS = (FleetUnreachable, NotAuthorised, RelayUnavailable)
"""Errors that all other requests would fail with, too: they end the run."""

RequestLike = Request | Mapping[str, Any]
"""A request, or the fields of one."""
KeyFactory = str | Callable[[int, Request], str]
"""Makes an Idempotency-Key of a request's index and the request; a name gets the index added."""


@dataclass(frozen=True, slots=True)
class MapResult:
    """The result of one of many requests."""

    index: int
    """Position of the request, from 0."""
    request: Request | None = None
    """None if the item is no valid request."""
    job_id: str | None = None
    outcome: Result | None = None
    """The result, also of a job that failed; None if there was no job."""
    error: FleetError | None = None
    """Why there is no result."""

    @property
    def result(self) -> Result:
        """The result of the job; raises `error` if there is one."""
        if self.error is not None:
            raise self.error
        return self.outcome or Result()


class Enqueue(Protocol):
    """Enqueues a request, as `AsyncClient.enqueue` does."""

    async def __call__(self, request: Request, *, idempotency_key: str | None = None) -> AsyncJob:
        """The new job; raises FleetError."""
        ...


@dataclass
class MappedJobs:
    """One run over many requests. `under_way` are the jobs that have not ended."""

    enqueue: Enqueue
    retry_timer: Callable[[], RetryTimer]
    """How long to retry after NoWorker, if an earlier request found a worker."""
    kind: Kind | None = None
    """Kind of the items that are fields."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Defaults for items that are fields."""
    key: KeyFactory | None = None
    under_way: dict[str, AsyncJob] = field(default_factory=dict)
    _had_worker: bool = False

    def results(
        self, items: Iterable[RequestLike], in_flight: int, *, ordered: bool = True
    ) -> AsyncGenerator[MapResult, None]:
        """Yield a result for each item, in their order or as they complete. Raises as `one`."""
        run = in_order if ordered else as_done
        return run(enumerate(items), self.one, in_flight)

    async def one(self, numbered: tuple[int, RequestLike]) -> MapResult:
        """The result of one item and its index.

        Raises only FleetUnreachable, NotAuthorised and RelayUnavailable; other errors are in the
        result.
        """
        index, item = numbered
        try:
            request = self._request(item)
        except InvalidRequest as error:
            return MapResult(index, error=error)
        try:
            job = await self._enqueue(index, request)
        except _FATAL_ERRORS:
            raise
        except FleetError as error:
            return MapResult(index, request, error=error)
        self.under_way[job.id] = job
        try:
            outcome = await job.outcome()
        except _FATAL_ERRORS:
            raise
        except FleetError as error:  # as JobNotFound, if its record has expired
            return MapResult(index, request, job.id, error=error)
        finally:
            self.under_way.pop(job.id, None)
        return MapResult(index, request, job.id, outcome, _error_of(job.id, outcome))

    def _request(self, item: RequestLike) -> Request:
        if isinstance(item, Request):
            return item
        if not isinstance(item, Mapping):
            raise InvalidRequest(f"a request, or the fields of one, not {type(item).__name__}")
        if self.kind is None:
            raise InvalidRequest("name the kind of these fields, as in kind='chat'")
        return request_of(self.kind, {**self.fields, **item})

    async def _enqueue(self, index: int, request: Request) -> AsyncJob:
        """Enqueue a request, or find its job of an earlier run unless that failed."""
        if self.key is None:
            return await self._enqueue_with_retries(request, None)
        key = self._key(self.key, index, request)
        for run in range(1, _MAX_RUNS):
            job = await self._enqueue_with_retries(request, key if run == 1 else f"{key}-{run}")
            if job.accepted is None or job.accepted.status not in {"failed", "cancelled"}:
                return job
        return await self._enqueue_with_retries(request, None)

    @staticmethod
    def _key(key: KeyFactory, index: int, request: Request) -> str:
        made: object = f"{key}-{index}" if isinstance(key, str) else key(index, request)
        if not (isinstance(made, str) and made.isascii() and made.isprintable() and made):
            raise InvalidRequest("an Idempotency-Key is made of visible ASCII characters")
        return made

    async def _enqueue_with_retries(self, request: Request, key: str | None) -> AsyncJob:
        retries = self.retry_timer()
        while True:
            try:
                job = await self.enqueue(request, idempotency_key=key)
            except (QueueFull, RateLimited) as full:
                await asyncio.sleep(full.retry_after_s or _QUEUE_FULL_PAUSE_S)
            except NoWorker as error:
                if not self._had_worker:
                    raise
                await asyncio.sleep(retries.pause_s(error, "the fleet"))
            else:
                self._had_worker = True
                return job


def _error_of(job_id: str, outcome: Result) -> FleetError | None:
    try:
        raise_unless_done(job_id, outcome)
    except FleetError as error:
        return error
    return None
