"""Tables fit a terminal; in a pipe a row is a line, and nothing of it is missing."""

import pytest

from fleet.cli.tables import Ago, Id, Wrapped, lines, span

NOW = 1_000_000.0
IDS = [Id("0123456789abcdef" * 2), Id("0123456aaaabcdef" * 2), Id("f" * 32)]
COLUMNS = ("job", "queue", Wrapped("model"), "try", "age")
ROWS = [(id, "box.chat", "a model with a name that is long" * 3, 1, Ago(NOW - 70)) for id in IDS]


def test_a_terminal_shows_every_row_within_its_width() -> None:
    for width in (80, 60, 120):
        assert max(map(len, lines(COLUMNS, ROWS, NOW, width))) <= width


def test_a_column_that_goes_on_below_is_narrowed_before_others_are_cut() -> None:
    columns = ("set aside", "queue", "bytes", "job", Wrapped("why"))
    rows = [(Ago(NOW - 10), "scripted.embed", 281, IDS[0], "its body is no list " * 9)]
    header, *found = lines(columns, rows, NOW, 80)

    assert header.split() == ["set", "aside", "queue", "bytes", "job", "why"]
    assert found[0].split()[:5] == ["10s", "ago", "scripted.embed", "281", "01234567"]
    assert max(map(len, found)) <= 80


def test_ids_are_as_short_as_they_can_be_told_apart() -> None:
    short = [line.split()[0] for line in lines(("job",), [[id] for id in IDS], NOW, 80)[1:]]
    batch = lines(("batch",), [[Id("batch_" + "a" * 40)]], NOW, 80)[1]

    assert short == ["01234567", "0123456a", "ffffffff"]
    assert batch == "batch_aaaaaaaa"


def test_ids_that_differ_late_are_longer() -> None:
    ids = [[Id("a" * 20 + "b")], [Id("a" * 20 + "c")]]

    assert lines(("job",), ids, NOW, 80)[1:] == ["a" * 20 + "b", "a" * 20 + "c"]


def test_a_pipe_gets_every_cell_whole_and_one_line_a_row() -> None:
    rows = [(*row[:2], "several\nlines\n\n of it", *row[3:]) for row in ROWS]
    header, *found = lines(COLUMNS, rows, NOW)

    assert header.split() == list(COLUMNS)
    assert len(found) == len(rows)
    assert [line.split()[0] for line in found] == IDS
    assert all("several lines of it" in line for line in found)


def test_what_must_be_whole_goes_on_in_the_next_line_and_what_need_not_is_cut() -> None:
    cut = lines(("a", "b"), [["x" * 50, "y" * 50]], NOW, 41)
    whole = lines(("a", Wrapped("b")), [["x" * 10, "y" * 50]], NOW, 40)

    assert (len(cut[1]), cut[1].count("…")) == (41, 2)
    assert "".join(line.replace("x", "").strip("… ") for line in whole[1:]) == "y" * 50


def test_wide_letters_count_double() -> None:
    from rich.cells import cell_len  # noqa: PLC0415

    found = lines(("a", "b"), [["\u6f22" * 60, "\u5b57" * 60]], NOW, 80)

    assert max(map(cell_len, found)) <= 80


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "yes"),
        (0.25, "0.2"),
        ("", "-"),
        (Ago(None), "-"),
        (Ago(NOW - 3), "3s ago"),
        (Ago(NOW - 7300), "2h ago"),
        (Ago(NOW + 90 * 86400), "in 90d"),
    ],
)
def test_each_value_has_its_words(value: object, shown: str) -> None:
    for width in (None, 80):
        assert lines(("x",), [[value]], NOW, width)[1].strip() == shown


def test_an_empty_table_is_its_header() -> None:
    assert lines(("a", "b"), [], NOW, 80) == ["a  b"]
    assert (span(59.9), span(3600), span(-1)) == ("59s", "1h", "0s")


@pytest.mark.parametrize("width", [None, 80])
def test_control_characters_of_a_cell_are_shown_escaped(width: int | None) -> None:
    evil = "x\x1b[31mRED\x1b]0;T\x07\x9b2J\x7f\u202e"
    columns = ("job", "model", Wrapped("why"))
    found = "\n".join(lines(columns, [[Id(evil), evil, evil]], NOW, width))

    assert not any(each in found for each in "\x1b\x07\x9b\x7f\u202e")
    assert r"x\x1b[31m" in found


@pytest.mark.parametrize("width", [None, 80])
def test_a_name_with_line_breaks_begins_no_other_row(width: int | None) -> None:
    rows = [("a\r\ntrusted  box\u2028", "box"), ("b", "crate")]
    found = lines((Wrapped("model"), "backend"), rows, NOW, width)

    assert [each.split()[0] for each in found] == ["model", "a", "b"]
