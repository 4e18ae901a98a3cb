"""Reading safetensors without its library."""

import json
from pathlib import Path

import numpy as np
import pytest

from fleet.demo.tensor_file import read_tensors


def write(path: Path, table: dict[str, object], data: bytes) -> Path:
    header = json.dumps(table).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def entry(dtype: str, shape: list[int], end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


def test_a_tensor_has_its_numbers_and_its_shape(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype="<f4").reshape(2, 3)
    table = {"__metadata__": {"format": "pt"}, "a": entry("F32", [2, 3], 24)}
    tensors = read_tensors(write(tmp_path / "a.safetensors", table, numbers.tobytes()))

    assert list(tensors) == ["a"]
    np.testing.assert_array_equal(tensors["a"], numbers)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"a": entry("F32", [2, 3], 24)}, bytes(20))
    with pytest.raises(ValueError, match="ends inside a"):
        read_tensors(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="inside its header"):
        read_tensors(path)


def test_a_type_that_numpy_lacks_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"a": entry("BF16", [2], 4)}, bytes(4))
    with pytest.raises(ValueError, match="a is BF16"):
        read_tensors(path)
