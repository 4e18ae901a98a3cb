"""The targets: what is measured, how much of it is wanted, and where it stood before."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.figures import Figures

Bound = float | Callable[[Figures], float | None]
OTHERS: Final = (
    "direct", "vllm-router", "LiteLLM", "native", "relay", "Celery", "Celery, prefork", "taskiq",
    "arq", "dramatiq",
)  # fmt: skip
"""Beside whom the fleet is measured, in the order of columns."""


@dataclass(frozen=True)
class Row:
    """One figure with its target."""

    title: str
    name: str
    bound: Bound
    unit: str = ""
    digits: int = 0
    at_least: bool = False
    before: str = ""
    held: int = 0
    """Streams that must be there, or their gaps say nothing."""

    def target(self, figures: Figures) -> str:
        """The bound, as it is read."""
        bound = self.limit(figures)
        sign = "≥" if self.at_least else "≤"
        return "-" if bound is None else f"{sign} {bound:,.{self.digits}f}{self.unit}"

    def limit(self, figures: Figures) -> float | None:
        """The bound; None where it depends on what was not measured."""
        return self.bound(figures) if callable(self.bound) else self.bound

    def verdict(self, figures: Figures) -> str:
        """Met, not met or not measured."""
        value, bound = figures.median(self.name), self.limit(figures)
        if self.bound is _no_target:
            return ""
        if value is None or bound is None:
            return "not measured"
        there = figures.median("fleet/held_streams/2000") or 0
        if there < self.held:
            return "**not met**"
        is_met = value >= bound if self.at_least else value <= bound
        return "met" if is_met else "**not met**"


def _text_and_a_bit(chunks: int) -> Bound:
    def bound(figures: Figures) -> float | None:
        text = figures.median(f"fleet/text_kb/{chunks}")
        return None if text is None else 2.5 + 1.2 * text

    return bound


def _no_target(_: Figures) -> None:
    """For a figure that is only told."""


ROWS: Final = (
    Row("CPU a chat of 16 chunks, all processes of the fleet, 16 callers", "fleet/cpu_ms/16",
        2.2, " ms", 2, before="10.5 to 12 ms"),
    Row("chats of 16 chunks a second, 16 callers", "fleet/chats_per_s/16",
        500, at_least=True, before="169"),
    Row("chats of 16 chunks a second, 64 callers", "fleet/chats_per_s/64",
        550, at_least=True, before="148"),
    Row("Redis's own time a chat of 16 chunks", "fleet/redis_ms/16", 0.25, " ms", 2,
        before="1.0 ms"),
    Row("scripts at Redis a chat", "fleet/scripts/16", 5, "", 1, before="9.4"),
    Row("added to the first chunk, 1 stream", "fleet/added_ms/1", 4, " ms", 1, before="12 ms"),
    Row("added to the first chunk, 16 streams started at once", "fleet/added_ms/16", 20, " ms", 1,
        before="86 ms"),
    Row("added to the first chunk, 64 streams started at once", "fleet/added_ms/64", 55, " ms", 1,
        before="318 ms"),
    Row("added to the first chunk, 256 streams started at once", "fleet/added_ms/256", 300, " ms",
        1, before="1,600 ms"),
    Row("chunks a second of direct, 64 streams of 50 a second", "fleet/of_direct/64", 0.96, "", 2,
        at_least=True, before="0.79"),
    Row("chunks a second of direct, 256 streams of 50 a second", "fleet/of_direct/256", 0.70, "",
        2, at_least=True, before="0.35"),
    Row("streams of these bursts with a fault, most of a round", "fleet/start_faults/256", 0),
    Row("unpaced backend, 64 streams: tokens a second", "fleet/tokens_per_s/64", 20_000,
        at_least=True),
    Row("unpaced backend, 64 streams: streams with a fault", "fleet/unpaced_faults/64", 0),
    Row("unpaced backend, 64 streams: growth of worker or shim, second half over first",
        "fleet/unpaced_growth_mib/64", 8, " MiB", 1),
    Row("embed requests of 8 texts a second, 16 callers", "fleet/embeds_per_s/16", 500,
        at_least=True, before="130"),
    Row("enqueue while 1,000 streams run, p50", "fleet/enqueue_p50_ms/1000", 1.5, " ms", 2,
        before="3 ms"),
    Row("enqueue while 1,000 streams run, p99", "fleet/enqueue_p99_ms/1000", 10, " ms", 1),
    Row("empty jobs a second end to end, over HTTP, to bare Celery's no-op",
        "fleet/empty_of_celery", 1.5, "", 2, at_least=True, before="232 jobs/s"),
    Row("streams held at 20 chunks a second, of 2,000", "fleet/held_streams/2000", 2000,
        at_least=True, before="1,000"),
    Row("gap between chunks of those that are held, p99", "fleet/gap_ms/2000", 150, " ms",
        held=2000),
    Row("the same while 500 more jobs start", "fleet/gap_ms while jobs start/2000", 150, " ms",
        held=2000),
    Row("faults among these streams and jobs", "fleet/held_faults/2000", 0),
    Row("an ended job of 16 chunks in Redis", "fleet/ended_kb/16", _no_target, " KB", 2,
        before="7.2 KB"),
    Row("an ended job of 500 chunks in Redis", "fleet/ended_kb/500", _no_target, " KB", 2,
        before="52 KB"),
    Row("an ended job of 16 chunks in Redis, once compacted", "fleet/compacted_kb/16",
        _text_and_a_bit(16), " KB", 2),
    Row("an ended job of 500 chunks in Redis, once compacted", "fleet/compacted_kb/500",
        _text_and_a_bit(500), " KB", 2),
    Row("10 times the waiting jobs: cost of a job", "fleet/growth/waiting jobs", 1.3, "", 2),
    Row("10 times the tenants: cost of a job", "fleet/growth/tenants", 1.3, "", 2),
    Row("10 times the models: cost of a job", "fleet/growth/models", 1.3, "", 2),
    Row("10 times the followers: cost of a delivered chunk", "fleet/growth/followers", 1.3, "", 2),
)  # fmt: skip
