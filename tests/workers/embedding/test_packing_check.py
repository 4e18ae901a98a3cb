"""Similarity of two lists of vectors: the worst pair decides, and NaN is not similar."""

import math

import pytest

from workers.embedding.packing_check import TEXTS, similarity

ROWS = [[1.0, 0.0, 0.5], [0.2, -0.4, 0.1]]


def test_equal_vectors_are_similar() -> None:
    assert similarity(ROWS, ROWS).is_same
    assert similarity(ROWS, [[value * 1.0005 for value in row] for row in ROWS]).is_same


@pytest.mark.parametrize(
    "other",
    [
        [ROWS[1], ROWS[0]],
        [ROWS[0]],
        [ROWS[0], ROWS[1][:2]],
        [ROWS[0], [value * 1.1 for value in ROWS[1]]],
        [ROWS[0], [math.nan, 0.0, 0.0]],
        [ROWS[0], [0.0, 0.0, 0.0]],
    ],
    ids=["order", "count", "width", "length", "nan", "zero"],
)
def test_one_different_vector_is_enough(other: list[list[float]]) -> None:
    assert not similarity(ROWS, other).is_same


def test_the_texts_differ_in_length_so_that_they_are_padded() -> None:
    lengths = [len(text) for text in TEXTS]

    assert len(set(lengths)) == len(lengths)
    assert max(lengths) > 20 * min(lengths)
