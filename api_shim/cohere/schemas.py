"""Schemas of responses, for /openapi.json only; responses are encoded without them."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from api_shim.cohere.errors import CohereErrorResponse
from api_shim.http.openapi import JOB_HEADERS

_FAULTS: Final = {
    400: "A field is missing or invalid (`error.param` names it), or the backend refused.",
    401: "No API key, or an unknown one.",
    403: "The key lacks a permission, or may not use this model or backend; or there are no keys, "
    "and the client is not on this machine.",
    404: "No backend has the model.",
    408: "The client left.",
    409: "The job was cancelled, or the Idempotency-Key belongs to another request.",
    413: "The body is larger than FLEET_MAX_BODY_BYTES.",
    415: "The body is not JSON.",
    429: "The queue or the tenant's share is full; Retry-After says when to retry.",
    500: "An internal error.",
    502: "The backend failed.",
    503: "No worker, a busy backend, or Redis is unavailable.",
    504: "The backend did not answer, or the deadline passed.",
    507: "A disk is full.",
}


class CohereSchema(BaseModel):
    """A part of a response."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


class RerankResult(CohereSchema):
    """A document's place."""

    index: int
    """Of the document in the request."""
    relevance_score: float
    """As the backend gives it: greater is more relevant."""
    document: dict[str, Any] | None = None
    """With `return_documents`."""


class _Scored(CohereSchema):
    id: str
    object: Literal["list"]
    created: int
    model: str
    usage: dict[str, int] | None
    """Null if the backend reported none."""
    meta: dict[str, Any]


class RerankList(_Scored):
    """Documents, the most relevant first."""

    results: list[RerankResult]


class EmbeddingsByType(CohereSchema):
    """Vectors in the order of the texts, by type."""

    response_type: Literal["embeddings_by_type"]
    id: str
    embeddings: dict[str, list[list[float] | list[int] | str]]
    texts: list[str]
    meta: dict[str, Any]


class PairScore(CohereSchema):
    """The score of a pair."""

    index: int
    object: Literal["score"]
    score: float


class ScoreList(_Scored):
    """Scores in the order of the pairs."""

    data: list[PairScore]


def cohere_answers(whole: type[BaseModel]) -> dict[int | str, Any]:
    """The `responses` of a route that submits a job."""
    faults: dict[int | str, Any] = {
        status: {"model": CohereErrorResponse, "description": text}
        for status, text in _FAULTS.items()
    }
    good = {"model": whole, "description": "The response.", "headers": JOB_HEADERS}
    return {200: good, **faults}
