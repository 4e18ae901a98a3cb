"""Texts are found in every kind of file, and a row that is none stands in its place."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import InvalidRequest
from fleet.embed.text_files import Text, TextSource


def written(file: Path, content: str | bytes) -> Path:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def read(file: Path, column: str | None = None) -> list[Text]:
    return list(TextSource(file, column).rows())


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
        ("t.csv", "a,b\n1,2\n", None, "can be: a, b"),
        ("t.csv", "a,b\n1,2\n", "c", "no column 'c'"),
        ("t.txt", "one\n", "c", "no columns"),
        ("t.json", "[]", None, "must be one of .txt"),
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
        TextSource(file).survey()
    assert TextSource(file, "body").survey()[:2] == (1, 1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", 'id;text\n41;"apple, pear"\n42;cherry\n'),
        ("t.csv", 'id\ttext\n41\t"apple, pear"\n42\tcherry\n'),
        ("t.csv", 'id|text\n41|"apple, pear"\n42|cherry\n'),
        ("t.csv", 'id,text\n41,"apple, pear"\n42,cherry\n'),
        ("t.tsv", "id\ttext\n41\tapple, pear\n42\tcherry\n"),
        ("t.tsv", 'id,text\n41,"apple, pear"\n42,cherry\n'),
    ],
)
def test_what_separates_the_cells_is_found_out(tmp_path: Path, name: str, content: str) -> None:
    assert read(written(tmp_path / name, content)) == [
        Text("apple, pear", "41"),
        Text("cherry", "42"),
    ]


def test_a_delimiter_in_a_text_is_none_of_the_table(tmp_path: Path) -> None:
    file = written(tmp_path / "t.csv", "id,text\n1,a;b\n2,c;d\n")

    assert read(file) == [Text("a;b", "1"), Text("c;d", "2")]


def test_a_table_that_several_delimiters_fit_is_refused_until_it_is_said_which(
    tmp_path: Path,
) -> None:
    file = written(tmp_path / "t.csv", "id;text|note\n1;apple|x\n")

    with pytest.raises(InvalidRequest, match=r"a semicolon or a bar: name it with --delimiter"):
        read(file)
    assert list(TextSource(file, "text|note", ";").rows()) == [Text("apple|x", "1")]
    with pytest.raises(InvalidRequest, match="leave --delimiter out"):
        list(TextSource(written(tmp_path / "t.txt", "one"), None, ";").rows())


def test_a_row_of_more_cells_than_names_loses_none_of_its_text_in_silence(tmp_path: Path) -> None:
    first, second = read(written(tmp_path / "t.csv", "text\napple, pear\ncherry\n"))

    assert "quote a text with the delimiter" in (first.problem or "")
    assert second == Text("cherry")


def test_an_open_quote_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="line 3: unexpected end of data"):
        read(written(tmp_path / "t.csv", 'id,text\n1,"apple\n2,cherry\n'))


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("rows", ['1{0}apple\n2{0}"pear\n3{0}plum\n', '1{0}"apple\n2{0}pear\n'])
def test_an_open_quote_is_refused_whatever_the_delimiter(
    tmp_path: Path, delimiter: str, rows: str
) -> None:
    file = written(tmp_path / "t.csv", f"id{delimiter}text\n{rows.format(delimiter)}")

    with pytest.raises(InvalidRequest, match=r"line \d: unexpected end of data: .*--delimiter"):
        read(file)


@pytest.mark.parametrize(
    "header", ["id^text", "id:text", "nr~body", "id : text", "id\x01text", "id\x1ftext", "id text"]
)
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_a_header_with_an_unknown_delimiter_is_refused(
    tmp_path: Path, name: str, header: str
) -> None:
    file = written(tmp_path / name, f"{header}\n1^apple\n")

    with pytest.raises(InvalidRequest, match=r"line 1: .* --delimiter, or the column with --col"):
        read(file)
    assert read(file, header) == [Text("1^apple")]


def test_a_given_delimiter_that_is_not_in_the_header_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "t.csv", "id;text\n1;apple\n")

    with pytest.raises(InvalidRequest, match="';' may be its delimiter"):
        list(TextSource(file, None, "^").rows())


@pytest.mark.parametrize(
    "header", ["text", "review-text", "review text", "Is it good? (yes)", '"a:b"', "Größe"]
)
def test_one_column_with_a_plain_or_quoted_name_is_read(tmp_path: Path, header: str) -> None:
    file = written(tmp_path / "t.csv", f"{header}\napple: 1;2\n")

    assert read(file) == [Text("apple: 1;2")]


def test_two_columns_of_one_name_are_refused_in_every_kind_of_file(tmp_path: Path) -> None:
    table = written(tmp_path / "t.csv", "id,text,text\n1,apple,pear\n")
    columns = pa.table([["apple"], ["pear"]], names=["text", "text"])
    pq.write_table(columns, tmp_path / "t.parquet")
    twice, inside = read(
        written(tmp_path / "t.jsonl", '{"text":"a","text":"b"}\n{"text":"a","x":{"text":"b"}}\n')
    )

    for file in (table, tmp_path / "t.parquet"):
        with pytest.raises(InvalidRequest, match="more than one column is named 'text'"):
            read(file)
    assert twice.problem == 'it has the field "text" twice'
    assert inside == Text("a")


def test_columns_without_a_name_are_let_be(tmp_path: Path) -> None:
    assert read(written(tmp_path / "t.csv", "text,,\napple,,\n")) == [Text("apple")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le-mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("t.txt", ["tw\u00f6", "three"]),
        ("t.jsonl", ['"tw\u00f6"', '{"text": "three"}']),
        ("t.csv", ["text;n", "tw\u00f6;1", "three;2"]),
        ("t.tsv", ["text\tn", "tw\u00f6\t1", "three\t2"]),
    ],
)
def test_every_encoding_with_a_mark_and_every_line_end_is_understood(
    tmp_path: Path, name: str, lines: list[str], end: str, encoding: str
) -> None:
    words = "".join(line + end for line in lines)
    data = (
        b"\xff\xfe" + words.encode("utf-16-le")
        if encoding == "utf-16-le-mark"
        else words.encode(encoding)
    )

    assert [row.text for row in read(written(tmp_path / name, data))] == ["tw\u00f6", "three"]


def test_a_carriage_return_inside_a_line_ends_none(tmp_path: Path) -> None:
    assert read(written(tmp_path / "t.txt", b"1 %\r100 %\r\ndone\n")) == [
        Text("1 %\r100 %"), Text("done"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["t.txt", "t.jsonl", "t.csv"])
@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("text\n".encode("utf-16-le"), "zero bytes"),
        (b"\xff\xfet\x00\n\x00\x00\xd8x\x00\n\x00", "utf-16"),
        (b"\xfe\xff\x00t\x00\n\x00", "utf-16"),
    ],
)
def test_what_cannot_be_decoded_is_named(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        read(written(tmp_path / name, data))


def test_a_delimiter_that_stands_beyond_the_sample_changes_nothing(tmp_path: Path) -> None:
    rows = [f'{number};"text, number {number}"' for number in range(20_000)]
    found = read(written(tmp_path / "t.csv", "\n".join(["id;text", *rows])))

    assert (len(found), found[-1]) == (20_000, Text("text, number 19999", "19999"))
