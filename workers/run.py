"""The run of one attempt of a job, from `started` to exactly one terminal event.

Only this module writes `failed` for an attempt that runs; `Leases.end` fails a job only after it
has taken it from its holder. A run ends in one of five ways:

- its terminal event is in the log;
- the backend failed and a retry can help (`Broken`): the worker gives the job back;
- the backend cannot take it, and another target of its alias may (`Elsewhere`): the worker moves
  it;
- another attempt holds the job (`LeaseLost`): the run writes nothing more;
- it was cancelled: the caller decides what becomes of the job.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from contract.aliases.parameters import applied
from contract.chat import ChatRequest, CountRequest
from contract.embeddings import EmbedRequest
from contract.errors import (
    BackendBusy,
    BackendError,
    DeadlineExceeded,
    FleetError,
    InternalError,
    LeaseLost,
    ModelMissing,
    NewerVersion,
    NotSupported,
    RelayUnavailable,
    TruncatedStream,
)
from contract.events import (
    Delta,
    Details,
    Done,
    Event,
    Failed,
    Image,
    Phase,
    Scores,
    Timings,
    Usage,
    Vectors,
)
from contract.images import ImageRequest
from contract.jobs import AnyRequest
from contract.model_kinds import cannot
from contract.models import (
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    ListRequest,
    LoadRequest,
    PullRequest,
    RunningRequest,
    ShowRequest,
    UnloadRequest,
)
from contract.rerank import RerankRequest
from relay.aliases.moves import MovableJob, Moves
from relay.claims import StartedJob
from relay.connection import Connection
from relay.log import Log
from relay.publisher import AttemptLog
from relay.queue import Queue
from relay.records import requested
from relay.room.answer_room import SHORT_BYTES, AnswerRoom
from telemetry.plain_text import without_addresses
from telemetry.process_metrics import ProcessMetrics
from telemetry.tracing import Tracing
from workers.backends.protocols import (
    AcceptsImageUrls,
    Backend,
    Chat,
    CountTokens,
    Delete,
    Embed,
    GenerateImages,
    ManageModels,
    NamesSlots,
    Pull,
    Rerank,
    SwapModels,
    capabilities,
    ungranted,
)
from workers.backends.tools import CallBounds
from workers.backends.vector_rows import unit_vectors
from workers.continuation import Continuation, EarlierOutput, Fresh, Plan, plan
from workers.image_fetch import ImageFetcher
from workers.request_fitting import RequestFitting, pulled
from workers.retry import STAYS, Retry, TimeLeft, falls_back, retry

_log = logging.getLogger(__name__)

_CHANGE_MODELS: Final = frozenset({"pull", "create", "copy", "delete", "load", "unload"})
"""Kinds of jobs that change which models the backend has; the roster is updated before `done`."""
_TO_MOVE_S: Final = 60.0
"""Seconds in which a job that has waited for its target is moved to the next one."""
_LARGE: Final = (Vectors, Scores, Image)
"""Events of many kilobytes: each is written before the next one is read from the backend."""


class Broken(NamedTuple):
    """The end of a run that the backend failed."""

    error: BackendError | NewerVersion
    """NewerVersion: the request is of a newer version, and left to a worker that can read it."""
    retry: Retry | None
    """When to retry; None if the job has failed."""


class Elsewhere(NamedTuple):
    """The end of a run whose job moves to another target of its alias; nothing was written."""

    error: BackendError
    job: MovableJob
    target: int


class JobObserver(Protocol):
    """What a run reports while it runs, besides the events in the log."""

    def on_event(self, event: Event) -> None:
        """Receive each event before the first output of the backend, and that output."""
        ...

    async def on_models_changed(self) -> None:
        """Refresh what is known of the backend's models; awaited before `done` is written."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunServices:
    """What all runs of a worker share."""

    connection: Connection
    log: Log
    queue: Queue
    fitting: RequestFitting
    patience: int
    """FLEET_RETRY_PATIENCE: the attempt number up to which an absent backend costs no attempt."""
    metrics: ProcessMetrics
    tracing: Tracing
    backend_type: str
    """As in a DSN: `ollama`, `vllm`."""
    moves: Moves
    addresses: tuple[str, ...]
    """Of the backend: no event may tell them."""
    images: ImageFetcher
    answer_room: AnswerRoom


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One attempt of one job."""

    job: StartedJob
    backend: Backend
    attempt_log: AttemptLog
    observer: JobObserver
    services: RunServices
    packer: Embed | Rerank | None = None
    """Runs embed or rerank jobs in place of the backend."""
    prompt_slot: int | None = None
    """The slot of the backend's server that a chat names."""

    async def to_terminal_event(self) -> Done | Failed | Broken | Elsewhere:
        """Run the job until its terminal event is in the log, and return that.

        Returns Broken if the backend failed, Elsewhere if the job moves.

        Raises LeaseLost if another attempt holds the job, RelayUnavailable if Redis did not answer
        a read that the run depends on.
        """
        started_at = asyncio.get_running_loop().time()
        deadline = asyncio.timeout(self._remaining_s())
        try:
            async with deadline:
                last: Done | Failed = await self._answer(started_at)
        except (LeaseLost, RelayUnavailable):
            raise
        except (BackendError, NewerVersion) as error:
            self._hide_addresses(error)
            record = self.job.record
            if (elsewhere := await self._elsewhere(error)) is not None:
                return elsewhere
            again = retry(
                error,
                record.kind,
                record.attempt,
                patience=self.services.patience,
                left=self._time_left(error),
            )
            if again is None:
                self._fail(error)
            await self.attempt_log.flush()
            return Broken(error, again)
        except FleetError as error:
            last = self._fail(error)
        except Exception as error:  # noqa: BLE001 - every job gets a terminal event
            last = self._fail(self._unexpected(error, deadline))
        await self.attempt_log.flush()
        return last

    async def _elsewhere(self, error: FleetError) -> Elsewhere | None:
        """Where the job goes after this error, if it goes anywhere; raises RelayUnavailable."""
        record, services = self.job.record, self.services
        if record.alias is None or not isinstance(error, BackendError):
            return None
        await self.attempt_log.flush()
        job = await services.moves.movable(record, self.job.request)
        since = max(record.created_at, record.not_before or 0.0)
        waited_s = services.connection.now() - since
        if job is None or not falls_back(
            error, waited_s, job.wait_s, addresses=len(services.addresses)
        ):
            return None
        at = await services.moves.next(job)
        if at is None and type(error) not in STAYS:
            at = record.target + 1
        return None if at is None else Elsewhere(error, job, at)

    def _time_left(self, error: FleetError) -> TimeLeft:
        """How long the job may be retried after this error."""
        record, now = self.job.record, self.services.connection.now()
        waited_s = now - record.ready_at
        busy_wait_s = None
        if isinstance(error, BackendBusy):
            further = MovableJob.of(record, requested(self.job.request))
            if further is None or waited_s > further.wait_s + _TO_MOVE_S:
                busy_wait_s = record.busy_wait_s
        return TimeLeft(
            math.inf if record.deadline_at is None else record.deadline_at - now,
            math.inf if busy_wait_s is None else busy_wait_s,
            waited_s,
        )

    def _hide_addresses(self, error: FleetError) -> None:
        """Take the backend's addresses out of an error, which then may be told to its client."""
        public = without_addresses(error.message, self.services.addresses, self.backend.name)
        if public != error.message:
            _log.warning("job %s: %s", self.job.record.id, error.message)
            error.message, error.args = public, (public,)

    def _unexpected(self, error: Exception, deadline: asyncio.Timeout) -> FleetError:
        if isinstance(error, TimeoutError) and deadline.expired():
            return DeadlineExceeded("its deadline passed while it ran")
        _log.error("job %s: unexpected error", self.job.record.id, exc_info=error)
        return InternalError("a defect in the fleet; the worker's log has the details")

    def _remaining_s(self) -> float | None:
        deadline_at = self.job.record.deadline_at
        return (
            None if deadline_at is None else max(0.0, deadline_at - self.services.connection.now())
        )

    def _fail(self, error: FleetError) -> Failed:
        failed = Failed(
            code=error.code,
            message=error.message,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s,
        )
        self.attempt_log.append(failed)
        return failed

    async def _answer(self, started_at: float) -> Done:
        request = applied(requested(self.job.request), self.job.record.target)
        fitting = self.services.fitting
        fitting.demand_kind(request, capabilities(self.backend))
        if isinstance(request, EmbedRequest):
            request = fitting.with_prompt(request)
        ignored = ungranted(request, self.backend)
        if isinstance(request, ChatRequest):
            request = fitting.under_ceiling(request)
            if self._has_images_to_fetch(request):
                images, tenant = self.services.images, self.job.record.tenant
                async with images.fetched(request, tenant) as fetched:
                    return await self._answer_to(fetched, started_at, ignored)
        return await self._answer_to(request, started_at, ignored)

    async def _answer_to(
        self, request: AnyRequest, started_at: float, ignored: tuple[str, ...]
    ) -> Done:
        fitting, answer = self.services.fitting, await self._continuation(request)
        try:
            return await self._publish(answer, started_at, ignored)
        except ModelMissing as error:
            if request.on_missing != "pull" or not isinstance(self.backend, Pull):
                raise fitting.missing(error, self.job.record.model or "") from None
            await self._pull()
            loading = Phase(phase="loading")
            self.observer.on_event(loading)
            await self._append(loading)
            return await self._publish(answer, started_at, ignored)

    def _has_images_to_fetch(self, request: ChatRequest) -> bool:
        if not any(message.images for message in request.messages):
            return False
        backend = self.backend
        is_theirs = isinstance(backend, AcceptsImageUrls) and backend.accepts_image_urls
        return not (self.services.fitting.pass_image_urls and is_theirs)

    async def _pull(self) -> None:
        record, services = self.job.record, self.services
        model = record.model or ""
        pull = pulled(services.queue, services.log, record.backend, model, record.tenant)
        async with aclosing(pull) as phases:
            async for phase in phases:
                self.observer.on_event(phase)
                await self._append(phase)

    async def _publish(
        self, answer: Continuation, started_at: float, ignored: tuple[str, ...]
    ) -> Done:
        first_at, bounds = None, CallBounds()
        async with aclosing(answer.events()) as events:
            async for event in events:
                if first_at is None:
                    self.observer.on_event(event)
                if isinstance(event, Done):
                    if self.job.record.kind in _CHANGE_MODELS:
                        await self.observer.on_models_changed()
                    done = self._whole(event, ignored, started_at, first_at)
                    self.attempt_log.append(done)
                    return done
                bounds.demand(event)
                if first_at is None and _is_output(event):
                    first_at = asyncio.get_running_loop().time()
                await self._append(event)
                if self._is_at_limit(event):
                    done = self._whole(self._cut_off(), ignored, started_at, first_at)
                    self.attempt_log.append(done)
                    return done
        raise TruncatedStream("the backend's answer ended without its terminal marker")

    def _is_at_limit(self, event: Event) -> bool:
        """Whether the answer has all tokens that are reserved for it (relay/usage/limits.py)."""
        limit = self.job.record.answer_limit
        is_text = limit is not None and isinstance(event, Delta)
        return is_text and limit is not None and self.attempt_log.meter.pieces >= limit

    def _cut_off(self) -> Done:
        """The end of an answer whose backend would write on."""
        meter = self.attempt_log.meter
        usage = meter.usage or Usage(completion_tokens=meter.pieces)
        return Done(finish_reason="length", usage=usage.model_copy(update={"partial": True}))

    async def _append(self, event: Event) -> None:
        log, room, tenant = self.attempt_log, self.services.answer_room, self.job.record.tenant
        before, short_bytes = log.whole_bytes, room.short_bytes
        if (before > short_bytes or _is_long(event)) and room.is_spent(tenant):
            await room.wait(tenant)
        log.append(event)
        if (after := log.whole_bytes) > short_bytes:
            room.charge(tenant, max(0, after - int(max(before, short_bytes))))
        if isinstance(event, _LARGE):
            await log.flush()
        elif log.must_wait:
            await log.wait_for_room()

    async def _continuation(self, request: AnyRequest) -> Continuation:
        """Return how this attempt continues what earlier ones have written."""
        chosen: Plan = Fresh()
        if self.job.attempt > 1:
            earlier = await EarlierOutput.of(self.services.log, self.job.record.id)
            # The cap is of the job's log, not of what each attempt adds to it.
            self.attempt_log.size_bytes += earlier.size_bytes
            chosen = await plan(request, earlier, self.backend)
        return Continuation(chosen, request, self.job.attempt, self._stream)

    def _stream(self, request: AnyRequest) -> AsyncGenerator[Event, None]:
        backend, slot = self.backend, self.prompt_slot
        if (
            slot is not None
            and isinstance(request, ChatRequest)
            and isinstance(backend, NamesSlots)
        ):
            return backend.chat_in(request, slot)
        return stream(request, backend, self.packer)

    def _whole(
        self, done: Done, ignored: tuple[str, ...], started_at: float, first_at: float | None
    ) -> Done:
        """Return the `done` with all that was ignored and with its timings.

        Both times are of the loop's clock.
        """
        record = self.job.record
        timings = Timings(
            queued_ms=_ms((record.started_at or record.ready_at) - record.ready_at),
            load_ms=done.timings.load_ms,
            first_token_ms=None if first_at is None else _ms(first_at - started_at),
            total_ms=_ms(self.services.connection.now() - record.ready_at),
        )
        return done.model_copy(update={"timings": timings, "ignored": (*done.ignored, *ignored)})


