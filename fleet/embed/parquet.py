"""Reads and writes Parquet files with pyarrow, which the extra `parquet` installs."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from contract.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np

_ROWS_AT_ONCE = 1024
_GROUP_BYTES = 32 * 2**20
"""Size of the vectors in one row group."""


class NoParquet(InvalidRequest):
    """pyarrow is not installed."""

    code = "no_parquet"


def parquet() -> Any:
    """The module `pyarrow.parquet`; raises NoParquet."""
    try:
        import pyarrow.parquet  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise NoParquet("Parquet files need pyarrow: pip install 'llm-fleet[parquet]'") from error
    return pyarrow.parquet


def column_names(file: Path) -> tuple[str, ...]:
    """Names of the columns; raises NoParquet, and InvalidRequest for an invalid file."""
    with _opened(file) as opened:
        return tuple(opened.schema_arrow.names)


def rows(file: Path, names: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the values of the named columns, row by row; reads 1024 rows at a time."""
    with _opened(file) as opened:
        for batch in opened.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(names)):
            values = batch.to_pydict()
            yield from zip(*(values[name] for name in names), strict=True)


def _opened(file: Path) -> Any:
    module = parquet()
    import pyarrow as pa  # noqa: PLC0415 - as above

    try:
        return module.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequest(f"{file} cannot be read as Parquet: {error}") from error


class VectorColumns:
    """A file of `index`, `id` (text, or null) and `embedding` (a list of float32, or null)."""

    def __init__(self, file: IO[bytes]) -> None:
        """Write to an open file; raises NoParquet."""
        import pyarrow as pa  # noqa: PLC0415 - as above

        self._arrow = pa
        self._schema = pa.schema(
            [
                ("index", pa.int64()),
                ("id", pa.string()),
                ("embedding", pa.list_(pa.float32())),
            ]
        )
        self._writer = parquet().ParquetWriter(file, self._schema)
        self._batches: list[Any] = []
        self._size_bytes = 0
        self._index = 0

    def write(
        self, ids: list[str | None], vectors: "np.ndarray[Any, Any]", has: "np.ndarray[Any, Any]"
    ) -> None:
        """Add rows, a vector for each id; where the mask `has` is False, it is written as null."""
        import numpy as np  # noqa: PLC0415 - slow to import

        arrow, dimension = self._arrow, vectors.shape[1]
        offsets = np.concatenate([[0], np.cumsum(has * dimension)]).astype(np.int32)
        embeddings = arrow.ListArray.from_arrays(
            arrow.array(offsets), arrow.array(vectors[has].reshape(-1)), mask=arrow.array(~has)
        )
        numbers = arrow.array(range(self._index, self._index + len(ids)), arrow.int64())
        columns = [numbers, arrow.array(ids, arrow.string()), embeddings]
        self._batches.append(arrow.record_batch(columns, schema=self._schema))
        self._index += len(ids)
        self._size_bytes += vectors.nbytes
        if self._size_bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the remaining rows and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._batches:
            self._writer.write_table(self._arrow.Table.from_batches(self._batches))
        self._batches, self._size_bytes = [], 0
