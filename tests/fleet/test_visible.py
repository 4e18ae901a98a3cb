"""No text of others moves a cursor or turns around on a terminal; nothing else of it changes."""

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as some

from fleet.visible import visible, visible_json

BIDI_CONTROLS = {*"\u061c\u200e\u200f", *map(chr, range(0x206A, 0x2070))}
"""Whose class by these tables is that of a letter, or none."""
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
controls = some.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])
texts = some.text(some.characters() | controls)


def is_obeyed(character: str) -> bool:
    """Whether a terminal does something else with it than show it, by Unicode's tables."""
    category = unicodedata.category(character)
    is_mark = unicodedata.bidirectional(character) in BIDI or character in BIDI_CONTROLS
    return category in {"Cc", "Cs", "Zl", "Zp"} or is_mark


@given(texts, some.sampled_from(["", "\n", "\n\t"]))
def test_what_is_shown_holds_no_character_that_a_terminal_obeys(text: str, kept: str) -> None:
    shown = visible(text, kept)

    assert [each for each in shown if is_obeyed(each) and each not in kept] == []
    assert shown.encode().decode() == shown


@given(some.text(some.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_what_is_harmless_is_shown_as_it_is(text: str) -> None:
    assert visible(text) == text
    assert visible(f"{text}\n\t") == f"{text}\n\t"


@given(texts)
def test_what_is_shown_can_be_shown_again(text: str) -> None:
    assert visible(visible(text)) == visible(text)


@given(texts.map(lambda it: it.encode(errors="replace").decode()), some.booleans())
def test_json_keeps_its_value_and_has_none_of_them_raw(text: str, ascii: bool) -> None:  # noqa: FBT001
    shown = visible_json(json.dumps({text: [text]}, ensure_ascii=ascii))

    assert json.loads(shown) == {text: [text]}
    assert [each for each in shown if is_obeyed(each) and each not in "\u2028\u2029"] == []
