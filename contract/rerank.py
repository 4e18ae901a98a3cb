"""Rerank requests: how relevant each document is to a query; and the order that follows."""

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import Field, StrictBool, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from contract.requests import Request
from contract.wire import TextLength, WireModel

MOST_DOCUMENTS: Final = 8192
LONGEST_DOCUMENT: Final = 262_144
"""Characters."""
LONGEST_QUERY: Final = 65_536
"""Characters."""

Document = Annotated[str, TextLength(LONGEST_DOCUMENT)]
Query = Annotated[str, TextLength(LONGEST_QUERY, least=1)]


class RerankRequest(Request):
    """Score documents by a query; the answer comes as `scores` events in the order of `documents`.

    With `queries` in place of `query`, each document has a query of its own: pairs are scored, and
    their order means nothing.
    """

    kind: Literal["rerank"] = "rerank"
    model: Annotated[str, Field(min_length=1, max_length=256)]
    documents: Annotated[tuple[Document, ...], Field(min_length=1, max_length=MOST_DOCUMENTS)]
    queries: Annotated[tuple[Query, ...], Field(max_length=MOST_DOCUMENTS)] = ()
    """A query for each document, instead of `query`."""
    query: Annotated[Query | None, Field(validate_default=True)] = None
    """The query for all documents; required, unless there are `queries`."""
    top_n: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The most entries of the result's `ranking`, the most relevant ones; all by default."""
    truncate: StrictBool | None = None
    """Cut a document that is too long (true, the default) or fail the job (false)."""

    @property
    def count(self) -> int:
        """Number of requested scores."""
        return len(self.documents)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Each document with its query, `(query, document)`."""
        queries = self.queries or (self.query or "",) * len(self.documents)
        return tuple(zip(queries, self.documents, strict=True))

    @field_validator("queries")
    @classmethod
    def _one_for_each(cls, queries: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        documents = info.data.get("documents", queries)
        if queries and len(queries) != len(documents):
            raise PydanticCustomError(
                "queries_count",
                "{queries} queries for {documents} documents: send one for each document",
                {"queries": len(queries), "documents": len(documents)},
            )
        return queries

    @field_validator("query")
    @classmethod
    def _one_of_both(cls, query: str | None, info: ValidationInfo) -> str | None:
        queries = info.data.get("queries")
        if queries is None:  # they are wrong themselves
            return query
        if query is None and not queries:
            raise PydanticCustomError("missing", "query, or queries with one for each document")
        if query is not None and queries:
            raise PydanticCustomError("query_twice", "send query, or queries, not both")
        return query


class Ranked(WireModel):
    """A document's place in the order of relevance."""

    index: int
    """Of the document in the request, from 0."""
    score: float
    """As the model gives it: greater is more relevant. Scores of two models do not compare."""


def ranked(scores: Iterable[float], top_n: int | None = None) -> tuple[Ranked, ...]:
    """The documents, the most relevant first; equal ones in the order of the request."""
    found = sorted(enumerate(scores), key=lambda pair: -pair[1])
    return tuple(Ranked(index=index, score=score) for index, score in found[:top_n])
