"""Texts that are joined while they are let go are those that a join makes.

Subjects: api_shim/bodies/joined_texts.py.
"""

import sys
from typing import Any

import pytest

from api_shim.bodies.joined_texts import join_plain, joined_texts, json_text, taken
from contract.chat import Tool
from contract.errors import PayloadTooLarge
from contract.json_lines import json_line
from contract.json_texts.json_scan import MOST_WIDE


@pytest.mark.parametrize("at_once", [1, 4, 1000])
@pytest.mark.parametrize("between", ["", "\n"])
@pytest.mark.parametrize(
    "texts", [[], [""], ["", ""], ["a", "", "bc", "中" * 5, "", "d" * 9, "😀"]]
)
def test_it_is_a_join(
    texts: list[str], between: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_shim.bodies.joined_texts._AT_ONCE_CHARS", at_once)
    given = list(texts)

    assert joined_texts(given, between) == between.join(texts)
    assert given == []


@pytest.mark.parametrize("wide", ["", "中", "😀"])
@pytest.mark.parametrize("chars", [MOST_WIDE - 10, MOST_WIDE + 10])
def test_one_wide_text_does_not_make_all_of_a_large_body_wide(wide: str, chars: int) -> None:
    texts = ["x" * (chars // 4)] * 4 + [wide]
    if chars < MOST_WIDE or wide != "😀":
        assert joined_texts(texts).endswith(f"x{wide}")
        return

    with pytest.raises(PayloadTooLarge, match="in texts that become one"):
        joined_texts(texts)


def test_plain_parts_become_one() -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "text", "text": ""},
        {"type": "text", "text": "b"},
    ]

    assert join_plain(parts, "\n") is parts
    assert parts == [{"type": "text", "text": "a\n\nb"}]


@pytest.mark.parametrize(
    "parts",
    [
        None,
        "text",
        {"type": "text"},
        [],
        [{"type": "text", "text": "a"}] * 10_001,
        *(
            [{"type": "text", "text": "a"}, other]
            for other in (
                {"type": "text", "text": 1},
                {"type": "text", "text": "b", "cache_control": {}},
                {"type": "image", "text": "b"},
                {"type": ["text"], "text": "b"},
                "b",
            )
        ),
    ],
    ids=lambda parts: repr(parts)[:60],
)
def test_others_stay(parts: Any) -> None:
    before = repr(parts)

    assert repr(join_plain(parts)) == before


def test_what_is_taken_is_let_go() -> None:
    items = ["a", "b", "c"]

    assert [(each, len(items)) for each in taken(items)] == [("a", 2), ("b", 1), ("c", 0)]


@pytest.mark.parametrize("value", [{}, {"a": [1, None, "中\u2028"]}, {"a": "中" * 3_000_000}])
def test_an_object_becomes_its_json(value: dict[str, Any]) -> None:
    holder = Tool(name="f", parameters=value)

    assert json_text(holder, "parameters") == json_line(value).decode()
    assert holder.parameters is None


def test_no_utf_8_is_kept_with_its_texts() -> None:
    text = "中" * 300
    size_bytes = sys.getsizeof(text)

    json_text(Tool(name="f", parameters={"a": text}), "parameters")

    assert sys.getsizeof(text) == size_bytes
