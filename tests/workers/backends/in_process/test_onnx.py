"""Embeddings in process: a tiny random model, made on the spot, against numpy."""

import asyncio
import base64
import sys
import threading
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_bert import CONFIG, WORDS, numpy_bert, tiny_weights, write_tiny_bert

from contract.embeddings import EmbedRequest
from contract.errors import (
    BadEndpoint,
    InputTooLarge,
    ModelMissing,
    NotSupported,
)
from contract.events import Done, Vectors
from workers.backends.in_process.onnx import BLOCK_ROWS, LocalEmbed
from workers.backends.protocols import Backend, Embed, capabilities

WEIGHTS = tiny_weights(CONFIG)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


def serving(folder: Path, **options: Any) -> aclosing[LocalEmbed]:
    return aclosing(LocalEmbed("local", folder, **options))


async def events(backend: LocalEmbed, *texts: str, **fields: Any) -> list[Any]:
    request = EmbedRequest(model="tiny-bert", input=texts, **fields)
    return [event async for event in backend.embed(request)]


def rows(received: list[Any]) -> np.ndarray:
    blocks = [event for event in received if isinstance(event, Vectors)]
    counts = [block.count for block in blocks]
    assert [block.index for block in blocks] == [sum(counts[:at]) for at in range(len(blocks))]
    data = b"".join(base64.b64decode(block.data) for block in blocks)
    return np.frombuffer(data, "<f4").reshape(-1, blocks[0].dimension)


