"""Vectors in three kinds of file that say the same, and nothing half-written is left."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from contract.embeddings import EmbedRequest, pack
from contract.errors import InvalidRequest
from contract.result import Embeddings, Result
from fleet.client.map import MapResult
from fleet.client.results import WrongCount, rows_of
from fleet.embed.spool import Bad, Block
from fleet.embed.text_files import Text
from fleet.embed.vector_file import errors_file, output

ROWS = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
ROWS[3] = np.nan
TEXTS = [Text("a"), Text("b", id="b-1"), Text("c", id=3), Text("", problem="empty"), Text("e")]
BLOCKS = [(TEXTS[:2], Block(2, ROWS[:2])), (TEXTS[2:], Block(3, ROWS[2:], [Bad(3, "no", "why")]))]
NAMES = ["o.jsonl", "o.npy", "o.parquet"]


def write(file: Path) -> None:
    with output(file, 5) as writer:
        for texts, block in BLOCKS:
            writer.write(texts, block)


def test_all_files_hold_the_same_numbers_and_know_what_is_missing(tmp_path: Path) -> None:
    for name in NAMES:
        write(tmp_path / name)

    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "o.parquet").to_pydict()
    nothing = [float("nan")] * 7
    read = [
        [line["embedding"] or nothing for line in lines],
        np.load(tmp_path / "o.npy"),
        [row or nothing for row in table["embedding"]],
    ]
    for each in read:
        assert np.array_equal(np.array(each, dtype=np.float32), ROWS, equal_nan=True)
    assert [line["index"] for line in lines] == table["index"] == [0, 1, 2, 3, 4]
    assert [line.get("id") for line in lines] == [None, "b-1", 3, None, None]
    assert table["id"] == [None, "b-1", "3", None, None]
    assert [line.get("error") for line in lines] == [None, None, None, "why", None]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_of_an_output_that_failed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"old")

    with suppress(RuntimeError), output(tmp_path / name, 5) as writer:
        writer.write(*BLOCKS[0])
        raise RuntimeError

    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"old"


def test_errors_are_told_with_their_texts_and_an_old_file_of_them_goes(tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl"
    with errors_file(file, wanted=True) as errors:
        errors.write([Text("a")], Block(1, ROWS[:1]))
        errors.write([Text("b", "B")], Block(1, ROWS[:1], [Bad(1, "refused", "no")]))
    told = json.loads(file.read_text())
    with errors_file(file, wanted=False):
        pass

    assert told == {"index": 1, "id": "B", "text": "b", "code": "refused", "message": "no"}
    assert not file.exists()


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="npy"), output(tmp_path / "o.csv", 5):
        pass


def test_without_the_library_the_error_names_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path; from fleet.embed.vector_file import check_output\n"
        f"check_output(Path({str(tmp_path / 'o.parquet')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "pip install 'llm-fleet[parquet]'" in done.stderr


def test_a_wrong_number_of_vectors_is_never_written() -> None:
    found = Embeddings(count=2, dimension=7, data=pack(ROWS[:2].tolist()))

    def answer(*texts: str) -> MapResult:
        return MapResult(0, EmbedRequest(model="m", input=texts), "j", Result(embeddings=found))

    assert np.array_equal(rows_of(answer("a", "b")), ROWS[:2])
    with pytest.raises(WrongCount):
        rows_of(answer("a", "b", "c"))
