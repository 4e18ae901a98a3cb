"""POST /api/embed and its older form /api/embeddings: the request and the response. Pure.

Source: ollama/ollama `server/routes.go` (EmbedHandler, EmbeddingsHandler): vectors of `embed` have
length 1, those of `embeddings` are the model's; a request without text loads the model.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from api_shim.following.piecewise import items_in_pieces
from api_shim.ollama.request_fields import NamedModel, build_request, keep_alive_s
from api_shim.ollama.response_fields import metrics
from api_shim.submission.ignored_fields import IgnoredField
from contract.embeddings import EmbedRequest
from contract.json_lines import json_line
from contract.models import LoadRequest, UnloadRequest
from contract.quantization import encoded_rows
from contract.requests import Word
from contract.result import Result

_LENGTH_TOLERANCE = 1e-3
"""A vector this close to length 1 is returned unchanged."""


def _one_shape(given: object) -> object:
    """Return the input if it is a text or a list of texts; raises PydanticCustomError once."""
    items = given if isinstance(given, list) else [given]
    wrong = next((at for at, item in enumerate(items) if not isinstance(item, str)), None)
    if given is None or wrong is None:
        return given
    raise PydanticCustomError(
        "input_type",
        "must be one text or a list of texts{item}",
        {"item": f"; item {wrong} is no text" if isinstance(given, list) else ""},
    )


class EmbedBody(NamedModel):
    """Texts to embed."""

    input: Annotated[str | tuple[str, ...] | None, BeforeValidator(_one_shape)] = None
    truncate: bool | None = None
    """The default is true."""
    dimensions: int | None = None
    keep_alive: float | Word | None = None
    options: Annotated[dict[str, Any] | None, IgnoredField()] = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts; an empty text alone counts as none."""
        if isinstance(self.input, str):
            return (self.input,) if self.input else ()
        return self.input or ()


class EmbeddingsBody(NamedModel):
    """One text to embed."""

    prompt: str | None = None
    keep_alive: float | Word | None = None
    options: Annotated[dict[str, Any] | None, IgnoredField()] = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The text, if any."""
        return (self.prompt,) if self.prompt else ()


def to_embed_job(body: EmbedBody | EmbeddingsBody) -> EmbedRequest | LoadRequest | UnloadRequest:
    """The request; raises InvalidRequest."""
    seconds = keep_alive_s(body.keep_alive)
    fields: dict[str, Any] = {"backend": body.backend, "model": body.model_name}
    if not body.texts:
        if seconds == 0:
            return build_request(UnloadRequest, **fields)
        return build_request(LoadRequest, keep_alive_s=seconds, **fields)
    extra: dict[str, Any] = {}
    if isinstance(body, EmbedBody):
        extra = {"truncate": body.truncate, "dimensions": body.dimensions}
    return build_request(EmbedRequest, input=body.texts, keep_alive_s=seconds, **extra, **fields)


def _rows(result: Result) -> Iterator[list[float]]:
    found = result.embeddings
    rows: Any = encoded_rows(found.data, found.dimension, "float") if found else ()
    return iter(rows)


def _unit(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    if not length or abs(length - 1) < _LENGTH_TOLERANCE:
        return vector
    return [number / length for number in vector]


def embed_pieces(model: str, result: Result | None) -> Iterator[bytes]:
    """The response of `embed`, some rows at a time; `result` is None if there was no text."""
    counts: dict[str, Any] = {"total_duration": 0, "load_duration": 0, "prompt_eval_count": 0}
    vectors: Iterator[list[float]] = iter(())
    if result is not None:
        counts = {name: value for name, value in metrics(result).items() if name in counts}
        vectors = map(_unit, _rows(result))
    yield b'{"model":%s,"embeddings":[' % json_line(model)
    yield from items_in_pieces(map(json_line, vectors))
    yield b"]," + json_line(counts)[1:]


def embeddings_response(result: Result | None) -> bytes:
    """The response of `embeddings`; `result` is None if there was no text."""
    return json_line({"embedding": [] if result is None else next(_rows(result), [])})
