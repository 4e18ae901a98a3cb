"""The table that a soak prints: what was done to the fleet, and what was seen of it."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median

from chaos.callers import Tale
from chaos.cast import Cast
from chaos.schedule import Fault
from chaos.verdict import Job
from contract.events import Queued

_NUMBER = re.compile(r"\d+(\.\d+)?")


def table(cast: Cast, faults: Sequence[Fault], jobs: dict[str, Job], tales: Sequence[Tale]) -> str:
    """Markdown, so that it can go into docs/reliability.md as it is."""
    done = Counter(fault.kind for fault in faults)
    lines = ["| fault | times |", "|---|---:|"]
    lines += [f"| {kind} | {count} |" for kind, count in sorted(done.items())]
    lines += ["", "| seen | count | p50 | max |", "|---|---:|---:|---:|"]
    lines += [_row(name, values) for name, values in _figures(cast, jobs, tales).items()]
    lines += ["", f"{sum(job.is_compacted for job in jobs.values())} of {len(jobs)} jobs compacted"]
    lines += ["", "| errand | jobs | ended as |", "|---|---:|---|"]
    lines += _ends(jobs, tales)
    lines += ["", "| process | lives | exit codes |", "|---|---:|---|"]
    for player in cast.players.values():
        codes = ", ".join(f"{code} x{n}" for code, n in sorted(Counter(player.ends).items()))
        lines.append(f"| {player.name} | {len(player.lives)} | {codes} |")
    return "\n".join(lines)


def _row(name: str, values: Sequence[float]) -> str:
    if not values:
        return f"| {name} | 0 | | |"
    return f"| {name} | {len(values)} | {median(values):.2f} s | {max(values):.2f} s |"


def _figures(cast: Cast, jobs: dict[str, Job], tales: Sequence[Tale]) -> dict[str, Sequence[float]]:
    views = [view for tale in tales for view in tale.views]
    comebacks = [view.longest_silence_s for view in views if view.comebacks > 1]
    handovers: dict[str, list[float]] = defaultdict(list)
    for job in jobs.values():
        for reason, seconds in _handovers(job):
            handovers[f"handed over: {reason}, until begun again"].append(seconds)
    return {
        "enqueue answered": [tale.accepted_after_s for tale in tales],
        "followers that came back: longest silence": comebacks,
        "cancel answered until the backend's stream closed": list(_closings(cast, tales)),
        **{name: handovers[name] for name in sorted(handovers)},
    }


def _closings(cast: Cast, tales: Iterable[Tale]) -> Iterable[float]:
    for tale in tales:
        for streams in cast.streams:
            closed_at = streams.closed_at.get(tale.errand.model)
            if tale.cancelled_at is not None and closed_at is not None:
                yield max(0.0, closed_at - tale.cancelled_at)


def _handovers(job: Job) -> Iterable[tuple[str, float]]:
    """Why each attempt came to an end, and the seconds from its last word to the next one's."""
    last_at, reason = 0.0, None
    for before, frame in pairwise(job.frames):
        event = frame.event
        if isinstance(event, Queued):
            last_at, reason = before.at, _NUMBER.sub("N", event.reason.partition(":")[0])
        elif frame.type == "started" and reason is not None:
            yield reason, frame.at - last_at
            reason = None


def _ends(jobs: dict[str, Job], tales: Sequence[Tale]) -> list[str]:
    ends: dict[str, Counter[str]] = defaultdict(Counter)
    for tale in tales:
        job = jobs.get(tale.job)
        ends[tale.errand.what][job.status if job else "lost"] += 1
    return [
        f"| {what} | {sum(count.values())} | "
        f"{', '.join(f'{status} {n}' for status, n in sorted(count.items()))} |"
        for what, count in sorted(ends.items())
    ]
