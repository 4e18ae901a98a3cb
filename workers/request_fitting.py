"""What is known of a backend's models: what each is for, and how a request is cut to fit it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from contract.chat import ChatRequest
from contract.errors import (
    ModelMissing,
    WrongKind,
)
from contract.events import AnyEvent, Cancelled, Done, Failed, Phase, Progress
from contract.jobs import AnyRequest
from contract.model_kinds import MODEL_KINDS, kinds, lacks, not_for
from contract.model_names import close, find, untagged
from contract.models import PullRequest
from contract.redis_keys import queue_name
from contract.roster import Capability, ModelReport
from contract.tenants import Tenant
from relay.log import Log
from relay.queue import Queue


class RequestFitting:
    """The models of one backend as last seen; `roster_reporter.py` keeps it up to date."""

    def __init__(self, *, private_images: bool = False) -> None:
        """Know nothing yet; `private_images` is WorkerSettings.private_images."""
        self.private_images = private_images
        self._ceilings: dict[str, int] = {}
        self._models: dict[str, ModelReport] = {}

    def learn(self, models: Sequence[ModelReport]) -> None:
        """Take what was just seen; a ceiling of 0 or None is unknown."""
        self._models = {model.name: model for model in models}
        self._ceilings = {
            untagged(model.name): model.max_output_tokens
            for model in models
            if model.max_output_tokens
        }

    def demand_kind(self, request: AnyRequest, capabilities: Sequence[Capability]) -> None:
        """Raise WrongKind if the model is known not to do this kind of job.

        The shim has refused such a job; others come from Celery, or before the model was known.
        """
        model, kind = getattr(request, "model", ""), request.kind
        found = find(self._models, model)
        if kind not in MODEL_KINDS or found is None or not lacks([found[1]], kind):
            return
        does = kinds([found[1]], capabilities)
        others = sorted(name for name, report in self._models.items() if kind in report.traits)
        raise WrongKind(not_for(model, kind, does, others))

    def missing(self, error: ModelMissing, model: str) -> ModelMissing:
        """The error with names that may have been meant, if any is close."""
        names = close(model, self._models)
        if not names or find(self._models, model) is not None:
            return error
        named = ModelMissing(
            f"{error.message}; close names: {', '.join(names)}",
            upstream_status=error.upstream_status,
        )
        named.is_echo = error.is_echo
        return named

    def under_ceiling(self, request: ChatRequest) -> ChatRequest:
        """The request with `max_tokens` cut to what its model can say at most."""
        ceiling = self._ceilings.get(untagged(request.model))
        if ceiling is None or request.max_tokens is None or request.max_tokens <= ceiling:
            return request
        return request.model_copy(update={"max_tokens": ceiling})


_STEP = 0.01
"""Progress that is worth an event."""


async def pulled(
    queue: Queue, log: Log, backend: str, model: str, tenant: str
) -> AsyncGenerator[Phase, None]:
    """Pull a model on a backend, or follow whoever does; tells how far it is.

    Leaving early does not stop the pull. Raises ModelMissing if it fails, RelayUnavailable.
    """
    request = PullRequest(model=model, backend=backend)
    pulls = queue_name(backend, "pull")
    record, _ = await queue.enqueue(request, queue=pulls, tenant=Tenant(name=tenant))
    told: float | None = None
    yield Phase(phase="pulling")
    async with aclosing(log.follow(record.id)) as pages:
        async for frames in pages:
            for frame in frames:
                progress = _progress(frame.event, model)
                if progress is not None and (told is None or progress - told >= _STEP):
                    told = progress
                    yield Phase(phase="pulling", progress=progress)


def _progress(event: AnyEvent, model: str) -> float | None:
    """0 to 1 where the event tells; raises ModelMissing where it says that the pull failed."""
    match event:
        case Progress(overall_total_bytes=int(total), overall_completed_bytes=int(completed)):
            return round(min(1.0, completed / total), 3) if total else None
        case Failed(code=code, message=message):
            raise ModelMissing(f"{model} is not there, and pulling it failed: {message} ({code})")
        case Cancelled():
            raise ModelMissing(f"{model} is not there, and its pull was cancelled")
        case Done():
            return 1.0
        case _:
            return None
