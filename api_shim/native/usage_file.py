"""Usage as a file: CSV, or Parquet where pyarrow is installed."""

import csv
import io
from collections.abc import Sequence
from typing import Any, Final

from contract.errors import NotSupported
from contract.usage import GROUPS, UsageRow

COLUMNS: Final = (*GROUPS, *(name for name in UsageRow.model_fields if name not in GROUPS))
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would run (CWE-1236): a client may name a model so."""


def csv_file(rows: Sequence[UsageRow]) -> bytes:
    """The rows as CSV (RFC 4180), a header first; columns that are no groups are empty."""
    text = io.StringIO(newline="")
    lines = csv.writer(text)
    lines.writerow(COLUMNS)
    for row in rows:
        lines.writerow([_cell(getattr(row, name)) for name in COLUMNS])
    return text.getvalue().encode()


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value


def parquet_file(rows: Sequence[UsageRow]) -> bytes:
    """The rows as Parquet, the same columns; raises NotSupported without pyarrow."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet as pq  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise NotSupported(
            "format=parquet needs pyarrow where the shim runs: pip install 'llm-fleet[parquet]' "
            "there, or ask for format=csv"
        ) from error
    types: dict[Any, Any] = {int: pa.int64(), float: pa.float64()}
    fields = UsageRow.model_fields
    schema = pa.schema(
        [(name, types.get(fields[name].annotation, pa.string())) for name in COLUMNS]
    )
    columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    file = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), file)
    return file.getvalue()
