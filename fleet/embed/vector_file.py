"""Writes vectors to a file: JSON lines, a numpy array, or Parquet.

The output has the rows of the input, in order; one without a vector is null, or NaN.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np

from contract.errors import InvalidRequest
from contract.json_lines import json_line
from fleet.atomic_file import whole
from fleet.embed.parquet import VectorColumns, parquet
from fleet.embed.spool import Block
from fleet.embed.text_files import Text


class VectorWriter(Protocol):
    """Writes rows in order."""

    def write(self, texts: list[Text], block: Block, /) -> None:
        """Add the rows of a block."""
        ...

    def close(self) -> None:
        """Write the end of the file, if the format has one."""
        ...


class JsonLines:
    """One object a line: `index`, `id` if the input has one, `embedding`, `error` if it failed."""

    def __init__(self, file: IO[bytes]) -> None:
        """Write to an open file."""
        self._file = file
        self._index = 0

    def write(self, texts: list[Text], block: Block, /) -> None:
        """Add the rows of a block; nine digits are enough to read a float32 back exactly."""
        numbers = ",".join(["%.9g"] * block.rows.shape[1])
        bad = {each.row: each.message for each in block.bad}
        for text, row in zip(texts, block.rows, strict=True):
            head: dict[str, Any] = {"index": self._index}
            if text.id is not None:
                head["id"] = text.id
            if self._index in bad:
                line = json_line({**head, "embedding": None, "error": bad[self._index]})
            else:
                vector = numbers % tuple(row.tolist())
                line = json_line(head)[:-1] + b',"embedding":[' + vector.encode() + b"]}"
            self._file.write(line + b"\n")
            self._index += 1

    def close(self) -> None:
        """Nothing belongs there."""


class Npy:
    """A float32 array of shape (texts, dimension); the header with the shape is written first."""

    def __init__(self, file: IO[bytes], total: int) -> None:
        """Write to an open file."""
        self._file = file
        self._total = total
        self._started = False

    def write(self, _texts: list[Text], block: Block, /) -> None:
        """Add the rows of a block."""
        if not self._started:
            shape = (self._total, block.rows.shape[1])
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self._file, header)
            self._started = True
        self._file.write(block.rows.astype("<f4").tobytes())

    def close(self) -> None:
        """Nothing belongs there."""


class Parquet:
    """Columns `index`, `id`, `embedding`."""

    def __init__(self, file: IO[bytes]) -> None:
        """Write to an open file; raises NoParquet."""
        self._columns = VectorColumns(file)
        self._index = 0

    def write(self, texts: list[Text], block: Block, /) -> None:
        """Add the rows of a block; ids are written as strings."""
        has = np.ones(block.count, dtype=bool)
        has[[each.row - self._index for each in block.bad]] = False
        self._columns.write([_id_text(text.id) for text in texts], block.rows, has)
        self._index += block.count

    def close(self) -> None:
        """Write the footer."""
        self._columns.close()


def _id_text(id: Any) -> str | None:
    return id if id is None or isinstance(id, str) else json_line(id).decode()


_WRITERS: Final[dict[str, Callable[[IO[bytes], int], VectorWriter]]] = {
    ".jsonl": lambda file, _: JsonLines(file),
    ".npy": Npy,
    ".parquet": lambda file, _: Parquet(file),
}


def check_output(file: Path) -> None:
    """Raises InvalidRequest if the file's format is unknown or its folder is missing."""
    if file.suffix.lower() not in _WRITERS:
        raise InvalidRequest(f"{file}: the output must be one of {', '.join(_WRITERS)}")
    if file.suffix.lower() == ".parquet":
        parquet()
    if not file.parent.is_dir():
        raise InvalidRequest(f"{file.parent} is not a folder")


@contextmanager
def output(file: Path, total: int) -> Iterator[VectorWriter]:
    """A writer for `total` rows; the file is created if the context ends without an exception.

    Raises as `check_output` does.
    """
    check_output(file)
    with whole(file) as opened:
        writer = _WRITERS[file.suffix.lower()](opened, total)
        try:
            yield writer
        finally:
            writer.close()


class Errors:
    """Writes a line for each row without a vector: `index`, `id`, `text`, `code`, `message`."""

    def __init__(self, file: IO[bytes]) -> None:
        """Write to an open file."""
        self._file = file
        self._first = 0

    def write(self, texts: list[Text], block: Block) -> None:
        """Add the rows of a block that have no vector."""
        for bad in block.bad:
            text = texts[bad.row - self._first]
            fields = {
                "index": bad.row, "id": text.id, "text": text.text or None,
                "code": bad.code, "message": bad.message,
            }  # fmt: skip
            line = {name: value for name, value in fields.items() if value is not None}
            self._file.write(json_line(line) + b"\n")
        self._first += block.count


@contextmanager
def errors_file(file: Path, *, wanted: bool) -> Iterator[Errors]:
    """A writer of the errors file; if not `wanted`, deletes that of an earlier run."""
    if wanted:
        with whole(file) as opened:
            yield Errors(opened)
        return
    yield Errors(BytesIO())
    file.unlink(missing_ok=True)
