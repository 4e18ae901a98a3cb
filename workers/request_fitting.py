"""What is known of a backend's models: what each is for, and how a request is cut to fit it."""

from collections.abc import Sequence

from contract.chat import ChatRequest
from contract.errors import WrongKind
from contract.errors_m_backend_errors import ModelMissing
from contract.jobs import AnyRequest
from contract.model_names import close, find, untagged
from contract.models_m_model_kinds import MODEL_KINDS, kinds, lacks, not_for
from contract.roster import Capability, ModelReport


class Fitting:
    """The models of one backend as they were last seen; `roster_reporter.py` keeps it up to date."""

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
