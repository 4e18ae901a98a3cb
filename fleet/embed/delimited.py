"""Reads delimited tables (CSV, TSV): detects the delimiter, yields the header and the rows.

A delimiter fits if it splits the header into two columns or more, and every sampled row into as
many. If several fit, the default of the file's suffix is taken; if none fits, one that splits the
header. A file that stays ambiguous is rejected, and so is a header of one column that seems to
have another delimiter.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from contract.errors import InvalidRequest
from fleet.embed.encoding import SAMPLE_BYTES, Encoding, encoding_of, not_decoded

USUAL: Final = {".csv": ",", ".tsv": "\t"}
_CANDIDATES: Final = (",", ";", "\t", "|")
_NAMES: Final = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_LONGEST_FIELD: Final = 2**31 - 1
_ROWS: Final = 100
_QUOTED: Final = re.compile(r'"[^"]*"')
_BETWEEN_NAMES: Final = re.compile(r"""(?<=\w)[ ]*([^\w .'?!()-])[^\w]*(?=\w)""")
"""A sign between two words, but not one that names of columns often have."""
_REMEDY: Final = (
    "double a quote inside a quoted text and close each one, or name another delimiter "
    "with --delimiter"
)


def rows_of(file: Path, delimiter: str | None = None) -> Iterator[list[str]]:
    """Yield the header, then every row that is not empty; detects the delimiter if it is None.

    Bytes that are not UTF-8 become surrogates. Raises OSError, and InvalidRequest for a header
    with two columns of one name, an unclosed quote, or an ambiguous delimiter.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    how = encoding_of(file)
    delimiter = delimiter or _detected(file, how)
    with file.open(encoding=how.name, errors=how.errors, newline="") as opened:
        # Strict: else an unclosed quote would make one cell of the rest of the file.
        table = csv.reader(opened, delimiter=delimiter, strict=True)
        try:
            names = next(table, [])
            check_names(file, names)
            yield names
            yield from filter(None, table)
        except csv.Error as error:
            raise InvalidRequest(f"{file}, line {table.line_num}: {error}: {_REMEDY}") from error
        except UnicodeDecodeError as error:
            raise not_decoded(file, how) from error


def check_names(file: Path, names: Sequence[str]) -> None:
    """Raises InvalidRequest if two columns have one name; columns may have none."""
    repeated = dict.fromkeys(name for name in names if name and names.count(name) > 1)
    if repeated:
        raise InvalidRequest(
            f"{file}: more than one column is named {', '.join(map(repr, repeated))}: rename them"
        )


def check_single_column(file: Path, name: str, known: Sequence[str]) -> None:
    """Raises InvalidRequest if the header of one column seems to have a delimiter.

    That is a sign between words which is not quoted, or two of the `known` names in it.
    """
    how = encoding_of(file)
    with file.open(encoding=how.name, errors=how.errors, newline="") as opened:
        header = _QUOTED.sub("quoted", opened.readline().strip("\r\n"))
    sign = _BETWEEN_NAMES.search(header)
    words = re.split(r"[ .-]+", header.strip())
    if sign or sum(word in known for word in words) > 1:
        seen = f" ({sign[1]!r} may be its delimiter)" if sign else ""
        raise InvalidRequest(
            f"{file}, line 1: the header is one column, {name!r}{seen}: name the delimiter with "
            "--delimiter, or the column with --column"
        )


def _detected(file: Path, how: Encoding) -> str:
    """The delimiter of a file; raises InvalidRequest if it is ambiguous."""
    usual = USUAL[file.suffix.lower()]
    tables = {each: _sampled(file, how, each) for each in _CANDIDATES}
    splits = [each for each, rows in tables.items() if rows and len(rows[0] or ()) > 1]
    fits = [each for each in splits if len({row and len(row) for row in tables[each]}) == 1]
    for found in (fits, splits):
        if usual in found:
            return usual
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidRequest(
                f"{file}: its delimiter may be {' or '.join(_NAMES[d] for d in found)}: "
                "name it with --delimiter"
            )
    return usual


def _sampled(file: Path, how: Encoding, delimiter: str) -> list[list[str] | None]:
    """The first rows, split by this delimiter; None follows those that can be parsed."""
    with file.open("rb") as opened:
        sample = opened.read(SAMPLE_BYTES + 1)
    is_whole = len(sample) <= SAMPLE_BYTES
    text = sample.decode(how.name, errors="replace" if how.is_utf8 else "ignore")
    rows: list[list[str] | None] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=is_whole):
            if row:
                rows.append(row)
            if len(rows) > _ROWS:
                return rows
    except csv.Error:
        return [*rows, None]
    return rows if is_whole else rows[:-1]
