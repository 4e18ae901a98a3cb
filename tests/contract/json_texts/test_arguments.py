"""Arguments that models send are values that JSON can say, and not too many of them."""

import pytest

from contract.json_texts.arguments import (
    MOST_CHARS,
    ONE_ANSWER,
    demand_small,
    parsed,
    parsed_as_far,
)
from contract.json_texts.json_scan import TooMuch


def holds_much(*texts: str) -> bool:
    try:
        demand_small(texts)
    except TooMuch:
        return True
    return False


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_json_cannot_say_are_no_value(number: str) -> None:
    for parse in (parsed, parsed_as_far):
        with pytest.raises(ValueError, match=r".+"):
            parse(f'{{"a":[{number}]}}')


def test_arguments_that_were_cut_off_are_read_as_far_as_they_go() -> None:
    assert parsed_as_far('{"a": 1, "b": [2,') == {"a": 1, "b": [2]}
    assert parsed("") == {} == parsed_as_far("")


@pytest.mark.parametrize(
    "texts",
    [
        ["[" * (ONE_ANSWER.containers + 1)],
        ['{"a":[' + "[]," * 6000 + "]}"] * 10,
        ["1," * (ONE_ANSWER.values + 1)],
        ['"",' * (ONE_ANSWER.strings + 1)],
        ["x" * (MOST_CHARS // 2 + 1)] * 2,
    ],
)
def test_arguments_that_hold_much_together_are_refused(texts: list[str]) -> None:
    assert holds_much(*texts)


def test_large_texts_among_them_are_not() -> None:
    assert not holds_much('{"text":"' + "{[,\\n" * 100_000 + '"}', "{}")
