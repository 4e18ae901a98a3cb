"""Reads texts from a file, row by row: lines, JSON lines, CSV, Parquet.

A row without a valid text is yielded with its problem, so that the others are not affected.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from contract.errors import InvalidRequest
from fleet.embed.delimited import USUAL, check_names, check_single_column, rows_of
from fleet.embed.encoding import lines_of, undecoded_at
from fleet.embed.parquet import column_names
from fleet.embed.parquet import rows as parquet_rows

_USUAL: Final = ("text", "input")
"""Default names of the column of texts."""
_ID: Final = "id"


class Text(NamedTuple):
    """A row of the input."""

    text: str
    id: Any = None
    """Value of the column `id`, if there is one."""
    problem: str | None = None
    """Why the row has no valid text; None if it has."""


class FileSurvey(NamedTuple):
    """Counts over a whole file."""

    rows: int
    texts: int
    """Rows with a valid text."""
    digest: str
    """SHA-256 of the file's bytes, in hexadecimal."""
    problem: str | None
    """Problem of the first row without a valid text."""


@dataclass(frozen=True)
class TextSource:
    """A file of texts; `column` names the field or column that they are in.

    `delimiter` separates the cells of a table; None: detected.
    """

    file: Path
    column: str | None = None
    delimiter: str | None = None

    def rows(self) -> Iterator[Text]:
        """Yield every row; raises InvalidRequest if the file cannot be read."""
        kind = self.file.suffix.lower()
        if kind not in _READERS:
            raise InvalidRequest(f"{self.file}: the file must be one of {', '.join(_READERS)}")
        if self.column and kind == ".txt":
            raise InvalidRequest(f"{self.file} has no columns: leave --column out")
        if self.delimiter is not None and kind not in USUAL:
            raise InvalidRequest(f"{self.file} is not a delimited table: leave --delimiter out")
        try:
            yield from _READERS[kind](self)
        except OSError as error:
            raise InvalidRequest(f"cannot read {self.file}: {error.strerror}") from error

    def survey(self) -> FileSurvey:
        """Read the whole file once; raises InvalidRequest if no row has a valid text."""
        rows = texts = 0
        problem = None
        for row in self.rows():
            rows += 1
            texts += row.problem is None
            problem = problem or row.problem
        if rows and not texts:
            raise InvalidRequest(f"no row of {self.file} has a text. The first: {problem}")
        with self.file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return FileSurvey(rows, texts, digest, problem)


def rows_in(lines: Iterable[str], column: str | None = None) -> Iterator[Text]:
    """Yield the row of each line: a JSON object, if it begins like one, else a text.

    Undecoded bytes are surrogates. `column` names the field of an object that has the text.
    """
    for line in lines:
        is_object = line.lstrip().startswith("{")
        yield _broken(line) or (_json_line(line, column) if is_object else _checked(line))


def _lines(source: TextSource) -> Iterator[Text]:
    for line in lines_of(source.file):
        yield _broken(line) or _checked(line)


def _json_lines(source: TextSource) -> Iterator[Text]:
    for line in lines_of(source.file):
        yield _broken(line) or _json_line(line, source.column)


def _broken(line: str) -> Text | None:
    at = undecoded_at(line)
    return None if at is None else Text("", None, f"it is not UTF-8 at byte {at}")


def _json_line(line: str, column: str | None) -> Text:
    try:
        row = from_json(line)
    except ValueError as error:
        return Text("", None, f"it is not JSON: {error}")
    if isinstance(row, str) and column is None:
        return _checked(row)
    if not isinstance(row, dict):
        return Text("", None, "it is not a JSON object")
    names = _USUAL if column is None else (column,)
    name = next((name for name in names if name in row), None)
    if name is None:
        wanted = " or ".join(f'"{name}"' for name in names)
        return Text("", row.get(_ID), f"it has no field {wanted}: name it with --field")
    if line.count(f'"{name}"') > 1 and _has_twice(line, name):
        return Text("", row.get(_ID), f'it has the field "{name}" twice')
    return _checked(row[name], row.get(_ID))


def _has_twice(line: str, name: str) -> bool:
    """Whether the outermost object has two fields of that name."""
    pairs: list[tuple[str, Any]] = []

    def keep_last(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs[:] = found  # called for the outermost object last
        return {}

    json.loads(line, object_pairs_hook=keep_last)
    return sum(key == name for key, _ in pairs) > 1


def _checked(value: Any, id: Any = None) -> Text:
    if not isinstance(value, str):
        return Text("", id, f"it is not a string but {value!r:.40}")
    if not value.strip():
        return Text("", id, "it is empty")
    return Text(value, id)


def _separated(source: TextSource) -> Iterator[Text]:
    table = rows_of(source.file, source.delimiter)
    names = next(table)
    if len(names) == 1 and source.column is None:
        check_single_column(source.file, names[0], (_ID, *_USUAL))
    at, id_at = _places(source.file, names, source.column)
    for cells in table:
        yield _cell(cells, len(names), at, id_at)


def _places(file: Path, names: Sequence[str], column: str | None) -> tuple[int, int | None]:
    """Indexes of the columns of texts and ids; None if there are no ids."""
    name = _column_of(file, names, column)
    return names.index(name), names.index(_ID) if _ID in names and name != _ID else None


def _column_of(file: Path, names: Sequence[str], column: str | None) -> str:
    if column is not None and column in names:
        return column
    usual = [name for name in _USUAL if name in names]
    if column is None and (usual or len(names) == 1):
        return usual[0] if usual else names[0]
    which = "name the column of the texts" if column is None else f"no column {column!r}"
    raise InvalidRequest(f"{file}: {which}; --column can be: {', '.join(names) or 'none'}")


def _cell(cells: Sequence[str], width: int, at: int, id_at: int | None) -> Text:
    id = None
    if id_at is not None and id_at < len(cells):
        id = cells[id_at].encode(errors="replace").decode()
    if at >= len(cells):
        return Text("", id, f"it has {len(cells)} cells, and the text is number {at + 1}")
    if len(cells) > width:
        return Text(
            "", id, f"it has {len(cells)} cells, and the header {width}: quote a text with "
            "the delimiter",
        )  # fmt: skip
    if undecoded_at(cells[at]) is not None:
        return Text("", id, "it is not UTF-8")
    return _checked(cells[at], id)


def _parquet(source: TextSource) -> Iterator[Text]:
    file = source.file
    names = column_names(file)
    check_names(file, names)
    at, id_at = _places(file, names, source.column)
    if id_at is None:
        yield from (_checked(value) for (value,) in parquet_rows(file, (names[at],)))
    else:
        for value, id in parquet_rows(file, (names[at], names[id_at])):
            yield _checked(value, id)


_READERS: Final[dict[str, Callable[[TextSource], Iterator[Text]]]] = {
    ".txt": _lines,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _separated,
    ".tsv": _separated,
    ".parquet": _parquet,
}
