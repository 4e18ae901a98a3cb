"""The adapter against the real llama-server with a ranking model.

Subjects: workers/backends/openai/reranking.py.
"""

from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from support.backends import folded
from support.tiny_rank_gguf import write_rank_gguf

from contract.errors import InputTooLarge, NotSupported
from contract.rerank import RerankRequest
from fleet.real.run_llama_server import LlamaServer, running_llama_server
from workers.backends.openai.dialects import LLAMACPP
from workers.backends.openai.reranking import LlamaServer as Adapter

pytestmark = pytest.mark.real

DOCUMENTS = ("a b", "z q", "c d e f g", "a")


@pytest.fixture(scope="module")
def rank_server(
    llama_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamaServer]:
    model = write_rank_gguf(tmp_path_factory.mktemp("rank") / "tiny-ranker.gguf")
    with running_llama_server("--reranking", model=model, slots=4) as server:
        yield server


def adapter(server: LlamaServer) -> aclosing[Adapter]:
    return aclosing(Adapter("llamacpp", server.url, LLAMACPP))


def asked(**fields: Any) -> RerankRequest:
    return RerankRequest(**{"model": "m", "query": "a b", "documents": DOCUMENTS, **fields})


async def test_the_roster_hears_of_a_ranking_model_and_not_of_its_vectors(
    rank_server: LlamaServer,
) -> None:
    async with adapter(rank_server) as backend:
        (report,) = await backend.models()

    assert (report.traits, report.dimension, report.warm) == (("rerank",), None, True)
    assert {"chat", "embed"} <= set(report.lacks)


async def test_scores_are_those_of_their_documents_however_many_there_are(
    rank_server: LlamaServer,
) -> None:
    many = tuple(DOCUMENTS[at % 4] for at in range(150))
    async with adapter(rank_server) as backend:
        few = await folded(backend.rerank(asked()))
        all_of_them = await folded(backend.rerank(asked(documents=many)))
        best = await folded(backend.rerank(asked(top_n=1)))

    scores = {each.index: each.score for each in few.ranking}
    assert len(set(scores.values())) == 4
    assert best.ranking[0].index == few.ranking[0].index
    assert len(all_of_them.ranking) == 150
    assert all(
        each.score == pytest.approx(scores[each.index % 4], abs=0.05)
        for each in all_of_them.ranking
    )
    assert few.usage is not None
    assert few.usage.prompt_tokens > 12


async def test_a_document_that_is_too_long_is_told_apart(rank_server: LlamaServer) -> None:
    async with adapter(rank_server) as backend:
        with pytest.raises(InputTooLarge):
            await folded(backend.rerank(asked(documents=("a " * 3000,))))


async def test_a_server_that_chats_does_not_rerank(chat_server: LlamaServer) -> None:
    async with adapter(chat_server) as backend:
        (report,) = await backend.models()
        with pytest.raises(NotSupported):
            await folded(backend.rerank(asked()))

    assert "rerank" in report.lacks
