"""Tables as aligned text: fitted to a terminal, or complete for a pipe. Pure.

On a terminal ids are shortened as far as they stay unique, and long texts are cut with `…` or
wrapped. In a pipe every cell is complete and each row is one line.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, chop_cells, set_cell_size

from fleet.visible import visible

_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def span(seconds: float) -> str:
    """A duration in its largest unit, as in `45s`, `3m`, `2h`, `12d`."""
    rounded = int(max(seconds, 0))
    unit, size = next(((u, s) for u, s in _UNITS if rounded >= s), ("s", 1))
    return f"{rounded // size}{unit}"


def ago(at: float, now: float) -> str:
    """A time (unix seconds) relative to `now`, as in `3m ago` or `in 12d`."""
    return f"{span(now - at)} ago" if at <= now else f"in {span(at - now)}"


_GAP: Final = "  "
_SHORTEST_ID: Final = 8
_LEAST_WIDTH: Final = 6
"""Columns of text that a cut column keeps."""
_READABLE_WIDTH: Final = 28
"""Width down to which wrapped columns are narrowed before other columns are cut."""


class Id(str):
    """A cell with an id, which commands also accept as a unique prefix."""

    __slots__ = ()


class Wrapped(str):
    """The name of a column whose cells are wrapped on a terminal, not cut."""

    __slots__ = ()


@dataclass(frozen=True)
class Ago:
    """A cell with a time, shown relative to now."""

    at: float | None
    """Unix seconds; None: never."""


def lines(
    columns: Sequence[str], rows: Iterable[Sequence[object]], now: float, width: int | None = None
) -> list[str]:
    """The header line, then those of the rows; `width` is the terminal's, None: unlimited."""
    listed = [list(row) for row in rows]
    by_column = [[row[number] for row in listed] for number in range(len(columns))]
    is_right = [bool(listed) and all(map(_is_number, cells)) for cells in by_column]
    if width is None:
        shown = [[_text(value, now) for value in cells] for cells in by_column]
    else:
        # A line break in what names a row would begin another one.
        may_go_on = [
            number > 0 and isinstance(name, Wrapped) for number, name in enumerate(columns)
        ]
        shown = [
            _short(cells, now, is_wrapped=wrapped)
            for cells, wrapped in zip(by_column, may_go_on, strict=True)
        ]
    widths = [
        max(cell_len(part) for text in (name, *texts) for part in text.split("\n"))
        for name, texts in zip(columns, shown, strict=True)
    ]
    if width is not None:
        fixed = [
            right or any(isinstance(value, Id) for value in cells)
            for right, cells in zip(is_right, by_column, strict=True)
        ]
        _fit(widths, columns, fixed, width - len(_GAP) * (len(columns) - 1))
    found = [_line(list(columns), widths, is_right)]
    for texts in zip(*shown, strict=True):
        found += _row(texts, columns, widths, is_right)
    return found


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _text(value: object, now: float) -> str:
    """The text of a cell, on one line."""
    match value:
        case None | Ago(at=None):
            return "-"
        case Ago(at=float() | int() as at):
            return ago(at, now)
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.1f}"
        case _:
            return visible(" ".join(part for part in str(value).split() if part)) or "-"


def _short(cells: Sequence[object], now: float, *, is_wrapped: bool) -> list[str]:
    """The texts of a column for a terminal: ids shortened, line breaks kept if wrapped."""
    ids = {cell for cell in cells if isinstance(cell, Id)}
    length = _id_length(ids)
    return [
        visible(cell[:length])
        if isinstance(cell, Id)
        else visible(str(cell))
        if is_wrapped and isinstance(cell, str) and cell
        else _text(cell, now)
        for cell in cells
    ]


def _id_length(ids: Iterable[str]) -> int:
    """Length at which all prefixes differ, at least 8 digits after `batch_`."""
    known = set(ids)
    length = max((each.find("_") + 1 for each in known), default=0) + _SHORTEST_ID
    while len({each[:length] for each in known}) < len(known):
        length += 1
    return length


def _fit(widths: list[int], columns: Sequence[str], fixed: Sequence[bool], room: int) -> None:
    """Narrow wrapped columns to a readable width, then cut ones, then all that are not fixed."""
    loose = [number for number in range(len(columns)) if not fixed[number]]
    wrapped = [number for number in loose if isinstance(columns[number], Wrapped)]
    cut = [number for number in loose if number not in wrapped]
    for candidates, least in (
        (wrapped, _READABLE_WIDTH),
        (cut, _LEAST_WIDTH),
        (loose, _LEAST_WIDTH),
    ):
        while sum(widths) > room:
            widest = max(candidates, key=lambda number: widths[number], default=None)
            if widest is None or widths[widest] <= least:
                break
            widths[widest] -= 1


def _row(
    texts: Sequence[str], columns: Sequence[str], widths: Sequence[int], is_right: Sequence[bool]
) -> list[str]:
    parts = [
        _wrapped(text, width) if isinstance(name, Wrapped) else [_cut(text, width)]
        for text, name, width in zip(texts, columns, widths, strict=True)
    ]
    height = max(map(len, parts))
    return [
        _line([each[n] if n < len(each) else "" for each in parts], widths, is_right)
        for n in range(height)
    ]


def _wrapped(text: str, width: int) -> list[str]:
    found: list[str] = []
    for part in text.split("\n"):
        for piece in textwrap.wrap(part, width, break_on_hyphens=False) or [""]:
            found += chop_cells(piece, width) or [""]
    return found


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


def _line(texts: Sequence[str], widths: Sequence[int], is_right: Sequence[bool]) -> str:
    padded = []
    for text, width, right in zip(texts, widths, is_right, strict=True):
        shown = _cut(text, width)
        space = " " * (width - cell_len(shown))
        padded.append(space + shown if right else shown + space)
    return _GAP.join(padded).rstrip()
