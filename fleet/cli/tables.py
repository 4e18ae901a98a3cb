"""Rows as aligned text: fitted to a terminal, or whole, a row a line, for a pipe. Pure.

A person sees ids as short as they can be told apart, and long texts cut with `…`; whoever reads a
pipe gets every cell whole, in one line a row.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, chop_cells, set_cell_size

_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def span(seconds: float) -> str:
    """A length of time in its largest unit, as in `45s`, `3m`, `2h`, `12d`."""
    whole = int(max(seconds, 0))
    unit, size = next(((u, s) for u, s in _UNITS if whole >= s), ("s", 1))
    return f"{whole // size}{unit}"


def ago(at: float, now: float) -> str:
    """A point in time (unix seconds) seen from another, as in `3m ago` or `in 12d`."""
    return f"{span(now - at)} ago" if at <= now else f"in {span(at - now)}"


_GAP: Final = "  "
_SHORTEST_ID: Final = 8
_LEAST_WIDTH: Final = 6
"""Of a column that gives way to others."""
_READABLE_WIDTH: Final = 28
"""Of a column that goes on below: others are cut before it is narrower."""


class Id(str):
    """A cell that names a thing; any beginning of it that no other has names it, too."""

    __slots__ = ()


class Whole(str):
    """A column whose cells go on in the next line of a terminal rather than being cut."""

    __slots__ = ()


@dataclass(frozen=True)
class Ago:
    """A cell that says how long ago something was, or in how much time it will be."""

    at: float | None
    """Unix seconds; None is never."""


def lines(
    columns: Sequence[str], rows: Iterable[Sequence[object]], now: float, width: int | None = None
) -> list[str]:
    """The header, then the rows; within `width` columns, or as wide as they are for None."""
    found = [list(row) for row in rows]
    turned = [[row[number] for row in found] for number in range(len(columns))]
    sides = [bool(found) and all(map(_is_number, cells)) for cells in turned]
    if width is None:
        said = [[_text(value, now) for value in cells] for cells in turned]
    else:
        said = [_short(cells, now, is_whole=isinstance(name, Whole))
                for name, cells in zip(columns, turned, strict=True)]  # fmt: skip
    widths = [
        max(cell_len(part) for text in (name, *texts) for part in text.split("\n"))
        for name, texts in zip(columns, said, strict=True)
    ]
    if width is not None:
        stiff = [s or any(isinstance(v, Id) for v in c) for s, c in zip(sides, turned, strict=True)]
        _fit(widths, columns, stiff, width - len(_GAP) * (len(columns) - 1))
    made = [_line(list(columns), widths, sides)]
    for texts in zip(*said, strict=True):
        made += _row(texts, columns, widths, sides)
    return made


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _text(value: object, now: float) -> str:
    """A cell in one line."""
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
            return " ".join(part for part in str(value).split() if part) or "-"


def _short(cells: Sequence[object], now: float, *, is_whole: bool) -> list[str]:
    """A column for a terminal."""
    ids = {cell for cell in cells if isinstance(cell, Id)}
    length = _id_length(ids)
    return [
        cell[:length]
        if isinstance(cell, Id)
        else str(cell)
        if is_whole and isinstance(cell, str) and cell
        else _text(cell, now)
        for cell in cells
    ]


def _id_length(ids: Iterable[str]) -> int:
    """Characters with which each of these is another, some digits behind `batch_` at least."""
    known = set(ids)
    length = max((each.find("_") + 1 for each in known), default=0) + _SHORTEST_ID
    while len({each[:length] for each in known}) < len(known):
        length += 1
    return length


def _fit(widths: list[int], columns: Sequence[str], stiff: Sequence[bool], room: int) -> None:
    """Take width from columns that go on below (to a readable width), then cut ones, then both."""
    loose = [number for number in range(len(columns)) if not stiff[number]]
    wrapped = [number for number in loose if isinstance(columns[number], Whole)]
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
    texts: Sequence[str], columns: Sequence[str], widths: Sequence[int], sides: Sequence[bool]
) -> list[str]:
    parts = [
        _folded(text, width) if isinstance(name, Whole) else [_cut(text, width)]
        for text, name, width in zip(texts, columns, widths, strict=True)
    ]
    height = max(map(len, parts))
    return [
        _line([each[n] if n < len(each) else "" for each in parts], widths, sides)
        for n in range(height)
    ]


def _folded(text: str, width: int) -> list[str]:
    found: list[str] = []
    for part in text.split("\n"):
        for piece in textwrap.wrap(part, width, break_on_hyphens=False) or [""]:
            found += chop_cells(piece, width) or [""]
    return found


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


def _line(texts: Sequence[str], widths: Sequence[int], sides: Sequence[bool]) -> str:
    padded = []
    for text, width, is_right in zip(texts, widths, sides, strict=True):
        shown = _cut(text, width)
        space = " " * (width - cell_len(shown))
        padded.append(space + shown if is_right else shown + space)
    return _GAP.join(padded).rstrip()
