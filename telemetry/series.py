"""The numbers behind the metrics of a process: counted on its loop, without locks.

prometheus-client's own counters take a lock and walk their labels at each call, which is ten times
the cost (bench/metrics_cost.py), and cannot be subtracted from each other; it is used for
everything that leaves the process.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client import Metric

from telemetry.families import CAPPED, Family

Labels = tuple[str, ...]
Field = tuple[str, ...]
"""What one number counts: the name of a metric, the part of a histogram (else empty), its labels.
"""
Read = Callable[[], Iterable[tuple[Labels, float]]]
"""Reads a gauge: its values by labels."""
OTHER: Final = "other"
"""The label of all names beyond the most that are told apart."""
SUM: Final = "sum"
UNNAMED: Final = "unnamed"
"""The model of jobs that name none."""


class Bins:
    """One histogram: how many values lie in each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Count nothing yet; the last bucket has no bound."""
        self.bounds = bounds
        self.counts = [0.0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Names:
    """The names that one label tells apart: the first of them, as many as are allowed."""

    def __init__(self, most: int) -> None:
        """Tell `most` names apart."""
        self._most = most
        self._known: set[str] = set()

    def label(self, name: str | None) -> str:
        """The label of a name: itself, or `other`."""
        name = name or UNNAMED
        if name not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(name)
        return name


class Series:
    """All counters, histograms and gauges of a process."""

    def __init__(self, families: Iterable[Family]) -> None:
        """Hold these families; nothing is counted yet."""
        self._families = {family.name: family for family in families}
        self._counts: dict[str, dict[Labels, float]] = {
            name: {} for name, family in self._families.items() if family.type == "counter"
        }
        self._bins: dict[str, dict[Labels, Bins]] = {
            name: {} for name, family in self._families.items() if family.type == "histogram"
        }
        self._gauges: dict[str, Read] = {}

    def count(self, name: str, *labels: str, by: float = 1.0) -> None:
        """Add to a counter."""
        values = self._counts[name]
        values[labels] = values.get(labels, 0.0) + by

    def bins(self, name: str, *labels: str) -> Bins:
        """The histogram with these labels, to observe values in."""
        found = self._bins[name]
        if labels not in found:
            found[labels] = Bins(self._families[name].buckets)
        return found[labels]

    def read(self, name: str, read: Read) -> None:
        """Call `read` for the values of a gauge, at each scrape."""
        self._gauges[name] = read

    def metrics(self, prefix: str) -> Iterator[Metric]:
        """Everything as prometheus-client's metrics."""
        for name, family in self._families.items():
            if family.type == "counter":
                yield counter(prefix, family, self._counts[name])
            elif family.type == "histogram":
                yield histogram(prefix, family, self._bins[name])
            elif name in self._gauges:
                yield gauge(prefix, family, dict(self._gauges[name]()))

    def shared(self) -> Iterator[tuple[Field, float]]:
        """Each number that is also counted for the fleet, by its field in the totals."""
        for name, values in self._counts.items():
            if self._families[name].scope == "both":
                yield from (((name, "", *labels), value) for labels, value in values.items())
        for name, found in self._bins.items():
            if self._families[name].scope == "both":
                for labels, bins in found.items():
                    yield from bins_as_fields(name, labels, bins)


def bins_as_fields(name: str, labels: Labels, bins: Bins) -> Iterator[tuple[Field, float]]:
    """The buckets that are not empty, each alone (not cumulative), and the sum."""
    for bound, count in zip((*bins.bounds, float("inf")), bins.counts, strict=True):
        if count:
            yield (name, repr(bound), *labels), count
    yield (name, SUM, *labels), bins.sum


def from_fields(family: Family, values: Mapping[Field, float]) -> dict[Labels, Bins]:
    """The histograms of a family in the totals; a bucket of another version goes to the next."""
    found: dict[Labels, Bins] = {}
    for (_, part, *labels), value in values.items():
        bins = found.setdefault(tuple(labels), Bins(family.buckets))
        if part == SUM:
            bins.sum += value
        else:
            bins.counts[bisect_left(bins.bounds, float(part))] += value
    return found


def capped_label(family: Family) -> tuple[str, int] | None:
    """The label of a family whose names are limited, and its place; a family has at most one."""
    found = [(label, at) for at, label in enumerate(family.labels) if label in CAPPED]
    return found[0] if found else None


def counter(prefix: str, family: Family, values: Mapping[Labels, float]) -> Metric:
    """A counter as prometheus-client's metric."""
    metric = Metric(prefix + family.name.removesuffix("_total"), family.help, "counter")
    for labels, value in values.items():
        metric.add_sample(prefix + family.name, _named(family, labels), value)
    return metric


def gauge(prefix: str, family: Family, values: Mapping[Labels, float]) -> Metric:
    """A gauge as prometheus-client's metric."""
    metric = Metric(prefix + family.name, family.help, "gauge")
    for labels, value in values.items():
        metric.add_sample(prefix + family.name, _named(family, labels), value)
    return metric


def histogram(prefix: str, family: Family, found: Mapping[Labels, Bins]) -> Metric:
    """A histogram as prometheus-client's metric, with cumulative buckets."""
    name = prefix + family.name
    metric = Metric(name, family.help, "histogram")
    for labels, bins in found.items():
        named = _named(family, labels)
        bounds = [*(repr(bound) for bound in bins.bounds), "+Inf"]
        for bound, count in zip(bounds, accumulate(bins.counts), strict=True):
            metric.add_sample(f"{name}_bucket", {**named, "le": bound}, count)
        metric.add_sample(f"{name}_count", named, sum(bins.counts))
        metric.add_sample(f"{name}_sum", named, bins.sum)
    return metric


def _named(family: Family, labels: Labels) -> dict[str, str]:
    return dict(zip(family.labels, labels, strict=True))
