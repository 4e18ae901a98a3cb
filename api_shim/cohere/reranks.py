"""Rerank and score: the requests and the responses. Pure.

Sources: cohere-ai/cohere-python (`v2/raw_client.py`, `raw_base_client.py`: /v2/rerank and
/v1/rerank), Jina's reranker API, vLLM `entrypoints/pooling/score/protocol.py` (/score).
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import AliasChoices, Field, ValidationError

from api_shim.cohere.errors import named, wrong_field
from api_shim.submission.ignored_fields import IgnoredField, LenientModel
from contract.errors import NotSupported
from contract.requests import Word
from contract.rerank import RerankRequest
from contract.result import Result

_TEXT: Final = "text"
_IMAGE: Final = "image"


class RerankBody(LenientModel):
    """Documents to order by a query."""

    model: Word
    """As listed by `GET /v1/models`."""
    query: str
    documents: list[str | dict[str, Any]]
    """Texts, or objects with a `text` or the fields that `rank_fields` names."""
    top_n: int | None = None
    """The most results; all by default."""
    return_documents: bool = False
    """Whether each result has its document."""
    rank_fields: list[Word] | None = None
    """Fields of documents that are objects, in the order in which the model reads them."""
    backend: Word | None = None
    """Name of the backend, an addition of ours for fleets where several have the model."""
    priority: Annotated[int | None, IgnoredField(unless=(0,))] = None


class ScoreBody(LenientModel):
    """Pairs of texts to score: one with one, one with each of a list, or list with list."""

    model: Word
    """As listed by `GET /v1/models`."""
    text_1: Annotated[
        str | list[str], Field(validation_alias=AliasChoices("text_1", "data_1", "queries"))
    ]
    """The query, or one for each document."""
    text_2: Annotated[
        str | list[str], Field(validation_alias=AliasChoices("text_2", "data_2", "documents"))
    ]
    """The document, or a list of them."""
    backend: Word | None = None
    """Name of the backend, an addition of ours for fleets where several have the model."""


def to_rerank(body: RerankBody) -> RerankRequest:
    """The request; raises Refusal for what is not supported."""
    fields = tuple(body.rank_fields or ())
    texts: list[str] = []
    for at, document in enumerate(body.documents):
        texts.append(_text(at, document, fields))
        if not body.return_documents:
            body.documents[at] = ""  # of a large one there is no second
    given = {"query": body.query, "documents": texts, "top_n": body.top_n}
    return _request({"model": body.model, "backend": body.backend, **given}, {})


def to_score(body: ScoreBody) -> RerankRequest:
    """The request; raises Refusal for lists that do not match."""
    documents = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    query: dict[str, Any]
    if isinstance(body.text_1, str):
        query = {"query": body.text_1}
    elif len(body.text_1) == 1:
        query = {"query": body.text_1[0]}
    elif len(body.text_1) == len(documents):
        query = {"queries": body.text_1}
    else:
        raise wrong_field(
            "text_1",
            f"has {len(body.text_1)} texts and text_2 has {len(documents)}: send one text, or one"
            " for each of text_2",
        )
    names = {"query": "text_1", "queries": "text_1", "documents": "text_2"}
    given = {"model": body.model, "backend": body.backend, "documents": documents, **query}
    return _request(given, names)


def _request(given: dict[str, Any], names: dict[str, str]) -> RerankRequest:
    try:
        return RerankRequest(**{name: it for name, it in given.items() if it is not None})
    except ValidationError as error:
        raise named(error, names) from None


def _text(at: int, document: str | dict[str, Any], fields: Sequence[str]) -> str:
    """The text of a document that the model reads."""
    if isinstance(document, str):
        return document
    if _IMAGE in document and _TEXT not in document:
        raise wrong_field(
            f"documents.{at}.{_IMAGE}", "images are not supported: send text", NotSupported
        )
    wanted = [name for name in fields or (_TEXT,) if document.get(name) is not None]
    if not wanted:
        raise wrong_field(
            f"documents.{at}",
            f"has none of {', '.join(fields)[:200]} (rank_fields)"
            if fields
            else "has no `text`: add it, or name the fields to read in `rank_fields`",
        )
    if len(wanted) == 1:
        return str(document[wanted[0]])
    return "\n".join(f"{name}: {document[name]}" for name in wanted)


def rerank_response(
    job_id: str,
    created: int,
    model: Word,
    result: Result,
    documents: Sequence[str | dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The response to a rerank: Jina's and Cohere's fields together.

    `created` is unix seconds; `documents` are those that the results are to contain.
    """
    results: list[dict[str, Any]] = [
        {"index": each.index, "relevance_score": each.score} for each in result.ranking
    ]
    if documents is not None:
        for each in results:
            document = documents[each["index"]]
            each["document"] = {_TEXT: document} if isinstance(document, str) else document
    return {**_head(f"rerank-{job_id}", created, model), "results": results, **_spent(result)}


def score_response(job_id: str, created: int, model: str, result: Result) -> dict[str, Any]:
    """The response to a score: the scores in the order of the pairs.

    `created` is unix seconds.
    """
    in_order = sorted(result.ranking, key=lambda each: each.index)
    data = [{"index": each.index, "object": "score", "score": each.score} for each in in_order]
    return {**_head(f"score-{job_id}", created, model), "data": data, **_spent(result)}


def _head(id: str, created: int, model: str) -> dict[str, Any]:
    return {"id": id, "object": "list", "created": created, "model": model}


def _spent(result: Result) -> dict[str, Any]:
    tokens = result.usage.prompt_tokens if result.usage else None
    meta: dict[str, Any] = {"api_version": {"version": "2"}}
    if tokens is None:
        return {"usage": None, "meta": meta}
    meta["tokens"] = {"input_tokens": tokens}
    return {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}, "meta": meta}
