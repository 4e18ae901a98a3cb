"""Which model files a path offers."""

from pathlib import Path

import pytest

from contract.errors import (
    ModelMissing,
)
from workers.backends.in_process.gguf_files import gguf_files, model_file, size_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    names = ("a.gguf", "deep/b.gguf", "mmproj-a.gguf", "readme.md")
    parts = ("big-00001-of-00002.gguf", "big-00002-of-00002.gguf")
    for name in (*names, *parts):
        (tmp_path / name).write_bytes(b"1234")
    return tmp_path


def test_models_are_named_as_their_files(folder: Path) -> None:
    assert list(gguf_files(folder)) == ["a", "big", "b"]


def test_a_file_is_a_model_of_its_own(folder: Path) -> None:
    assert gguf_files(folder / "a.gguf") == {"a": folder / "a.gguf"}
    assert gguf_files(folder / "readme.md") == {}


def test_all_parts_of_a_model_count(folder: Path) -> None:
    assert [size_bytes(path) for path in gguf_files(folder).values()] == [4, 8, 4]


def test_a_close_name_is_suggested(folder: Path) -> None:
    with pytest.raises(ModelMissing, match="did you mean 'big'"):
        model_file("box", gguf_files(folder), "bigg")
