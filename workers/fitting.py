"""What is known of a backend's models, and how a request is cut to fit it."""

from collections.abc import Sequence

from contract.chat import ChatRequest
from contract.model_names import untagged
from contract.roster import ModelReport


class Fitting:
    """The models of one backend as they were last seen; `presence.py` keeps it up to date."""

    def __init__(self, *, private_images: bool = False) -> None:
        """Know nothing yet; `private_images` is WorkerSettings.private_images."""
        self.private_images = private_images
        self._ceilings: dict[str, int] = {}

    def learn(self, models: Sequence[ModelReport]) -> None:
        """Take what was just seen; a ceiling of 0 or None is unknown."""
        self._ceilings = {
            untagged(model.name): model.max_output_tokens
            for model in models
            if model.max_output_tokens
        }

    def under_ceiling(self, request: ChatRequest) -> ChatRequest:
        """The request with `max_tokens` cut to what its model can say at most."""
        ceiling = self._ceilings.get(untagged(request.model))
        if ceiling is None or request.max_tokens is None or request.max_tokens <= ceiling:
            return request
        return request.model_copy(update={"max_tokens": ceiling})