def stream(  # noqa: C901, PLR0912 - one flat case per kind
    request: AnyRequest, backend: Backend, packer: Embed | Rerank | None = None
) -> AsyncGenerator[Event, None]:
    """Open the backend's stream for a request.

    Raises NotSupported if the backend has no method for this kind of request.
    """
    match request:
        case ChatRequest() if isinstance(backend, Chat):
            return backend.chat(request)
        case EmbedRequest() if isinstance(backend, Embed):
            rows = (packer if isinstance(packer, Embed) else backend).embed(request)
            return unit_vectors(rows) if request.normalize else rows
        case PullRequest() if isinstance(backend, Pull):
            return backend.pull(request)
        case ImageRequest() if isinstance(backend, GenerateImages):
            return backend.image(request)
        case ShowRequest() if isinstance(backend, ManageModels):
            return backend.show(request)
        case CreateRequest() if isinstance(backend, ManageModels):
            return backend.create(request)
        case CopyRequest() if isinstance(backend, ManageModels):
            return backend.copy(request)
        case DeleteRequest() if isinstance(backend, Delete):
            return backend.delete(request)
        case RunningRequest() if isinstance(backend, SwapModels):
            return backend.running()
        case LoadRequest() if isinstance(backend, SwapModels):
            return backend.load(request)
        case UnloadRequest() if isinstance(backend, SwapModels):
            return backend.unload(request)
        case CountRequest() if isinstance(backend, CountTokens):
            return backend.count(request)
        case RerankRequest() if isinstance(backend, Rerank):
            return (packer if isinstance(packer, Rerank) else backend).rerank(request)
        case ListRequest():
            return _listed(backend)
        case _:
            raise NotSupported(cannot(backend.name, request.kind, capabilities(backend)))


async def _listed(backend: Backend) -> AsyncGenerator[Event, None]:
    models = [model.model_dump(mode="json") for model in await backend.models()]
    yield Details(details={"models": models})
    yield Done()


def _is_long(event: Event) -> bool:
    """Whether it may have more than a short answer has."""
    if isinstance(event, Delta):
        return len(event.content or event.thinking or "") > SHORT_BYTES
    return isinstance(event, _LARGE)


def _is_output(event: Event) -> bool:
    return event.has_words if isinstance(event, Delta) else isinstance(event, _LARGE)


def _ms(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 1)
