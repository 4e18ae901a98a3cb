"""What a JSON text holds is counted as it is, whatever its strings look like.

Subjects: contract/json_texts/json_scan.py, api_shim/bodies/large_json.py.
"""

import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_shim.bodies.large_json import parse_large
from contract.json_texts import json_scan
from contract.json_texts.json_scan import (
    LARGE_BYTES,
    JsonBounds,
    TooMuch,
    demand_bounds,
    end_of_string,
)

TRICKY = ['"', "\\", '\\"', "{[,", "}]", "\\\\", ',"', "é", "\x00", "word"]
PADDING = "x" * LARGE_BYTES
"""Texts are counted only if they are large."""


def counted(value: Any) -> tuple[int, int, int]:
    """Strings, containers, and all values but the outermost, counted by recursion."""
    if isinstance(value, str):
        return 1, 0, 0
    if not isinstance(value, dict | list):
        return 0, 0, 0
    inner = list(value.values()) if isinstance(value, dict) else value
    sums = [counted(each) for each in inner]
    strings = sum(s for s, _, _ in sums) + (len(value) if isinstance(value, dict) else 0)
    containers = 1 + sum(c for _, c, _ in sums)
    return strings, containers, len(inner) + sum(v for _, _, v in sums)


texts = st.lists(st.sampled_from(TRICKY), max_size=5).map("".join)
trees = st.recursive(
    texts | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)


@given(trees)
@settings(max_examples=200)
def test_a_text_within_its_bounds_passes_and_one_far_beyond_does_not(tree: Any) -> None:
    data = json.dumps([PADDING, tree], ensure_ascii=False).encode()
    strings, containers, values = counted([PADDING, tree])
    # A comma and an opening bracket count as a value each: an empty container counts as one.
    roomy = JsonBounds(strings, containers, containers + values)
    demand_bounds(data, roomy)

    if containers > 1:
        with pytest.raises(TooMuch, match="objects and arrays"):
            demand_bounds(data, roomy._replace(containers=containers - 1))
    if strings > 2:
        with pytest.raises(TooMuch, match="texts and names"):
            demand_bounds(data, roomy._replace(strings=(strings - 1) // 2 - 1))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b'{"a":"' + b"," * 2_000_000 + b'"}', None),
        (b'{"a":"' + b'\\"' * 1_000_000 + b'"}', None),
        (b'{"a":"' + b"{[" * 200_000 + b'\\\\"}', None),
        (b"[" + b"1," * 1_000_001 + b"1]", "values"),
        (b"[" * 140_000, "objects and arrays"),
        (b"[" + b'"",' * 500_001 + b"1]", "texts and names"),
        (b"{" + b'"a":1,' * 250_001 + b'"b":1}', "texts and names"),
        (b'["' + b"{" * 200_000 + b'",' + b"[" * 100_001, "objects and arrays"),
    ],
    ids=["commas", "quotes", "brackets", "numbers", "nested", "texts", "names", "both"],
)
def test_only_what_is_outside_of_texts_counts(data: bytes, what: str | None) -> None:
    if what is None:
        demand_bounds(data)
    else:
        with pytest.raises(TooMuch, match=what):
            demand_bounds(data)


WIDE = JsonBounds(strings=9, containers=9, values=9, wide=2**18)


def text_of(body: str, *, escaped: bool) -> bytes:
    return json.dumps(["short 😀", body, "x" * 2**20], ensure_ascii=escaped).encode()


@pytest.mark.parametrize("escaped", [False, True], ids=["utf-8", "escapes"])
@pytest.mark.parametrize("filling", ["x", "é", "中", "\n", "\\", "\\u", '"', "😀"])
def test_characters_of_texts_with_emoji_are_counted(filling: str, *, escaped: bool) -> None:
    pair = 2 if filling == "😀" and escaped else 1
    most = WIDE.wide // len(filling) // pair - 20
    demand_bounds(text_of(filling * most + "😀", escaped=escaped), WIDE)
    demand_bounds(text_of(filling * (most + 40), escaped=escaped), WIDE._replace(wide=2**19))

    with pytest.raises(TooMuch, match="beyond U"):
        demand_bounds(text_of("😀" + filling * (most + 40), escaped=escaped), WIDE)


@pytest.mark.parametrize("escaped", [False, True], ids=["utf-8", "escapes"])
def test_a_text_without_emoji_may_be_long(*, escaped: bool) -> None:
    text = "中" * 2**20
    demand_bounds(text_of(text, escaped=escaped), WIDE)

    with pytest.raises(TooMuch, match="beyond U"):
        demand_bounds(text_of(text + "😀", escaped=escaped), WIDE)


@pytest.mark.parametrize("at", range(8))
def test_one_emoji_anywhere_is_found(at: int) -> None:
    body = "x" * (2**20 - 4 + at) + "😀" + "x" * 2**20

    with pytest.raises(TooMuch, match="beyond U"):
        demand_bounds(text_of(body, escaped=True), WIDE)
    with pytest.raises(TooMuch, match="beyond U"):
        demand_bounds(text_of(body, escaped=False), WIDE)


@given(st.lists(st.sampled_from([*TRICKY, "\n", "😀"]), max_size=9).map("".join))
def test_a_text_ends_where_it_ends(text: str) -> None:
    """Also where the pieces end in which it is looked through."""
    filling = "x" * (2**16 - len(text) // 2)
    data = json.dumps(filling + text).encode()

    assert end_of_string(data + b',"more"', 1) == len(data)
    assert end_of_string(data[:-1], 1) == len(data) - 1


class Spans:
    """In place of the pattern of a text's inside: notes the bytes that each match may look at."""

    def __init__(self) -> None:
        self.pattern = json_scan._INSIDE
        self.seen: list[int] = []

    def match(self, data: bytes, start: int, end: int) -> Any:
        self.seen.append(min(end, len(data)) - start)
        return self.pattern.match(data, start, end)


def lines_run(work: Callable[[], object]) -> int:
    """Lines of Python that `work` runs."""
    count, before = 0, sys.gettrace()

    def trace(_: FrameType, event: str, __: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def parse(data: bytes) -> None:
    assert parse_large([data])


BACKSLASHES = ["\\", '\\"', "\\n", "x\\", "\\\\中"]


@pytest.mark.parametrize("filling", BACKSLASHES)
def test_a_text_of_backslashes_is_looked_through_once(
    filling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = Spans()
    monkeypatch.setattr(json_scan, "_INSIDE", spans)
    data = json.dumps(filling * (2**20 // len(filling)), ensure_ascii=False).encode()

    assert end_of_string(data, 1) == len(data)
    assert max(spans.seen) <= 2**16
    # An escape that a piece ends within is looked at again.
    assert sum(spans.seen) <= len(data) + 2 * len(spans.seen)


@pytest.mark.parametrize("filling", BACKSLASHES)
@pytest.mark.parametrize("work", [parse, demand_bounds], ids=["parse", "bounds"])
def test_the_steps_for_backslashes_grow_with_the_pieces_not_with_the_bytes(
    filling: str, work: Callable[[bytes], object]
) -> None:
    def steps(mebibytes: int) -> int:
        text = filling * (mebibytes * 2**20 // len(filling)) + "中"
        data = json.dumps([text], ensure_ascii=False).encode()
        return lines_run(lambda: work(data))

    few, many = steps(4), steps(8)

    assert many < 2.5 * few + 200
    assert many < 2**20 // 100
