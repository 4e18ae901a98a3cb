"""Fits a request to its model: its kind, its `max_tokens`, and a pull if the model is missing."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Final

from contract.chat import ChatRequest
from contract.embeddings import EmbedRequest, Task
from contract.errors import ModelMissing, WrongKind
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

_STEP: Final = 0.01
"""Least progress of a pull between two events."""


class RequestFitting:
    """The models of one backend at its last probe; `roster_reporter.py` keeps it up to date."""

    def __init__(
        self,
        *,
        pass_image_urls: bool = False,
        prompts: Mapping[str, Mapping[Task, str]] = MappingProxyType({}),
    ) -> None:
        """Start without a model; `pass_image_urls` is WorkerSettings'.

        `prompts` are those of embedding models for tasks, by model.
        """
        self.pass_image_urls = pass_image_urls
        self._prompts = prompts
        self._ceilings: dict[str, int] = {}
        self._models: dict[str, ModelReport] = {}

    def learn(self, models: Sequence[ModelReport]) -> None:
        """Take the models of a probe; a `max_output_tokens` of 0 or None is unknown."""
        self._models = {model.name: model for model in models}
        self._ceilings = {
            untagged(model.name): model.max_output_tokens
            for model in models
            if model.max_output_tokens
        }

    def demand_kind(self, request: AnyRequest, capabilities: Sequence[Capability]) -> None:
        """Raise WrongKind if the model is known not to do this kind of job.

        The shim refuses such a job already, but not those from Celery or from before the probe.
        """
        model, kind = getattr(request, "model", ""), request.kind
        found = find(self._models, model)
        if kind not in MODEL_KINDS or found is None or not lacks([found[1]], kind):
            return
        does = kinds([found[1]], capabilities)
        others = sorted(name for name, report in self._models.items() if kind in report.traits)
        raise WrongKind(not_for(model, kind, does, others))

    def missing(self, error: ModelMissing, model: str) -> ModelMissing:
        """Return the error with similar names of models in its message, if there are any."""
        names = close(model, self._models)
        if not names or find(self._models, model) is not None:
            return error
        named = ModelMissing(
            f"{error.message}; close names: {', '.join(names)}",
            upstream_status=error.upstream_status,
        )
        named.is_echo = error.is_echo
        return named

    def with_prompt(self, request: EmbedRequest) -> EmbedRequest:
        """Return the request with its task's prompt before each text, where one is configured."""
        found = None if request.task is None else find(self._prompts, request.model)
        prompt = None if found is None else found[1].get(request.task or "query")
        if prompt is None or request.tokens:
            return request
        texts = tuple(f"{prompt}{text}" for text in request.input)
        return request.model_copy(update={"input": texts, "task": None})

    def under_ceiling(self, request: ChatRequest) -> ChatRequest:
        """Return the request with `max_tokens` cut to the `max_output_tokens` of its model."""
        ceiling = self._ceilings.get(untagged(request.model))
        if ceiling is None or request.max_tokens is None or request.max_tokens <= ceiling:
            return request
        return request.model_copy(update={"max_tokens": ceiling})


async def pulled(
    queue: Queue, log: Log, backend: str, model: str, tenant: str
) -> AsyncGenerator[Phase, None]:
    """Pull a model by a job of its own, or follow one that runs; yields its progress from 0 to 1.

    Closing the generator does not stop the pull. Raises ModelMissing if it fails, QueueFull,
    RelayUnavailable.
    """
    request = PullRequest(model=model, backend=backend)
    pulls = queue_name(backend, "pull")
    record, _ = await queue.enqueue(request, queue=pulls, tenant=Tenant(name=tenant))
    reported: float | None = None
    yield Phase(phase="pulling")
    async with aclosing(log.follow(record.id)) as pages:
        async for frames in pages:
            for frame in frames:
                progress = _progress(frame.event, model)
                if progress is not None and (reported is None or progress - reported >= _STEP):
                    reported = progress
                    yield Phase(phase="pulling", progress=progress)


def _progress(event: AnyEvent, model: str) -> float | None:
    """Return the progress in an event, 0 to 1; raises ModelMissing if the pull has failed."""
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
