"""bench/RESULTS.md: targets first, then everything that was measured, and three curves."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.figures import Figures, Name
from bench.reporting.curves import CURVES, drawn
from bench.reporting.rows import OTHERS, ROWS
from bench.reporting.run_record import Record
from bench.sections import sections

INTRODUCTION: Final = (
    "Written by `make bench` from `bench/results.json`; not edited by hand. Everything runs on"
    " one machine: load generator, backend (scripted), Redis, one worker, one shim, and the"
    " peers, each of which is measured in the same rounds. *Direct* is the backend without"
    " anything before it, which also shows what the load generator can do. Values are medians;"
    " in brackets are the least, the largest and the number of rounds. Requests go through"
    " `/v1/chat/completions` unless another way is named, with `?slots=2000`."
)
TITLES: Final = {
    "chats": "Chats of 16 chunks, not streamed, by callers that ask again at once",
    "starts": "Streams of 64 chunks, 50 a second, that start at once",
    "unpaced": "64 streams of a backend as fast as it can be",
    "embeds": "Embedding requests of 8 texts, 16 callers",
    "held": "Streams of 20 chunks a second that are held",
    "empty": "Jobs that do nothing, end to end, one worker",
    "memory": "Memory of ended jobs in Redis",
    "growth": "Ten times as many",
}
NOTES: Final = {
    "starts": "`added_ms` is how much later the first chunk comes than from the backend in the same"
    " round (p50); `added_cold_ms` after two seconds without any job; `of_direct` is the ratio of"
    " chunks a second. LiteLLM has fewer rounds, because its bursts take long.",
    "unpaced": "*Growth* compares the largest size of worker or shim in the second half of the run"
    " with that in the first. `us` is microseconds of CPU a token.",
    "held": "2,000 streams through one worker and one shim (`?slots=3000`) in two windows of 3 s:"
    " nothing else happens; 500 more streams start at once. A stream counts as held if it had its"
    " first chunk before the first window. Enqueues are measured by a process of their own, one"
    " after the other, while 1,000 streams speak; Celery's `apply_async` after the fleet's.",
    "empty": "*fleet*: chats of one word over HTTP (enqueue, then follow to the end, 64 callers),"
    " the backend called over HTTP as well. *relay*: enqueued and followed without HTTP, the model"
    " inside the worker. *Celery* runs on the fleet's asyncio pool with the fleet's settings. The"
    " task queues keep no result and nobody follows a task: the time ends with the last execution.",
    "memory": "Measured as `used_memory` without the buffers of connections and of the append-only"
    " file, for each job of a batch that ended. The target is 2.5 KB and 1.2 times the text.",
    "growth": "Jobs: Redis's own time in scripts plus the client's CPU for enqueue, claim, start"
    " and cancel, from 1,000 waiting jobs, 10 tenants, 10 models. Chunks: CPU of worker, shim and"
    " Redis a chunk that reaches a follower, from 1 follower a stream to 10.",
}
LITELLM_MS: Final = 15.0
"""CPU of a chat of 16 chunks from 16 callers, when the targets were set."""
Cells = Sequence[str]


def write(folder: Path, record: Record) -> None:
    """Write RESULTS.md and the curves anew; sections of other programs stay."""
    path = folder / "RESULTS.md"
    figures, kept = record.figures(), sections(path)
    for name, curve in CURVES.items():
        (folder / f"{name}.svg").write_text(drawn(curve, figures), encoding="utf-8")
    whole = "\n".join(_lines(record, figures)) + "\n"
    path.write_text(f"{whole}\n{kept}" if kept else whole, encoding="utf-8")


def _lines(record: Record, figures: Figures) -> Iterator[str]:
    yield from (
        "# What the fleet costs",
        "",
        INTRODUCTION,
        "",
    )
    yield from _runs(record)
    yield from ("", "## Targets", "")
    yield from _table(
        ("measure", "before", "target", "measured", "", "others in this run"),
        [
            (
                row.title, row.before or "-", row.target(figures),
                _value(figures, row.name, row.digits, row.unit), row.verdict(figures),
                _others(figures, row.name, row.digits, row.unit),
            )
            for row in ROWS
        ],
    )  # fmt: skip
    yield from ("", "*Before* is what the same measure was when these targets were set.", "")
    yield from _speed(figures)
    yield from (f"- Not measured: {who}, because {why}" for who, why in figures.missing.items())
    for name, curve in CURVES.items():
        yield from ("", f"![{curve.title}]({name}.svg)")
    for name in TITLES:
        if name in record.scenarios:
            yield from ("", f"## {TITLES[name]}", "")
            yield from ([NOTES[name], ""] if name in NOTES else [])
            yield from _details(record.scenarios[name]["values"])


def _speed(figures: Figures) -> Iterator[str]:
    """How fast this machine is beside that of the targets, by what another program takes."""
    here_ms = figures.median("LiteLLM/cpu_ms/16")
    if here_ms:
        yield (
            f"LiteLLM took {LITELLM_MS:g} ms of CPU a chat on the machine of these targets, and"
            f" takes {here_ms:.1f} ms here: times and rates are to be read by"
            f" {here_ms / LITELLM_MS:.2f}."
        )
        yield ""


def _runs(record: Record) -> Iterator[str]:
    origins = {
        name: tuple(str(each[key]) for key in ("at", "commit", "rounds", "load", "seconds"))
        for name, each in record.scenarios.items()
    }
    for lines in {tuple(each["machine"]) for each in record.scenarios.values()}:
        yield from (f"- {line}" for line in lines)
    head = ("scenario", "measured at", "commit", "rounds at most", "load before", "seconds")
    yield from ("", *_table(head, [(name, *each) for name, each in origins.items()]))


def _details(values: dict[str, list[float]]) -> Iterator[str]:
    figures = Figures(values)
    names = list(figures.names())
    targets = sorted(
        {name.target for name in names},
        key=lambda each: ("fleet", *OTHERS).index(each) if each in OTHERS else -1,
    )
    rows = dict.fromkeys((name.figure, name.level) for name in names)
    yield from _table(
        ("", "", *targets),
        [
            (figure, level, *(_spread(values.get(_key(each, figure, level))) for each in targets))
            for figure, level in rows
        ],
    )


def _key(target: str, figure: str, level: str) -> str:
    return f"{target}/{figure}/{level}" if level else f"{target}/{figure}"


def _value(figures: Figures, name: str, digits: int, unit: str) -> str:
    middle = figures.median(name)
    if middle is None:
        return "-"
    values = figures.values[name]
    spread = (
        f" ({min(values):,.{digits}f} to {max(values):,.{digits}f}, n = {len(values)})"
        if len(values) > 1
        else ""
    )
    return f"{middle:,.{digits}f}{unit}{spread}"


def _others(figures: Figures, name: str, digits: int, unit: str) -> str:
    of = Name.of(name)
    if of.figure == "empty_of_celery":
        of = Name("fleet", "empty_per_s", "")
    found = ((each, figures.median(_key(each, of.figure, of.level))) for each in OTHERS)
    return ", ".join(f"{who} {v:,.{digits}f}{unit}" for who, v in found if v is not None) or "-"


def _spread(values: list[float] | None) -> str:
    if not values:
        return ""
    middle = Figures({"": values}).median("") or 0.0
    least, most = min(values), max(values)
    return _short(middle) + (
        f" ({_short(least)} to {_short(most)}, {len(values)})" if least != most else ""
    )


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _table(head: Cells, rows: Iterable[Cells]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cells)} |"
