"""One job, from its claim to exactly one last word.

This is the only place that writes `failed` for an attempt that runs (others end a job only after
they have taken it away: `Leases.end`). A run ends in one of four ways: its last word stands
in the log; the backend failed in a way that may pass (Broken), then the worker gives it back;
somebody else took the job (LeaseLost), then it says nothing more; or it was cancelled from
outside, then whoever cancelled it decides what becomes of the job.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from contract.chat import ChatRequest
from contract.embeddings import EmbedRequest
from contract.errors import (
    BackendError,
    DeadlineExceeded,
    FleetError,
    InternalError,
    LeaseLost,
    LogFull,
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
    Timings,
    Vectors,
)
from contract.images import ImageRequest
from contract.jobs import AnyRequest, JobRecord
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
from relay.connection import Connection
from relay.log import Log
from relay.publisher import AttemptLog
from relay.queue import Queue, StartedJob
from relay.records import requested
from workers.backends.feature_grants import ungranted
from workers.backends.protocols import (
    AcceptsImageUrls,
    Backend,
    Chat,
    Delete,
    Embed,
    GenerateImages,
    ManageModels,
    Pull,
    SwapModels,
    capabilities,
)
from workers.continuation import Continuation, Fresh, Plan, Said, plan
from workers.image_fetch import with_pictures
from workers.request_fitting import RequestFitting, pulled
from workers.retry import Retry, retry

_log = logging.getLogger(__name__)

_CHANGE_MODELS: Final = frozenset({"pull", "create", "copy", "delete", "load", "unload"})
"""Kinds after whose end the roster is to know at once what the backend has now."""
_HEAVY: Final = (Vectors, Image)
"""Events of many kilobytes: each is written before the next one is asked for."""


class Broken(NamedTuple):
    """How a run ends that the backend failed: with what, and when to try again, if at all."""

    error: BackendError | NewerVersion
    """The latter, if the job is of a newer version and left to a worker that can read it."""
    retry: Retry | None


@dataclass(frozen=True, slots=True)
class Run:
    """What it takes to run one job."""

    claim: StartedJob
    backend: Backend
    voice: AttemptLog
    log: Log
    queue: Queue
    connection: Connection
    fitting: RequestFitting
    patience: int
    """FLEET_RETRY_PATIENCE."""
    hear: Callable[[Event], None]
    """Is told what the job says up to its first output."""
    look: Callable[[], Awaitable[None]]
    """Looks at the backend and tells the roster what is there."""
    packer: Embed | None = None
    """Takes embed jobs in place of the backend."""

    async def to_its_last_word(self) -> Broken | None:
        """Run the job; returns when its last word stands in the log, or it should be tried again.

        Raises LeaseLost when the job was taken away, RelayUnavailable when Redis did not answer
        what the run had to know.
        """
        claimed_at = asyncio.get_running_loop().time()
        deadline = asyncio.timeout(self._remaining_s())
        try:
            async with deadline:
                await self._answer(claimed_at)
        except (LeaseLost, RelayUnavailable):
            raise
        except (BackendError, NewerVersion) as error:
            record = self.claim.record
            again = retry(error, record.kind, record.attempt, patience=self.patience)
            if again is None:
                self._fail(error)
            await self.voice.written()
            return Broken(error, again)
        except FleetError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - whatever it was, the job gets a last word
            self._fail(self._unforeseen(error, deadline))
        await self.voice.written()
        return None

    def _unforeseen(self, error: Exception, deadline: asyncio.Timeout) -> FleetError:
        if isinstance(error, TimeoutError) and deadline.expired():
            return DeadlineExceeded("its deadline passed while it ran")
        _log.error("job %s met a defect of ours", self.claim.record.id, exc_info=error)
        return InternalError("a defect in the fleet; the worker's log has the details")

    def _remaining_s(self) -> float | None:
        deadline_at = self.claim.record.deadline_at
        return None if deadline_at is None else max(0.0, deadline_at - self.connection.now())

    def _fail(self, error: FleetError) -> None:
        self.voice.say(Failed(code=error.code, message=error.message, retryable=error.retryable))

    async def _answer(self, claimed_at: float) -> None:
        request = requested(self.claim.request)
        self.fitting.demand_kind(request, capabilities(self.backend))
        ignored = ungranted(request, self.backend)
        request = await self._fitted(request)
        answer = await self._continuation(request)
        try:
            await self._relay(answer, claimed_at, ignored)
        except ModelMissing as error:
            if request.on_missing != "pull" or not isinstance(self.backend, Pull):
                raise self.fitting.missing(error, self.claim.record.model or "") from None
            await self._pull(self.claim.record)
            loading = Phase(phase="loading")
            self.hear(loading)
            await self._say(loading)
            await self._relay(answer, claimed_at, ignored)

    async def _fitted(self, request: AnyRequest) -> AnyRequest:
        """The request as its backend can take it: no longer than the ceiling, images at hand."""
        if not isinstance(request, ChatRequest):
            return request
        request = self.fitting.under_ceiling(request)
        if isinstance(self.backend, AcceptsImageUrls) and self.backend.accepts_image_urls:
            return request
        return await with_pictures(request, private=self.fitting.private_images)

    async def _pull(self, record: JobRecord) -> None:
        model = record.model or ""
        fetching = pulled(self.queue, self.log, record.backend, model, record.tenant)
        async with aclosing(fetching) as phases:
            async for phase in phases:
                self.hear(phase)
                await self._say(phase)

    async def _relay(
        self, answer: Continuation, claimed_at: float, ignored: tuple[str, ...]
    ) -> None:
        first_at: float | None = None
        async with aclosing(answer.events()) as events:
            async for event in events:
                if first_at is None:
                    self.hear(event)
                if isinstance(event, Done):
                    if self.claim.record.kind in _CHANGE_MODELS:
                        await self.look()
                    done = event.model_copy(update={"ignored": (*event.ignored, *ignored)})
                    self.voice.say(self._timed(done, claimed_at, first_at))
                    return
                if first_at is None and _is_output(event):
                    first_at = asyncio.get_running_loop().time()
                await self._say(event)
        raise TruncatedStream("the backend's answer ended without its terminal marker")

    async def _say(self, event: Event) -> None:
        cap = self.connection.settings.log_cap_bytes
        if self.voice.size_bytes > cap:
            raise LogFull(f"the answer is longer than FLEET_LOG_CAP_BYTES ({cap})")
        self.voice.say(event)
        if isinstance(event, _HEAVY):
            await self.voice.written()
        elif self.voice.must_wait:
            await self.voice.room()

    async def _continuation(self, request: AnyRequest) -> Continuation:
        """How this attempt goes on from what earlier ones have said, if there were any."""
        chosen: Plan = Fresh()
        if self.claim.attempt > 1:
            said = await Said.of(self.log, self.claim.record.id)
            # The cap is of the job's log, not of what each attempt adds to it.
            self.voice.size_bytes += said.size_bytes
            chosen = await plan(request, said, self.backend)
        ask = partial(stream, backend=self.backend, packer=self.packer)
        return Continuation(chosen, request, self.claim.attempt, ask)

    def _timed(self, done: Done, claimed_at: float, first_at: float | None) -> Done:
        record = self.claim.record
        started_at = record.started_at or record.created_at
        timings = Timings(
            queued_ms=_ms(started_at - record.created_at),
            load_ms=done.timings.load_ms,
            first_token_ms=None if first_at is None else _ms(first_at - claimed_at),
            total_ms=_ms(self.connection.now() - record.created_at),
        )
        return done.model_copy(update={"timings": timings})


def stream(  # noqa: C901, PLR0912 - one flat case per kind
    request: AnyRequest, backend: Backend, packer: Embed | None = None
) -> AsyncGenerator[Event, None]:
    """Open what the request asks for; raises NotSupported if the backend has no method for it."""
    match request:
        case ChatRequest() if isinstance(backend, Chat):
            return backend.chat(request)
        case EmbedRequest() if isinstance(backend, Embed):
            return (packer or backend).embed(request)
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
        case ListRequest():
            return _listed(backend)
        case _:
            raise NotSupported(cannot(backend.name, request.kind, capabilities(backend)))


async def _listed(backend: Backend) -> AsyncGenerator[Event, None]:
    models = [model.model_dump(mode="json") for model in await backend.models()]
    yield Details(details={"models": models})
    yield Done()


def _is_output(event: Event) -> bool:
    return event.has_words if isinstance(event, Delta) else isinstance(event, _HEAVY)


def _ms(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 1)
