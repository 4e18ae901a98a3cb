"""bench/RESULTS.md: targets and ratios first, then the numbers they come from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.machine import described
from bench.measure import Burst
from bench.scores import Scores, by_process, middle
from bench.sections import sections

FLEET, DIRECT, PEER = "fleet", "direct", "LiteLLM"
Row = Sequence[str]
Table = tuple[Row, Sequence[Row]]


def write(path: Path, scores: Mapping[str, Scores], repetitions: int, load: float) -> None:
    """Write the file anew, but for the sections of others."""
    kept = sections(path)
    whole = "\n".join(_lines(scores, repetitions, load)) + "\n"
    path.write_text(f"{whole}\n{kept}" if kept else whole, encoding="utf-8")


def _lines(scores: Mapping[str, Scores], repetitions: int, load: float) -> Iterator[str]:
    yield "# What the fleet costs"
    yield ""
    yield (
        f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}; medians of {repetitions}. "
        "Everything runs on one machine: the scripted backend, Redis, one worker, one shim, and "
        "the load generator. *Direct* is the same chat without the fleet between."
    )
    yield ""
    yield (
        "A chunk is a word that the backend says. Where processors are full the writer joins "
        "neighbouring words of a stream into one event: nothing is lost then, but words come in "
        "gusts, which is what the gap between two packets tells."
    )
    yield ""
    yield from (f"- {line}" for line in described())
    yield f"- the machine's load when it began: {load:.1f}"
    for title, table in (
        ("Targets", _targets(scores)),
        ("Ratios", _ratios(scores)),
        ("Chunks a second, as fast as can be", _flat_out(scores)),
        ("1,000 streams of 20 words a second", _paced(scores)),
        ("Microseconds of processor time a chunk", _cpu(scores)),
        ("Kilobytes a stream", _memory(scores)),
        ("Jobs and first words", _jobs(scores)),
    ):
        yield from ("", f"## {title}", "")
        yield from _table(*table)


def _targets(scores: Mapping[str, Scores]) -> Table:
    fleet, direct = scores[FLEET], scores[DIRECT]
    faults = [fault for burst in fleet.paced for fault in burst.faults]
    streams = sum(burst.load.streams for burst in fleet.paced)
    pace = _pace(fleet) / _pace(direct) if _pace(direct) else 0.0
    added = median(fleet.first_ms) - median(direct.first_ms)
    rows = [
        (
            "1,000 streams of 20 words a second through one worker and one shim, nothing lost",
            f"{len(faults)} of {streams:,} streams with a fault, {pace:.0%} of the direct pace",
            _verdict(not faults and pace >= 0.95),
        ),
        (
            "under 10 ms more to the first word, at one stream",
            f"{added:.1f} ms",
            _verdict(added < 10),
        ),
    ]
    ratio = (
        _ratio(fleet.chunks_per_s(64), scores[PEER].chunks_per_s(64)) if PEER in scores else None
    )
    rows.append(
        (
            "at least 5 times LiteLLM's chunks a second, at 64 streams",
            f"{ratio:.1f} times" if ratio else "LiteLLM was not measured: `make bench-peers`",
            _verdict(ratio >= 5) if ratio else "not known",
        )
    )
    return ("target", "measured", ""), rows


def _ratios(scores: Mapping[str, Scores]) -> Table:
    others = [name for name in (DIRECT, PEER) if name in scores]
    fleet = scores[FLEET]
    rows: list[Row] = [
        (
            f"chunks/s, {streams:,} streams",
            *(_times(fleet.chunks_per_s(streams), scores[o].chunks_per_s(streams)) for o in others),
        )
        for streams in fleet.flat_out
    ]
    rows += [
        (
            "jobs/s",
            *(_times(_median(fleet.jobs_per_s), _median(scores[o].jobs_per_s)) for o in others),
        ),
        (
            "time to the first word",
            *(_times(_median(fleet.first_ms), _median(scores[o].first_ms)) for o in others),
        ),
    ]
    return ("the fleet to", *others), rows


def _flat_out(scores: Mapping[str, Scores]) -> Table:
    rows = [
        (f"{streams:,}", *(_number(each.chunks_per_s(streams)) for each in scores.values()))
        for streams in scores[FLEET].flat_out
    ]
    return ("streams", *scores), rows


def _paced(scores: Mapping[str, Scores]) -> Table:
    rows = [
        (
            name,
            f"{_pace(each):.1f}",
            _number(middle(each.paced, lambda burst: burst.gap_ms)),
            _number(middle(each.paced, lambda burst: burst.seconds), 1),
            _checked(each.bursts, lambda burst: len(burst.faults)),
            _checked(each.bursts, lambda burst: burst.resets),
        )
        for name, each in scores.items()
        if each.paced
    ]
    return (
        "",
        "words a second and stream, while all run",
        "gap between two packets of a stream, p99, ms",
        "seconds in all, with the start of 1,000 jobs",
        "streams with a fault, of all that were checked",
        "streams begun anew, of all",
    ), rows


def _cpu(scores: Mapping[str, Scores]) -> Table:
    columns = {
        "1,000 paced": scores[FLEET].paced,
        **{f"{n:,} flat out": bursts for n, bursts in scores[FLEET].flat_out.items() if n >= 64},
    }
    tables = {title: by_process(bursts, lambda b: b.cpu_us) for title, bursts in columns.items()}
    names = next(iter(tables.values()))
    rows = [(name, *(_number(table[name], 1) for table in tables.values())) for name in names]
    if PEER in scores and (bursts := scores[PEER].flat_out.get(64)):
        peer = by_process(bursts, lambda burst: burst.cpu_us)["litellm"]
        blank = ["" for _ in tables]
        blank[1] = _number(peer, 1)
        rows.append(("LiteLLM, instead of the first three", *blank))
    return ("process", *tables), rows


def _memory(scores: Mapping[str, Scores]) -> Table:
    grown = by_process(scores[FLEET].paced, lambda burst: burst.stream_kb)
    return ("process", "of 1,000 paced"), [(name, _number(kb, 1)) for name, kb in grown.items()]


def _jobs(scores: Mapping[str, Scores]) -> Table:
    def row(title: str, values: Callable[[Scores], Sequence[float]], digits: int) -> Row:
        return (title, *(_number(_median(values(each)), digits) for each in scores.values()))

    rows = [
        row("jobs/s, 64 at once", lambda each: each.jobs_per_s, 0),
        row("ms to the first word, p50, one stream", lambda each: each.first_ms, 2),
        row("ms to enqueue, p50", lambda each: each.enqueue_p50_ms, 2),
        row("ms to enqueue, p99", lambda each: each.enqueue_p99_ms, 2),
    ]
    return ("", *scores), rows


def _pace(scores: Scores) -> float:
    return middle(scores.paced, lambda burst: burst.pace) or 0.0


def _checked(bursts: Sequence[Burst], count: Callable[[Burst], int]) -> str:
    return f"{sum(map(count, bursts))} of {sum(burst.load.streams for burst in bursts):,}"


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours and theirs else None


def _times(ours: float | None, theirs: float | None) -> str:
    ratio = _ratio(ours, theirs)
    return "-" if ratio is None else f"{ratio:.3g}"


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _verdict(is_reached: bool) -> str:  # noqa: FBT001 - its only argument
    return "reached" if is_reached else "**not reached**"


def _table(head: Row, rows: Sequence[Row]) -> Iterator[str]:
    for cells in (head, ["---", *("---:" for _ in head[1:])], *rows):
        yield f"| {' | '.join(cells)} |"
