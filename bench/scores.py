"""What was measured of one target: lists with a value for each repetition, and their medians."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.measure import Burst


@dataclass
class Scores:
    """Everything that was measured of one target, a value a repetition."""

    first_ms: list[float] = field(default_factory=list)
    flat_out: dict[int, list[Burst]] = field(default_factory=dict)
    """By the number of streams."""
    paced: list[Burst] = field(default_factory=list)
    jobs_per_s: list[float] = field(default_factory=list)
    enqueue_p50_ms: list[float] = field(default_factory=list)
    enqueue_p99_ms: list[float] = field(default_factory=list)

    def chunks_per_s(self, streams: int) -> float | None:
        """Flat out; None where it was not measured."""
        return middle(self.flat_out.get(streams, ()), lambda burst: burst.chunks_per_s)

    @property
    def bursts(self) -> list[Burst]:
        """All whose streams were checked word by word."""
        return [*self.paced, *(burst for level in self.flat_out.values() for burst in level)]


def middle(bursts: Sequence[Burst], value: Callable[[Burst], float]) -> float | None:
    """The median of a number over repetitions; None where there is none."""
    return median(map(value, bursts)) if bursts else None


def by_process(
    bursts: Sequence[Burst], value: Callable[[Burst], dict[str, float]]
) -> dict[str, float]:
    """Medians over repetitions, for each process."""
    names = value(bursts[0]) if bursts else {}
    return {name: median(value(burst)[name] for burst in bursts) for name in names}
