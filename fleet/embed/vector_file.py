"""The file of vectors that a run ends with: JSON lines, a numpy array, or Parquet.

Every row of the input has its row here, in order; one without a vector is null, or NaN.
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
    """Takes rows in order."""

    def write(self, texts: list[Text], block: Block, /) -> None:
        """Add the rows of a block."""
        ...

    def close(self) -> None:
        """Write what belongs at the end."""
        ...


class JsonLines:
    """One object a line: `index`, the input's `id` if it has one, `embedding`, maybe `error`."""

    def __init__(self, file: IO[bytes]) -> None:
        """Write to an open file."""
        self._file = file
        self._index = 0

    def write(self, texts: list[Text], block: Block, /) -> None:
        """Nine digits: as many as a float32 needs to be read back as the same."""
        numbers = ",".join(["%.9g"] * block.rows.shape[1])
        bad = {each.row: each.message for each in block.bad}
        for text, row in zip(texts, block.rows, strict=True):
            head: dict[str, Any] = {"index": self._index}
            if text.id is not None:
                head["id"] = text.id
            if self._index in bad:
                line = json_line({**head, "embedding": None, "error": bad[self._index]})
            else:
                said = numbers % tuple(row.tolist())
                line = json_line(head)[:-1] + b',"embedding":[' + said.encode() + b"]}"
            self._file.write(line + b"\n")
            self._index += 1

    def close(self) -> None:
        """Nothing belongs there."""


class Npy:
    """A float32 array, one row a text; its header, which says how many, is written first."""

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
        """Add the rows of a block; what a text calls itself becomes text."""
        has = np.ones(block.count, dtype=bool)
        has[[each.row - self._index for each in block.bad]] = False
        self._columns.write([_spoken(text.id) for text in texts], block.rows, has)
        self._index += block.count

    def close(self) -> None:
        """Write the file's end."""
        self._columns.close()


def _spoken(id: Any) -> str | None:
    return id if id is None or isinstance(id, str) else json_line(id).decode()


_WRITERS: Final[dict[str, Callable[[IO[bytes], int], VectorWriter]]] = {
    ".jsonl": lambda file, _: JsonLines(file),
    ".npy": Npy,
    ".parquet": lambda file, _: Parquet(file),
}


def check_output(file: Path) -> None:
    """Raises InvalidRequest if no such file can be written here."""
    if file.suffix.lower() not in _WRITERS:
        raise InvalidRequest(f"{file}: name the output {', '.join(_WRITERS)}")
    if file.suffix.lower() == ".parquet":
        parquet()
    if not file.parent.is_dir():
        raise InvalidRequest(f"{file.parent} is no folder: nothing could be written there")


@contextmanager
def output(file: Path, total: int) -> Iterator[VectorWriter]:
    """A writer for `total` rows; the file appears when the context ends well, or not at all."""
    check_output(file)
    with whole(file) as opened:
        writer = _WRITERS[file.suffix.lower()](opened, total)
        try:
            yield writer
        finally:
            writer.close()


class Errors:
    """A line for each row without a vector: `index`, `id`, `text`, `code`, `message`."""

    def __init__(self, file: IO[bytes]) -> None:
        """Write to an open file."""
        self._file = file
        self._first = 0

    def write(self, texts: list[Text], block: Block) -> None:
        """Add what is bad in a block."""
        for bad in block.bad:
            text = texts[bad.row - self._first]
            told = {
                "index": bad.row, "id": text.id, "text": text.text or None,
                "code": bad.code, "message": bad.message,
            }  # fmt: skip
            line = {name: value for name, value in told.items() if value is not None}
            self._file.write(json_line(line) + b"\n")
        self._first += block.count


@contextmanager
def errors_file(file: Path, *, wanted: bool) -> Iterator[Errors]:
    """Where rows without a vector are told; if there are none, an earlier run's file goes."""
    if wanted:
        with whole(file) as opened:
            yield Errors(opened)
        return
    yield Errors(BytesIO())
    file.unlink(missing_ok=True)
