"""POST /api/embed, and /api/embeddings, which came before it. Pure.

Source: ollama/ollama `server/routes.go` (EmbedHandler, EmbeddingsHandler): the vectors of `embed`
have length 1, those of `embeddings` are as the model made them; no text, no vector, and the model
is loaded.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from api_shim.ollama.request_fields import NamedModel, keep_alive_s, requested
from api_shim.ollama.response_fields import metrics
from api_shim.submission.ignored_fields import LeftAlone
from contract.embeddings import EmbedRequest, unpack
from contract.json_lines import json_line
from contract.models import LoadRequest, UnloadRequest
from contract.result import Result

_LENGTH_TOLERANCE = 1e-3
"""A vector whose length is 1 but for this is passed on as it came."""


def _one_shape(given: object) -> object:
    """Return the input if it is a text or a list of texts; raises PydanticCustomError once."""
    items = given if isinstance(given, list) else [given]
    wrong = next((at for at, item in enumerate(items) if not isinstance(item, str)), None)
    if given is None or wrong is None:
        return given
    raise PydanticCustomError(
        "input_type",
        "it is one text or a list of texts{item}",
        {"item": f"; its item {wrong} is no text" if isinstance(given, list) else ""},
    )


class EmbedBody(NamedModel):
    """Texts to turn into vectors."""

    input: Annotated[str | tuple[str, ...] | None, BeforeValidator(_one_shape)] = None
    truncate: bool | None = None
    """Absent means true."""
    dimensions: int | None = None
    keep_alive: float | str | None = None
    options: Annotated[dict[str, Any] | None, LeftAlone()] = None

    @property
    def texts(self) -> tuple[str, ...]:
        """What there is to embed; an empty text alone is nothing."""
        if isinstance(self.input, str):
            return (self.input,) if self.input else ()
        return self.input or ()


class EmbeddingsBody(NamedModel):
    """One text to turn into a vector."""

    prompt: str | None = None
    keep_alive: float | str | None = None
    options: Annotated[dict[str, Any] | None, LeftAlone()] = None

    @property
    def texts(self) -> tuple[str, ...]:
        """What there is to embed, if anything."""
        return (self.prompt,) if self.prompt else ()


def to_job(body: EmbedBody | EmbeddingsBody) -> EmbedRequest | LoadRequest | UnloadRequest:
    """The job that a request is; raises InvalidRequest."""
    seconds = keep_alive_s(body.keep_alive)
    fields: dict[str, Any] = {"backend": body.backend, "model": body.wanted}
    if not body.texts:
        if seconds == 0:
            return requested(UnloadRequest, **fields)
        return requested(LoadRequest, keep_alive_s=seconds, **fields)
    extra: dict[str, Any] = {}
    if isinstance(body, EmbedBody):
        extra = {"truncate": body.truncate, "dimensions": body.dimensions}
    return requested(EmbedRequest, input=body.texts, keep_alive_s=seconds, **extra, **fields)


def rows(result: Result, *, unit: bool) -> list[list[float]]:
    """The vectors of a job, `unit`: each of length 1."""
    found = result.embeddings
    if found is None:
        return []
    vectors = unpack(found.data, found.dimension)
    return [_unit(vector) for vector in vectors] if unit else vectors


def _unit(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    if not length or abs(length - 1) < _LENGTH_TOLERANCE:
        return vector
    return [number / length for number in vector]


def embedded(model: str, result: Result | None) -> bytes:
    """The answer of `embed`; None where there was nothing to embed."""
    told: dict[str, Any] = {"total_duration": 0, "load_duration": 0, "prompt_eval_count": 0}
    vectors: Sequence[Sequence[float]] = ()
    if result is not None:
        told = {name: value for name, value in metrics(result).items() if name in told}
        vectors = rows(result, unit=True)
    return json_line({"model": model, "embeddings": vectors, **told})


def embedding(result: Result | None) -> bytes:
    """The answer of `embeddings`."""
    vectors = [] if result is None else rows(result, unit=False)
    return json_line({"embedding": vectors[0] if vectors else []})
