"""What a rerank request may be, and the order that scores make."""

from typing import Any

import pytest
from pydantic import ValidationError

from contract.events import Done, Reset, Scores
from contract.rerank import LONGEST_DOCUMENT, MOST_DOCUMENTS, RerankRequest, ranked
from contract.result import fold

GOOD: dict[str, Any] = {"model": "m", "query": "q", "documents": ("a", "b")}


def test_equal_scores_keep_the_order_of_the_request() -> None:
    assert [(each.index, each.score) for each in ranked([0.5, 0.9, 0.5], 2)] == [
        (1, 0.9),
        (0, 0.5),
    ]


def test_a_ranking_is_of_all_blocks_in_any_order_and_a_reset_discards_it() -> None:
    late = Scores(index=2, scores=(0.9,), top_n=2)
    early = Scores(index=0, scores=(0.1, 0.5), top_n=2)
    void = Scores(index=0, scores=(7.0, 7.0, 7.0))

    result = fold([void, Reset(attempt=2, reason="x"), late, early, Done()])

    assert [each.index for each in result.ranking] == [2, 1]


def test_pairs_have_a_query_each() -> None:
    request = RerankRequest(model="m", queries=("p", "q"), documents=("a", "b"))

    assert request.pairs == (("p", "a"), ("q", "b"))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"query": None}, "query"),
        ({"query": ""}, "query"),
        ({"query": "q", "queries": ("p", "q")}, "query"),
        ({"query": None, "queries": ("p",)}, "queries"),
        ({"top_n": 10**19}, "top_n"),
        ({"documents": ()}, "documents"),
        ({"documents": ("a",) * (MOST_DOCUMENTS + 1)}, "documents"),
        ({"documents": ("a" * (LONGEST_DOCUMENT + 1),)}, "documents"),
        ({"documents": ("a", None)}, "documents"),
        ({"documents": "ab"}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"model": ""}, "model"),
    ],
)
def test_a_wrong_field_is_named(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RerankRequest(**{**GOOD, **wrong})

    assert caught.value.errors()[0]["loc"][0] == field
