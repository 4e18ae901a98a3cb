"""Reads a `.safetensors` file with numpy: a length, a JSON header, the data.

Format: https://github.com/huggingface/safetensors#format
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

Array = NDArray[Any]

_LENGTH_BYTES: Final = 8
_TYPES: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}


def read_tensors(path: Path) -> dict[str, Array]:
    """Every tensor of the file by name, memory-mapped.

    Raises ValueError if the file is truncated, or has a type that numpy does not support (BF16).
    """
    with path.open("rb") as file:
        length_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = file.read(length_bytes)
    if len(header) < length_bytes:
        raise ValueError(f"{path} ends inside its header")
    table: dict[str, dict[str, Any]] = from_json(header)
    table.pop("__metadata__", None)
    data = np.memmap(path, np.uint8, "r", offset=_LENGTH_BYTES + length_bytes)
    return {name: _tensor(path, name, entry, data) for name, entry in table.items()}


def _tensor(path: Path, name: str, entry: dict[str, Any], data: Array) -> Array:
    begin, end = entry["data_offsets"]
    if entry["dtype"] not in _TYPES:
        raise ValueError(f"{path}: {name} is {entry['dtype']}; known are {', '.join(_TYPES)}")
    if end > data.size:
        raise ValueError(f"{path} ends inside {name}")
    return data[begin:end].view(_TYPES[entry["dtype"]]).reshape(entry["shape"])
