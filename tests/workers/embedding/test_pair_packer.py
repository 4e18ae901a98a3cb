"""Pairs of many rerank jobs share requests where the backend takes them, and each job has its own.

Subjects: workers/embedding/pair_packer.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.backends import against_server, folded
from support.tiny_ranker import write_tiny_ranker

from contract.errors import ContextExceeded, InputTooLarge
from contract.rerank import RerankRequest
from contract.result import Result
from workers.backends.in_process.onnx_ranker import LocalRerank
from workers.embedding.packer import PackingRules
from workers.embedding.pair_packer import PairPacker
from workers.embedding.request_sender import Budget

MODEL = "scripted-rerank:first=0.05"
RULES = PackingRules(budget=Budget(texts=64, tokens=100_000), max_requests=1)


def asked(query: str, *documents: str, model: str = MODEL, **fields: Any) -> RerankRequest:
    return RerankRequest(model=model, query=query, documents=documents, **fields)


async def job(packer: PairPacker, request: RerankRequest) -> Result:
    return await folded(packer.expect_job().rerank(request))


@asynccontextmanager
async def packed(backend: Any, model: str) -> AsyncIterator[PairPacker]:
    """A packer whose check is done."""
    packer = PairPacker(backend, RULES)
    try:
        async with asyncio.timeout(20):
            while packer.packs(model) is None:
                probes = (job(packer, asked(f"q{n}", "a b", model=model)) for n in range(3))
                await asyncio.gather(*probes)
                await asyncio.sleep(0.01)
        yield packer
    finally:
        await packer.aclose()


async def test_jobs_with_different_queries_share_a_request_of_vllm() -> None:
    async with against_server("vllm") as (backend, server), packed(backend, MODEL) as packer:
        server.seen.texts.clear()
        requests = [asked(f"w{n}", f"w{n}", "x", f"w{n} y", top_n=2) for n in range(10)]
        results = await asyncio.gather(*(job(packer, request) for request in requests))

    assert packer.packs(MODEL) is True
    assert sum(server.seen.texts) == 30
    assert len(server.seen.texts) <= 4
    for result in results:
        assert [(each.index, each.score) for each in result.ranking] == [(0, 1.0), (2, 0.5)]
        assert result.usage is not None


async def test_a_server_whose_scores_depend_on_company_gets_jobs_one_by_one() -> None:
    model = "scripted-rerank:wire=company"
    async with against_server("vllm") as (backend, server), packed(backend, model) as packer:
        server.seen.texts.clear()
        requests = [asked(f"w{n}", f"w{n}", model=model) for n in range(5)]
        results = await asyncio.gather(*(job(packer, request) for request in requests))

    assert packer.packs(model) is False
    assert list(server.seen.texts) == [1] * 5
    assert all(result.ranking[0].score == 1.0 for result in results)


async def test_a_document_that_fails_fails_its_own_job_by_its_number() -> None:
    model = "scripted-rerank:first=0.05,fail=context,poison=bad"
    async with against_server("vllm") as (backend, _), packed(backend, model) as packer:
        good = (job(packer, asked(f"w{n}", f"w{n}", "x", model=model)) for n in range(4))
        bad = job(packer, asked("q", "a", "b", "bad", model=model))
        *fine, failed = await asyncio.gather(*good, bad, return_exceptions=True)

    assert all(isinstance(each, Result) and each.ranking[0].score == 1.0 for each in fine)
    assert isinstance(failed, ContextExceeded)
    assert failed.message.startswith("documents[2]")


async def test_the_process_own_cross_encoder_scores_pairs_of_several_jobs_alike(
    tmp_path: Path,
) -> None:
    folder = write_tiny_ranker(tmp_path / "tiny")
    async with (
        aclosing(LocalRerank("local", folder)) as backend,
        packed(backend, "tiny") as packer,
    ):
        requests = [asked(f"a {c}", "b", c, "d e f g", model="tiny") for c in "abcdefgh"]
        alone = [await folded(backend.rerank(request)) for request in requests]
        together = await asyncio.gather(*(job(packer, request) for request in requests))
        long = asked("a", "b", "a " * 90, model="tiny", truncate=False)
        with pytest.raises(InputTooLarge, match=r"^documents\[1\] has 9"):
            await job(packer, long)

    assert packer.packs("tiny") is True
    for one, other in zip(alone, together, strict=True):
        assert [each.index for each in other.ranking] == [each.index for each in one.ranking]
        assert [each.score for each in other.ranking] == pytest.approx(
            [each.score for each in one.ranking], rel=1e-5
        )
