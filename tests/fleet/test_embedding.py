"""Texts in, vectors out: both formats say the same, and nothing half-written is left."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from contract.embeddings import pack
from contract.errors import InvalidRequest
from contract.result import Embeddings
from fleet.embedding import Text, WrongCount, array_of, output, texts

ROWS = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
TEXTS = [Text("a"), Text("b", id="b-1"), Text("c"), Text("d"), Text("e")]


def test_lines_of_text_and_of_json_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one\ntwö\n", encoding="utf-8")
    (tmp_path / "t.jsonl").write_text(
        '{"text": "one"}\n{"input": "tw\\u00f6", "id": 7, "more": 1}\n', encoding="utf-8"
    )

    assert list(texts(tmp_path / "t.txt")) == [Text("one"), Text("twö")]
    assert list(texts(tmp_path / "t.jsonl")) == [Text("one"), Text("twö", 7)]


@pytest.mark.parametrize("line", ["", "{", '{"words": 1}', '{"text": ""}', "7"])
def test_a_line_that_is_no_text_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(f'"fine"\n{line}\n', encoding="utf-8")

    with pytest.raises(InvalidRequest, match="line 2"):
        list(texts(file))


def test_json_lines_and_npy_hold_the_same_numbers(tmp_path: Path) -> None:
    for name in ("o.jsonl", "o.npy"):
        with output(tmp_path / name, 5) as writer:
            writer.write(TEXTS[:2], ROWS[:2])
            writer.write(TEXTS[2:], ROWS[2:])

    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    read = np.array([line["embedding"] for line in lines], dtype=np.float32)
    assert np.array_equal(read, ROWS)
    assert np.array_equal(np.load(tmp_path / "o.npy"), ROWS)
    assert [line["index"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[1]["id"] == "b-1"


def test_nothing_is_left_of_an_output_that_failed(tmp_path: Path) -> None:
    (tmp_path / "o.npy").write_bytes(b"old")

    with suppress(RuntimeError), output(tmp_path / "o.npy", 5) as writer:
        writer.write(TEXTS[:2], ROWS[:2])
        raise RuntimeError

    assert [each.name for each in tmp_path.iterdir()] == ["o.npy"]
    assert (tmp_path / "o.npy").read_bytes() == b"old"


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="npy"), output(tmp_path / "o.csv", 5):
        pass


def test_a_wrong_number_of_vectors_is_never_written() -> None:
    found = Embeddings(count=2, dimension=7, data=pack(ROWS[:2].tolist()))

    assert np.array_equal(array_of(found, 2), ROWS[:2])
    with pytest.raises(WrongCount):
        array_of(found, 3)
