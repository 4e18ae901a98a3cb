"""Routes of rerank, score and Cohere's embeddings: translate, submit, respond."""

import asyncio
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Response

from api_shim.cohere import schemas
from api_shim.cohere.embeds import CohereEmbedBody, embed_pieces, to_embed
from api_shim.cohere.reranks import (
    RerankBody,
    ScoreBody,
    rerank_response,
    score_response,
    to_rerank,
    to_score,
)
from api_shim.cohere.schemas import cohere_answers
from api_shim.dependencies import DropIn
from api_shim.following.drop_in import DropInCall
from api_shim.following.piecewise import in_pieces
from api_shim.http.json_body import JsonRoute
from contract.json_lines import one_line
from contract.wire import json_pieces

router = APIRouter(tags=["rerank"], route_class=JsonRoute)


def _example(**value: Any) -> Any:
    return Body(openapi_examples={"example": {"summary": "A request", "value": value}})


_RERANK: Final[dict[str, Any]] = {
    "response_class": Response,
    "responses": cohere_answers(schemas.RerankList),
}
_SCORE: Final[dict[str, Any]] = {
    "response_class": Response,
    "responses": cohere_answers(schemas.ScoreList),
}
_Reranked = Annotated[
    RerankBody,
    _example(
        model="bge-reranker-v2-m3",
        query="When does the office open?",
        documents=["The office opens at nine.", "The river is wide."],
        top_n=1,
    ),
]
_Scored = Annotated[
    ScoreBody,
    _example(model="bge-reranker-v2-m3", text_1="When?", text_2=["At nine.", "A river."]),
]


@router.post("/v2/rerank", operation_id="cohere_rerank", **_RERANK)
async def rerank(body: _Reranked, call: DropIn) -> Response:
    """Order documents by their relevance to a query."""
    return await _reranked(body, call)


@router.post("/v1/rerank", operation_id="jina_rerank", **_RERANK)
async def rerank_by_older_path(body: _Reranked, call: DropIn) -> Response:
    """Order documents for clients of Jina and for older ones of Cohere."""
    return await _reranked(body, call)


@router.post("/rerank", operation_id="rerank", **_RERANK)
async def rerank_by_short_path(body: _Reranked, call: DropIn) -> Response:
    """Order documents by the short path of vLLM and llama-server."""
    return await _reranked(body, call)


@router.post("/v1/score", operation_id="vllm_score", **_SCORE)
async def score(body: _Scored, call: DropIn) -> Response:
    """Score pairs of texts, in their order."""
    return await _scored(body, call)


@router.post("/score", operation_id="score", **_SCORE)
async def score_by_short_path(body: _Scored, call: DropIn) -> Response:
    """Score pairs of texts by the short path of vLLM."""
    return await _scored(body, call)


@router.post(
    "/v2/embed",
    operation_id="cohere_embed",
    response_class=Response,
    responses=cohere_answers(schemas.EmbeddingsByType),
)
async def embed(
    body: Annotated[
        CohereEmbedBody,
        _example(
            model="nomic-embed-text",
            input_type="search_document",
            texts=["one", "two"],
            embedding_types=["float", "int8"],
        ),
    ],
    call: DropIn,
) -> Response:
    """Turn texts into vectors of one or more types."""
    request = await call.request_of(to_embed, body)
    record = await call.submit(request)
    result = await call.result(record)
    pieces = embed_pieces(record.id, request, body.embedding_types, result)
    headers = {"Cache-Control": "no-store", **call.headers}
    return in_pieces(pieces, headers)


async def _reranked(body: RerankBody, call: DropInCall) -> Response:
    documents = body.documents if body.return_documents else None
    request = await call.translated(to_rerank, body)
    record = await call.submit(request, body, spent=("documents",))
    del request
    result = await call.result(record)
    created, model = int(record.created_at), record.model or ""
    pieces = _pieces(rerank_response(record.id, created, model, result, documents))
    if documents is not None:  # before the first piece, each text of the response is looked at
        pieces = chain([await asyncio.to_thread(next, pieces)], pieces)
    return _json(pieces, call)


async def _scored(body: ScoreBody, call: DropInCall) -> Response:
    request = await call.translated(to_score, body)
    record = await call.submit(request, body, spent=("text_1", "text_2"))
    del request
    result = await call.result(record)
    created, model = int(record.created_at), record.model or ""
    return _json(_pieces(score_response(record.id, created, model, result)), call)


def _pieces(value: Any) -> Iterator[bytes]:
    return map(one_line, json_pieces(value))


def _json(pieces: Iterator[bytes], call: DropInCall) -> Response:
    return in_pieces(pieces, {"Cache-Control": "no-store", **call.headers})
