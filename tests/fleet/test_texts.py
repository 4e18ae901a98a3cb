"""Texts are found in every kind of file, and a row that is none stands in its place."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import InvalidRequest
from fleet.texts import Source, Text


def written(file: Path, content: str | bytes) -> Path:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def read(file: Path, column: str | None = None) -> list[Text]:
    return list(Source(file, column).rows())


def test_lines_of_text_and_of_json_are_read_alike(tmp_path: Path) -> None:
    plain = written(tmp_path / "t.txt", "\ufeffone\r\ntwö\n")
    lines = '{"text": "one"}\n{"input": "tw\\u00f6", "id": 7, "more": 1}\n"three"'

    assert read(plain) == [Text("one"), Text("twö")]
    assert read(written(tmp_path / "t.jsonl", lines)) == [
        Text("one"), Text("twö", 7), Text("three"),
    ]  # fmt: skip


def test_cells_may_hold_lines_quotes_and_megabytes(tmp_path: Path) -> None:
    texts = ['a "quoted"\nline, and more', "x" * 200_000]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["id", "body"], *enumerate(texts)])

    assert read(tmp_path / "t.csv", "body") == [Text(texts[0], "0"), Text(texts[1], "1")]
    assert read(written(tmp_path / "t.tsv", "text\tn\na, b\t1\n\nc\t2\n")) == [
        Text("a, b"), Text("c"),
    ]  # fmt: skip


def test_a_column_of_parquet_is_read_in_pieces(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(3000)]
    table = pa.table({"id": list(range(3000)), "n": [0.5] * 3000, "body": texts})
    pq.write_table(table, tmp_path / "t.parquet")

    found = read(tmp_path / "t.parquet", "body")

    assert found == [Text(text, number) for number, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"words": "x"}', '"text" or "input"'),
        (b'{"text": " "}', "empty"),
        (b'{"text": null}', "None"),
        (b"7", "object"),
        (b'{"text": "\xff"}', "UTF-8"),
        (b'{"text": "\\ud800"}', "not JSON"),
    ],
)
def test_a_row_that_is_no_text_says_why_and_costs_no_other(
    tmp_path: Path, line: bytes, why: str
) -> None:
    file = written(tmp_path / "t.jsonl", b'"fine"\n' + line + b'\n"fine, too"\n')
    first, bad, last = read(file)

    assert (first, last) == (Text("fine"), Text("fine, too"))
    assert why in (bad.problem or "")


def test_a_short_row_of_a_table_and_one_in_another_encoding_say_so(tmp_path: Path) -> None:
    file = written(tmp_path / "t.csv", b"id,text\n1\n2,caf\xe9\n3,fine\n")

    assert [bool(text.problem) for text in read(file)] == [True, True, False]


@pytest.mark.parametrize(
    ("name", "content", "column", "why"),
    [
        ("t.csv", "a,b\n1,2\n", None, "one of: a, b"),
        ("t.csv", "a,b\n1,2\n", "c", "no column 'c'"),
        ("t.txt", "one\n", "c", "no columns"),
        ("t.json", "[]", None, "read from .txt"),
        ("t.parquet", "no parquet", None, "cannot be read"),
    ],
)
def test_a_file_or_column_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: str, column: str | None, why: str
) -> None:
    file = written(tmp_path / name, content)

    with pytest.raises(InvalidRequest, match=why):
        read(file, column)


def test_a_file_without_a_single_text_is_refused_before_anything_runs(tmp_path: Path) -> None:
    file = written(tmp_path / "t.jsonl", json.dumps({"body": "x"}) + "\n")

    with pytest.raises(InvalidRequest, match=r"no row .* --field"):
        Source(file).survey()
    assert Source(file, "body").survey()[:2] == (1, 1)
