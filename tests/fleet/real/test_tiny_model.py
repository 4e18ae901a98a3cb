"""The tiny model: the same bytes each time, and a vocabulary that llama.cpp takes."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from fleet.real import tiny_model as tiny

SMALL = tiny.TinyShape(width=16, layers=1, inner=16, words=40)


def test_the_same_shape_is_the_same_file_and_another_seed_another(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        shape = tiny.TinyShape(width=16, layers=1, inner=16, words=40, seed=seed)
        tiny.write_model(tmp_path / name, shape)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")

    assert a == b
    assert a != c
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_every_token_is_there_once_and_carries_the_constant(tmp_path: Path) -> None:
    tiny.write_model(tmp_path / "tiny.gguf", SMALL)
    reader = gguf.GGUFReader(tmp_path / "tiny.gguf")
    tokens = reader.get_field("tokenizer.ggml.tokens").contents()
    (embedding,) = [t.data for t in reader.tensors if t.name == "token_embd.weight"]

    assert len(set(tokens)) == len(tokens) == len(embedding)
    assert tokens[tiny.TOOL_CALL_ID] == "<tool_call>"
    assert tokens[tiny.END_ID] == "<|im_end|>"
    assert np.all(embedding[:, 0] == tiny.CONSTANT)


def test_it_is_made_once_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_FLEET_CACHE", str(tmp_path / "new"))
    path = tiny.tiny_model()
    written_at = path.stat().st_mtime_ns

    assert path == tiny.tiny_model()
    assert path.parent == tmp_path / "new"
    assert path.stat().st_mtime_ns == written_at
    assert tiny.tiny_model(calls_tools=True) != path
