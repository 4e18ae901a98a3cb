"""The end of an object that comes in fragments is where a parser sees it, wherever it was cut."""

import itertools
import json
import time
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.json_texts.arguments import ObjectScan, ScanRoom

QUICK_S: Final = 10.0
TRICKY = st.text(alphabet='"\\{}[],:a1 é\n', max_size=8)
VALUES: Any = st.recursive(
    st.none() | st.integers() | TRICKY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TRICKY, inner, max_size=3),
    max_leaves=8,
)


def scanned(*fragments: str, marks: int = 1000) -> ObjectScan:
    scan = ObjectScan(ScanRoom(marks))
    for fragment in fragments:
        scan.add(fragment)
    return scan


@given(value=st.dictionaries(TRICKY, VALUES, max_size=3), cuts=st.lists(st.integers(0, 80)))
def test_an_object_ends_with_its_last_character(value: Any, cuts: list[int]) -> None:
    text = json.dumps(value, ensure_ascii=False)
    edges = sorted({0, len(text), *(at for at in cuts if at < len(text))})
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]

    assert scanned(*pieces).is_closed
    assert scanned(*text, " ", "\n").is_closed
    assert not scanned(*pieces, "x").is_closed
    assert not scanned(text[:-1]).is_closed


@pytest.mark.parametrize("text", ["", " ", "[{}]", '"{}"', "}", "]", "1", "{}{}", "{} }"])
def test_what_is_no_object_has_no_end(text: str) -> None:
    assert not scanned(text).is_closed
    assert not scanned(*text).is_closed


def test_texts_share_the_marks_that_are_looked_at() -> None:
    room = ScanRoom(6)
    scans = [ObjectScan(room) for _ in range(4)]
    for scan in scans:
        scan.add("{}")

    assert [scan.is_closed for scan in scans] == [True, True, True, False]


@pytest.mark.parametrize("fragment", ["}", "{", '"', "\\", '{"a":"', "x" * 100])
def test_many_fragments_are_looked_at_once(fragment: str) -> None:
    started = time.perf_counter()
    scan = scanned('{"a":"', *[fragment] * 300_000, marks=10**9)

    assert not scan.is_closed
    assert time.perf_counter() - started < QUICK_S
