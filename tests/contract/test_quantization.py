"""Vectors as small integers are those that numpy makes."""

import numpy as np
import pytest

from contract.embeddings import pack, unit_rows, unpack
from contract.quantization import quantized

ROWS = np.random.default_rng(3).normal(size=(5, 21)).astype(np.float32)


def test_bits_are_packed_as_numpy_does() -> None:
    for row in ROWS:
        packed = np.packbits(row > 0)

        assert quantized(row.tolist(), "ubinary") == packed.tolist()
        assert quantized(row.tolist(), "binary") == (packed.astype(int) - 128).tolist()


def test_bytes_use_their_whole_range_and_keep_the_cosine() -> None:
    for row in ROWS:
        small = np.array(quantized(row.tolist(), "int8"))

        assert np.abs(small).max() == 127
        assert small @ row / np.linalg.norm(small) / np.linalg.norm(row) > 0.9995
        assert quantized(row.tolist(), "uint8") == (small + 128).tolist()


def test_a_row_of_zeros_is_no_division_by_zero() -> None:
    assert quantized([0.0] * 9, "int8") == [0] * 9
    assert quantized([0.0] * 9, "binary") == [-128, -128]
    assert unpack(unit_rows(pack([[0.0, 0.0]]), 2), 2) == [[0.0, 0.0]]


def test_rows_are_scaled_to_length_one() -> None:
    (row,) = unpack(unit_rows(pack([[3.0, 4.0]]), 2), 2)

    assert row == pytest.approx([0.6, 0.8])
