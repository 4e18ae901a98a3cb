"""Reranking in process: a tiny random cross-encoder, made on the spot, against numpy."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import folded
from support.tiny_bert import CONFIG, write_tiny_bert
from support.tiny_ranker import numpy_logit, write_tiny_ranker

from contract.errors import InputTooLarge, ModelMissing, NotSupported
from contract.events import Scores
from contract.rerank import RerankRequest
from workers.backend_registry import build
from workers.backends.dsn import parse
from workers.backends.in_process.onnx_ranker import BLOCK, LocalRerank, is_ranker
from workers.backends.protocols import Backend, Rerank, capabilities

DOCUMENTS = ("d e f", "z", "", "a b c", "q w e r t y u i o p")
IDENTITY = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_ranker(tmp_path_factory.mktemp("models") / "tiny-ranker")


def asked(**fields: Any) -> RerankRequest:
    given = {"model": "tiny-ranker", "query": "a b c", "documents": DOCUMENTS, **fields}
    return RerankRequest(**given)


async def scores(backend: LocalRerank, **fields: Any) -> list[float]:
    result = await folded(backend.rerank(asked(**fields)))
    return [each.score for each in sorted(result.ranking, key=lambda each: each.index)]


async def test_it_is_a_backend_that_can_rerank_and_nothing_else(folder: Path) -> None:
    async with aclosing(LocalRerank("local", folder)) as backend:
        assert isinstance(backend, Backend)
        assert isinstance(backend, Rerank)
        assert capabilities(backend) == ("list", "rerank")
        (report,) = await backend.models()

    assert (report.name, report.traits, report.context_length) == ("tiny-ranker", ("rerank",), 32)


async def test_scores_are_what_numpy_makes_of_the_pairs(folder: Path, tmp_path: Path) -> None:
    async with aclosing(LocalRerank("local", folder)) as backend:
        found = await scores(backend)
    raw = write_tiny_ranker(tmp_path / "tiny-ranker", **IDENTITY)
    async with aclosing(LocalRerank("local", raw)) as backend:
        logits = await scores(backend)

    wanted = [numpy_logit("a b c", document) for document in DOCUMENTS]
    np.testing.assert_allclose(logits, wanted, atol=1e-4)
    np.testing.assert_allclose(found, [1 / (1 + np.exp(-each)) for each in wanted], atol=1e-5)


async def test_a_pair_has_the_same_score_alone_and_among_others(folder: Path) -> None:
    async with aclosing(LocalRerank("local", folder)) as backend:
        together = await scores(backend)
        alone = [await scores(backend, documents=(document,)) for document in DOCUMENTS]
        pairs = await scores(backend, query=None, queries=("a b c",) * 5)

    np.testing.assert_allclose(together, [each for (each,) in alone], atol=1e-6)
    assert pairs == together


async def test_many_scores_come_in_blocks_in_order(folder: Path) -> None:
    documents = tuple("a b c d e"[: 1 + at % 9] for at in range(BLOCK * 2 + 5))
    async with aclosing(LocalRerank("local", folder)) as backend:
        events = [event async for event in backend.rerank(asked(documents=documents))]

    blocks = [event for event in events if isinstance(event, Scores)]
    assert [(block.index, len(block.scores)) for block in blocks] == [
        (0, BLOCK), (BLOCK, BLOCK), (2 * BLOCK, 5),
    ]  # fmt: skip


async def test_a_document_that_is_too_long_is_cut_or_refused(folder: Path) -> None:
    long = "a " * 100
    async with aclosing(LocalRerank("local", folder)) as backend:
        (cut,) = await scores(backend, documents=(long,))
        with pytest.raises(InputTooLarge, match=r"documents\[1\] has 106 tokens .* takes 32"):
            await scores(backend, documents=("a", long), truncate=False)
        (fits,) = await scores(backend, documents=("a",), truncate=False)

    assert 0 < cut < 1
    assert fits == pytest.approx(1 / (1 + np.exp(-numpy_logit("a b c", "a"))), abs=1e-5)


async def test_a_job_that_is_cancelled_lets_the_next_one_run(folder: Path) -> None:
    async with aclosing(LocalRerank("local", folder)) as backend:
        many = asyncio.create_task(scores(backend, documents=("a b c",) * 8000))
        await asyncio.sleep(0.02)
        many.cancel()
        async with asyncio.timeout(5):
            (found,) = await scores(backend, documents=("z",))

    assert 0 <= found <= 1


async def test_another_model_is_missing(folder: Path) -> None:
    async with aclosing(LocalRerank("local", folder)) as backend:
        with pytest.raises(ModelMissing, match="tiny-ranker"):
            await scores(backend, model="tiny-rankers")


async def test_the_type_local_serves_either_model_by_its_folder(
    folder: Path, tmp_path: Path
) -> None:
    embeds = write_tiny_bert(tmp_path / "tiny-bert")
    made = [build(parse("LLM_X", f"local://{each}")) for each in (folder, embeds)]
    for backend in made:
        await backend.aclose()

    assert [capabilities(each) for each in made] == [("list", "rerank"), ("embed", "list")]
    assert (is_ranker(folder), is_ranker(embeds), CONFIG.get("architectures")) == (
        True, False, None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "changes", "words"),
    [
        (3, {}, "gives 3 numbers a pair"),
        (1, {"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}}, "Tanh"),
    ],
)
def test_a_model_that_is_no_reranker_is_refused_at_start(
    tmp_path: Path, labels: int, changes: dict[str, Any], words: str
) -> None:
    odd = write_tiny_ranker(tmp_path / "odd", labels, **changes)
    with pytest.raises(NotSupported, match=words):
        LocalRerank("local", odd)
