"""Vectors as clients ask for them: numbers, base64, or small integers. Pure.

Each row is scaled by itself, because there is no calibration: the cosine of two rows is kept, their
lengths are not. Bits are packed as numpy does: eight numbers a byte, the first one highest.
Source of the encodings: Cohere's `embedding_types` (cohere-python, `EmbedByTypeResponse`) and
sentence-transformers `quantization.py`.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import Final, Literal, get_args

from contract.embeddings import unpack

SmallType = Literal["int8", "uint8", "binary", "ubinary"]
SMALL_TYPES: Final[tuple[SmallType, ...]] = get_args(SmallType)
RowType = Literal["float", "base64"] | SmallType
_FLOAT_BYTES: Final = 4
_MOST: Final = 127
_SHIFT: Final = 128
_BITS: Final = 8


def encoded_rows(
    data: str, dimension: int, type: RowType
) -> Iterator[str | list[float] | list[int]]:
    """Each row of `dimension` numbers that `contract.embeddings.pack` encoded, as asked for.

    One row at a time: those of a large job are tens of megabytes.
    """
    size_bytes = dimension * _FLOAT_BYTES
    packed = base64.b64decode(data)
    for at in range(0, len(packed), size_bytes):
        row = base64.b64encode(packed[at : at + size_bytes]).decode()
        if type == "base64":
            yield row
            continue
        numbers = unpack(row, dimension)[0]
        yield numbers if type == "float" else quantized(numbers, type)


def quantized(row: Sequence[float], type: SmallType) -> list[int]:
    """A row as integers: from -128 to 127, or 0 to 255 with a `u`.

    `int8` and `uint8` have one for each number, `binary` and `ubinary` one for eight: 1 is a number
    above zero, and missing ones are 0.
    """
    match type:
        case "int8":
            return _scaled(row)
        case "uint8":
            return [value + _SHIFT for value in _scaled(row)]
        case "binary":
            return [value - _SHIFT for value in _packed(row)]
        case "ubinary":
            return _packed(row)


def _scaled(row: Sequence[float]) -> list[int]:
    largest = max((abs(value) for value in row), default=0.0)
    factor = _MOST / largest if largest else 0.0
    return [round(value * factor) for value in row]


def _packed(row: Sequence[float]) -> list[int]:
    bits = [value > 0 for value in row]
    bits += [False] * (-len(bits) % _BITS)
    return [
        sum(bit << (_BITS - 1 - at) for at, bit in enumerate(bits[start : start + _BITS]))
        for start in range(0, len(bits), _BITS)
    ]