def expected(text: str, pooling: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What numpy makes of a text of single letters."""
    ids = [2, *(WORDS.index(letter) for letter in text.split()), 3]
    vector = pooling(numpy_bert(CONFIG, WEIGHTS, np.array(ids)))
    return vector / np.linalg.norm(vector)


def letters(count: int) -> str:
    return " ".join(WORDS[4 + at % 26] for at in range(count))


async def test_it_is_a_backend_that_can_embed_and_nothing_else(folder: Path) -> None:
    async with serving(folder) as backend:
        assert isinstance(backend, Backend)
        assert isinstance(backend, Embed)
        assert capabilities(backend) == ("embed", "list")


async def test_a_task_has_the_folders_prompt_and_vectors_may_keep_their_length(
    tmp_path: Path,
) -> None:
    prompts = {"prompts": {"query": "q q ", "document": "d "}, "default_prompt_name": "document"}
    folder = write_tiny_bert(tmp_path / "tiny-bert", config_sentence_transformers=prompts)
    async with serving(folder) as backend:
        query = rows(await events(backend, "a", task="query"))
        usual = rows(await events(backend, "a"))
        raw = rows(await events(backend, "a", normalize=False))
        assert backend.grants == {"normalize", "task"}

    mean = partial(np.mean, axis=0)
    np.testing.assert_allclose(query, [expected("q q a", mean)], atol=1e-5)
    np.testing.assert_allclose(usual, [expected("d a", mean)], atol=1e-5)
    assert np.linalg.norm(raw) > 1.1
    np.testing.assert_allclose(raw / np.linalg.norm(raw), usual, atol=1e-5)


async def test_vectors_are_what_numpy_makes_of_them(folder: Path) -> None:
    texts = ("a b c", "z", letters(20), "q w e r t y")
    async with serving(folder) as backend:
        vectors = rows(await events(backend, *texts))

    wanted = np.array([expected(text, lambda hidden: hidden.mean(0)) for text in texts])
    np.testing.assert_allclose(vectors, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True}, lambda hidden: hidden[0]),
        ({"pooling_mode": "max"}, lambda hidden: hidden.max(0)),
        ({"pooling_mode": ["lasttoken"]}, lambda hidden: hidden[-1]),
        ({"pooling_mode_mean_tokens": True}, lambda hidden: hidden.mean(0)),
    ],
)
async def test_pooling_follows_the_configuration_of_the_folder(
    tmp_path: Path, config: dict[str, Any], pooling: Callable[[np.ndarray], np.ndarray]
) -> None:
    folder = write_tiny_bert(tmp_path / "tiny-bert", **{"1_Pooling__config": config})
    async with serving(folder) as backend:
        vectors = rows(await events(backend, "a b", letters(12)))

    wanted = np.array([expected(text, pooling) for text in ("a b", letters(12))])
    np.testing.assert_allclose(vectors, wanted, atol=1e-5)


async def test_a_batch_changes_no_vector(folder: Path) -> None:
    texts = [letters(1 + at % 28) for at in range(100)]
    async with serving(folder, max_batch_tokens=1) as alone, serving(folder) as together:
        np.testing.assert_allclose(
            rows(await events(alone, *texts)), rows(await events(together, *texts)), atol=1e-6
        )


async def test_rows_are_in_order_and_blocks_are_bounded(folder: Path) -> None:
    texts = [letters(1 + at * 7 % 26) for at in range(1100)]
    async with serving(folder) as backend:
        received = await events(backend, *texts)

    vectors = rows(received)
    assert len(vectors) == 1100
    assert max(event.count for event in received[:-1]) <= BLOCK_ROWS
    np.testing.assert_allclose(
        vectors[1099], expected(texts[1099], lambda hidden: hidden.mean(0)), atol=1e-5
    )


async def test_the_terminal_event_counts_the_tokens(folder: Path) -> None:
    async with serving(folder) as backend:
        last = (await events(backend, "a b c", "", keep_alive_s=5))[-1]

    assert isinstance(last, Done)
    assert last.usage.prompt_tokens == 5 + 2
    assert last.ignored == ("keep_alive_s",)


async def test_an_empty_text_has_a_vector(folder: Path) -> None:
    async with serving(folder) as backend:
        vectors = rows(await events(backend, "", "a"))

    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1])


async def test_a_text_that_is_too_long_is_cut_and_keeps_its_last_token(folder: Path) -> None:
    async with serving(folder) as backend:
        received = await events(backend, letters(500))

    np.testing.assert_allclose(
        rows(received)[0], expected(letters(30), lambda hidden: hidden.mean(0)), atol=1e-5
    )
    assert received[-1].usage.prompt_tokens == 32


async def test_or_refused_before_any_row_with_its_place_and_length(folder: Path) -> None:
    async with serving(folder) as backend:
        with pytest.raises(InputTooLarge, match=r"input\[1\] has 502 tokens.* takes 32"):
            await events(backend, "a", letters(500), truncate=False)


async def test_fewer_dimensions_are_the_front_of_the_vector_at_length_one(folder: Path) -> None:
    async with serving(folder) as backend:
        whole, front = [rows(await events(backend, "a b", dimensions=wish)) for wish in (None, 8)]

    np.testing.assert_allclose(front, whole[:, :8] / np.linalg.norm(whole[:, :8]), atol=1e-6)


async def test_more_dimensions_than_there_are_cannot_be_had(folder: Path) -> None:
    async with serving(folder) as backend:
        with pytest.raises(NotSupported, match="16 numbers, not 17"):
            await events(backend, "a", dimensions=17)


async def test_another_model_is_missing_and_a_close_name_is_hinted_at(folder: Path) -> None:
    async with serving(folder) as backend:
        for name in ("tiny-bret", "Tiny-BERT"):
            with pytest.raises(ModelMissing, match="did you mean 'tiny-bert'"):
                await anext(backend.embed(EmbedRequest(model=name, input=("a",))))


async def test_the_report_has_the_facts_of_the_folder(tmp_path: Path) -> None:
    folder = write_tiny_bert(tmp_path / "tiny-bert", sentence_bert_config={"max_seq_length": 24})
    async with serving(folder) as backend:
        (report,) = await backend.models()
        assert (await backend.check() or "").startswith("onnxruntime ")

    assert report.model_dump(exclude={"size_bytes"}, exclude_defaults=True) == {
        "name": "tiny-bert", "traits": ("embed",), "warm": True,
        "context_length": 24, "dimension": 16,
    }  # fmt: skip
    assert report.size_bytes == (folder / "model.onnx").stat().st_size


async def test_without_a_module_that_normalises_vectors_keep_their_length(tmp_path: Path) -> None:
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""},
               {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]  # fmt: skip
    folder = write_tiny_bert(tmp_path / "tiny-bert", modules=modules)
    async with serving(folder) as backend:
        (vector,) = rows(await events(backend, "a b"))

    hidden = numpy_bert(CONFIG, WEIGHTS, np.array([2, 4, 5, 3]))
    np.testing.assert_allclose(vector, hidden.mean(0), atol=1e-5)


def test_a_module_that_the_graph_does_not_contain_is_refused(tmp_path: Path) -> None:
    modules = [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]
    folder = write_tiny_bert(tmp_path / "tiny-bert", modules=modules)
    with pytest.raises(NotSupported, match="modules Dense"):
        LocalEmbed("local", folder)


def test_an_unknown_pooling_is_refused(tmp_path: Path) -> None:
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}
    folder = write_tiny_bert(tmp_path / "tiny-bert", **{"1_Pooling__config": pooling})
    with pytest.raises(NotSupported, match=r"cls \+ max"):
        LocalEmbed("local", folder)


def test_the_error_for_a_folder_without_a_model_names_the_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"model\.onnx nor onnx/model\.onnx"):
        LocalEmbed("local", tmp_path)


def test_a_broken_model_is_no_model(tmp_path: Path) -> None:
    folder = write_tiny_bert(tmp_path / "tiny-bert")
    (folder / "model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(BadEndpoint, match="cannot load"):
        LocalEmbed("local", folder)


def test_without_its_extra_it_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NotSupported, match=r"pip install 'llm-fleet\[local-embed\]'"):
        LocalEmbed("local", folder)


class Held:
    """Notes the batches that run, each of which waits for a permit."""

    def __init__(self, permits: int) -> None:
        self.ran: list[int] = []
        self.permits = threading.Semaphore(permits)
        self.loop = asyncio.get_running_loop()
        self.waiting = asyncio.Event()

    def run(self, backend: LocalEmbed, monkeypatch: pytest.MonkeyPatch) -> None:
        encode = backend._encoded

        def wait(ids: Any, dimension: int, *, raw: bool) -> Any:
            self.loop.call_soon_threadsafe(self.waiting.set)
            self.permits.acquire(timeout=10)
            self.ran.append(len(ids))
            return encode(ids, dimension, raw=raw)

        monkeypatch.setattr(backend, "_encoded", wait)


async def test_a_cancelled_job_stops_after_the_batch_that_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(folder, max_batch_tokens=1) as backend, asyncio.TaskGroup() as group:
        held = Held(permits=0)
        held.run(backend, monkeypatch)
        job = group.create_task(events(backend, *("a" for _ in range(50))))
        await held.waiting.wait()  # the loop runs while the model is busy
        job.cancel()
        held.permits.release(50)

    assert held.ran == [1]


async def test_closing_the_stream_runs_no_further_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = EmbedRequest(model="tiny-bert", input=tuple("a" for _ in range(1024)))
    async with serving(folder, max_batch_tokens=1) as backend:
        held = Held(permits=1024)
        held.run(backend, monkeypatch)
        async with aclosing(backend.embed(request)) as stream:
            await anext(stream)

    assert len(held.ran) == BLOCK_ROWS


async def test_two_jobs_take_turns(folder: Path) -> None:
    ended: list[str] = []

    async def embed(backend: LocalEmbed, name: str, count: int) -> None:
        await events(backend, *("a" for _ in range(count)))
        ended.append(name)

    async with serving(folder, max_batch_tokens=1) as backend, asyncio.TaskGroup() as group:
        group.create_task(embed(backend, "long", 400))
        group.create_task(embed(backend, "short", 4))

    assert ended == ["short", "long"]
