"""Every server that reranks gives one score a document, in the order of the request.

Subjects: workers/backends/openai/pooling_servers.py, workers/backends/score_rows.py,
workers/scripted/relevance.py.
"""

import json
from typing import Any

import httpx
import pytest
from support.backends import RERANKERS, against_bytes, against_server, folded

from contract.errors import BadAnswer, InputTooLarge, ModelMissing, NotFinite, NotSupported
from contract.events import Scores
from contract.rerank import Ranked, RerankRequest
from workers.backends.protocols import Chat, Rerank, capabilities

QUERY = "when does the office open"
DOCUMENTS = ("the river is wide", "the office is open", "", "when does the office open")
rerankers = pytest.mark.parametrize("type", [*RERANKERS, "scripted"])


def asked(**fields: Any) -> RerankRequest:
    given = {"model": "scripted-rerank", "query": QUERY, "documents": DOCUMENTS, **fields}
    return RerankRequest(**given)


@rerankers
async def test_the_best_document_is_first_and_keeps_its_number(type: str) -> None:
    async with against_server(type) as (backend, _):
        assert isinstance(backend, Rerank)
        result = await folded(backend.rerank(asked()))
        best = await folded(backend.rerank(asked(top_n=1)))

    assert [each.index for each in result.ranking] == [3, 1, 0, 2]
    assert best.ranking == (Ranked(index=3, score=1.0),)


@rerankers
async def test_scores_come_in_the_order_of_the_request_batch_by_batch(type: str) -> None:
    documents = tuple(f"{'office ' * (at % 2)}{at}" for at in range(300))
    async with against_server(type) as (backend, _):
        await backend.check()
        events = [event async for event in backend.rerank(asked(documents=documents))]

    blocks = [event for event in events if isinstance(event, Scores)]
    scores = [score for block in blocks for score in block.scores]
    assert [block.index for block in blocks] == [
        sum(len(it.scores) for it in blocks[:at]) for at in range(len(blocks))
    ]
    assert len(blocks) > 1
    assert [score > 0 for score in scores] == [at % 2 == 1 for at in range(300)]


@rerankers
async def test_pairs_are_scored_each_with_its_own_query(type: str) -> None:
    queries = ("a b", "a b", "c d", "c")
    request = asked(query=None, queries=queries, documents=("a b", "x", "c d", "c"))
    async with against_server(type) as (backend, _):
        result = await folded(backend.rerank(request))

    scores = {each.index: each.score for each in result.ranking}
    assert scores == {0: 1.0, 1: 0.0, 2: 1.0, 3: 1.0}


async def test_vllm_gets_pairs_with_different_queries_in_one_request() -> None:
    request = asked(query=None, queries=("a", "b", "c"), documents=("a", "x", "c"))
    async with against_server("vllm") as (backend, server):
        await folded(backend.rerank(request))

    assert server.seen.requests == {"/v1/score": 1}


@pytest.mark.parametrize("type", ["tei", "infinity"])
async def test_a_server_of_encoders_has_no_chats(type: str) -> None:
    async with against_server(type) as (backend, _):
        assert not isinstance(backend, Chat)
        assert capabilities(backend) == ("embed", "list", "rerank")
        await backend.check()
        reports = {report.name: report for report in await backend.models()}

    assert reports["scripted-rerank"].traits == ("rerank",)
    assert reports["scripted-rerank"].lacks == ("chat", "embed")


async def test_a_llama_server_of_a_ranking_model_is_recognised_and_one_of_a_chat_is_not() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/v1/models":
                return httpx.Response(200, json={"data": [{"id": "bge", "owned_by": "llamacpp"}]})
            case "/v1/embeddings":
                return httpx.Response(200, json={"data": [{"index": 0, "embedding": [0.5]}]})
            case "/v1/rerank":
                scored = {"results": [{"index": 0, "relevance_score": 1.5}]}
                return httpx.Response(200, json=scored)
            case _:
                return httpx.Response(404, json={"error": {"message": "none"}})

    async with against_bytes("llamacpp", handler=answer) as ranks, against_server("llamacpp") as (
        chats, _,
    ):  # fmt: skip
        (report,) = await ranks.models()
        others = await chats.models()

    assert (report.traits, report.dimension) == (("rerank",), None)
    assert "rerank" in others[0].lacks


async def test_a_vllm_of_a_cross_encoder_is_recognised_by_its_paths() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        paths = {"/score": {}, "/rerank": {}}
        listed = {"data": [{"id": "bge", "max_model_len": 512}]}
        is_schema = request.url.path == "/openapi.json"
        return httpx.Response(200, json={"paths": paths} if is_schema else listed)

    async with against_bytes("vllm", handler=answer) as backend:
        (report,) = await backend.models()

    assert (report.traits, report.lacks) == (("rerank",), ("chat", "embed"))


@pytest.mark.parametrize(
    ("results", "error"),
    [
        ([{"index": 0, "relevance_score": 1}], BadAnswer),
        ([{"index": 0, "relevance_score": 1}, {"index": 0, "relevance_score": 1}], BadAnswer),
        ([{"index": 0, "relevance_score": 1}, {"index": 2, "relevance_score": 1}], BadAnswer),
        ([{"index": 0, "relevance_score": 1}, {"index": 1}], BadAnswer),
        ([{"index": 0, "relevance_score": "1"}, {"index": 1, "relevance_score": 1}], BadAnswer),
        ([{"index": 0, "relevance_score": True}, {"index": 1, "relevance_score": 1}], BadAnswer),
        ([{"index": [0], "relevance_score": 1}, {"index": 1, "relevance_score": 1}], BadAnswer),
        ([{"index": 0, "relevance_score": None}, {"index": 1, "relevance_score": 1}], NotFinite),
        ([None, 7], BadAnswer),
        ("none", BadAnswer),
    ],
)
async def test_scores_that_do_not_fit_the_documents_are_an_error(
    results: Any, error: type[Exception]
) -> None:
    body = json.dumps({"results": results}).encode()
    async with against_bytes("llamacpp", body, content_type="application/json") as backend:
        with pytest.raises(error):
            await folded(backend.rerank(asked(documents=("a", "b"))))


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (501, "This server does not support reranking. Start it with `--reranking`", NotSupported),
        (404, "File Not Found", NotSupported),
        (404, "model 'x' not found", ModelMissing),
        (500, "input (700 tokens) is too large to process. increase the physical batch size",
         InputTooLarge),
    ],
)  # fmt: skip
async def test_a_servers_refusal_is_told_apart(
    status: int, message: str, error: type[Exception]
) -> None:
    body = json.dumps({"error": {"code": status, "message": message, "type": "x"}}).encode()
    sent = against_bytes("llamacpp", body, status=status, content_type="application/json")
    async with sent as backend:
        with pytest.raises(error):
            await folded(backend.rerank(asked()))
