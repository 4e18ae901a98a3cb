"""Curves as SVG, written by hand: legible on a light and on a dark page, and in a README."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.figures import Figures, Name

Point = tuple[float, float]
WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 56, 50
COLOURS: Final = ("#d1495b", "#2e86ab", "#e8871e", "#5b8c3a", "#8a5ab5", "#7a7a7a")
"""Each has enough contrast to white and to a dark page."""
STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#444}.title{font-size:14px;font-weight:600}"
    ".grid{stroke:#8884;stroke-width:1}.curve{fill:none;stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#ccc}}"
)


@dataclass(frozen=True)
class Curve:
    """A picture: for each line who and which figure, whose levels are the x values."""

    title: str
    x: str
    y: str
    lines: Mapping[str, str]
    """The label of a line, and `target/figure`."""
    is_log: bool = True


CURVES: Final = {
    "latency": Curve(
        "Until the first chunk of streams that start at once (the backend itself waits 50 ms)",
        "streams",
        "milliseconds, p50",
        {
            "direct": "direct/first_ms",
            "the fleet": "fleet/first_ms",
            "vllm-router": "vllm-router/first_ms",
            "LiteLLM": "LiteLLM/first_ms",
        },
    ),
    "jobs": Curve(
        "Chats of 16 chunks a second",
        "callers",
        "chats a second",
        {
            "direct": "direct/chats_per_s",
            "the fleet": "fleet/chats_per_s",
            "vllm-router": "vllm-router/chats_per_s",
            "LiteLLM": "LiteLLM/chats_per_s",
        },
    ),
    "memory": Curve(
        "Kept in Redis of ended jobs",
        "ended jobs",
        "KB",
        {
            "16 chunks": "fleet/kept_kb of 16 chunks",
            "16, compacted": "fleet/compact_kb of 16 chunks",
            "500 chunks": "fleet/kept_kb of 500 chunks",
            "500, compacted": "fleet/compact_kb of 500 chunks",
        },
        is_log=False,
    ),
}


def points(figures: Figures, line: str) -> list[Point]:
    """The medians of a figure over its levels."""
    names = (name for name in figures.names() if f"{name.target}/{name.figure}" == line)
    found = ((float(n.level), figures.median("/".join(n))) for n in names if _is_number(n))
    return sorted((x, y) for x, y in found if y is not None and y > 0)


def _is_number(name: Name) -> bool:
    return name.level.replace(".", "", 1).isdigit()


class Axis:
    """From values to pixels."""

    def __init__(self, values: Sequence[float], first: float, last: float, *, is_log: bool) -> None:
        """All values fit; a logarithmic axis ends at powers of ten, the other begins at zero."""
        self._first, self._last, self._is_log = first, last, is_log
        low, high = min(values), max(values)
        if is_log:
            self._low = float(math.floor(math.log10(low)))
            self._high = float(math.ceil(math.log10(high)))
            self._high += self._high == self._low
        else:
            step = 10 ** math.floor(math.log10(high or 1))
            self._low, self._high = 0.0, math.ceil(high / step) * step

    def at(self, value: float) -> float:
        """The pixel of a value."""
        place = math.log10(value) if self._is_log else value
        share = (place - self._low) / (self._high - self._low)
        return round(self._first + share * (self._last - self._first), 1)

    def ticks(self) -> list[float]:
        """Values for the lines of the grid."""
        if self._is_log:
            return [10.0**power for power in range(int(self._low), int(self._high) + 1)]
        return [self._high * part / 4 for part in range(5)]


def drawn(curve: Curve, figures: Figures) -> str:
    """The picture; it says so if nothing was measured."""
    lines = {label: points(figures, line) for label, line in curve.lines.items()}
    lines = {label: found for label, found in lines.items() if found}
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{curve.title}</title><style>{STYLE}</style>",
        _text(LEFT, 20, curve.title, "title"),
    ]
    everything = [point for found in lines.values() for point in found]
    if everything:
        xs = [x for x, _ in everything]
        across = Axis(xs, LEFT, WIDTH - RIGHT, is_log=curve.is_log)
        up = Axis([y for _, y in everything], HEIGHT - BOTTOM, TOP, is_log=curve.is_log)
        levels = sorted(set(xs)) if len(set(xs)) <= 8 else across.ticks()
        out += _grid(across, up, levels, curve)
        out += _lines(across, up, lines)
    else:
        out.append(_text(LEFT, HEIGHT // 2, "not measured"))
    return "\n".join([*out, "</svg>", ""])


def _grid(across: Axis, up: Axis, levels: Sequence[float], curve: Curve) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    out = []
    for tick in up.ticks():
        y = up.at(tick)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        out.append(_text(LEFT - 6, y + 4, f"{tick:,g}", anchor="end"))
    out += [_text(across.at(x), bottom + 18, f"{x:,g}", anchor="middle") for x in levels]
    out.append(_text((LEFT + right) / 2, bottom + 38, curve.x, anchor="middle"))
    out.append(_text(LEFT - 6, TOP - 12, curve.y, anchor="start"))
    return out


def _lines(across: Axis, up: Axis, lines: Mapping[str, list[Point]]) -> list[str]:
    out = []
    labels: list[float] = []
    ends = sorted(lines, key=lambda label: up.at(lines[label][-1][1]))
    for label in ends:
        y = max(up.at(lines[label][-1][1]) + 4, labels[-1] + 16 if labels else 0)
        labels.append(y)
        colour = COLOURS[list(lines).index(label) % len(COLOURS)]
        pixels = [(across.at(x), up.at(y)) for x, y in lines[label]]
        path = " ".join(f"{x},{y}" for x, y in pixels)
        out.append(f'<polyline class="curve" stroke="{colour}" points="{path}"/>')
        out += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in pixels]
        out.append(f'<text x="{pixels[-1][0] + 8}" y="{y}" style="fill:{colour}">{label}</text>')
    return out


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> str:
    kind = f' class="{css}"' if css else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{kind}>{text}</text>'
