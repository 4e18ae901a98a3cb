"""What was measured: values by name, a value a round, such as `fleet/chats_per_s/16`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import NamedTuple


class Name(NamedTuple):
    """Who was measured, what, and with how many (callers, streams, chunks)."""

    target: str
    figure: str
    level: str

    @classmethod
    def of(cls, text: str) -> "Name":
        """Parse `target/figure/level`; a level may be missing."""
        target, figure, *level = text.split("/")
        return cls(target, figure, "/".join(level))


@dataclass
class Figures:
    """The figures of a scenario."""

    values: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Who could not be measured, and why."""

    def add(self, name: str, value: float) -> None:
        """One more round."""
        self.values.setdefault(name, []).append(value)

    def median(self, name: str) -> float | None:
        """The median of the rounds; None if it was not measured."""
        found = self.values.get(name)
        return median(found) if found else None

    def names(self) -> Iterator[Name]:
        """All names, as they were added."""
        return map(Name.of, self.values)


def p50(values: list[float]) -> float:
    """The median."""
    return median(values)


def p99(values: list[float]) -> float:
    """One in a hundred is larger."""
    return quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]
