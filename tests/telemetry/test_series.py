"""Counters and histograms of a process, as Prometheus reads them and as the fleet adds them up.

Subjects: telemetry/series.py, telemetry/families.py.
"""

from prometheus_client import Metric
from support.shape import ROOT

from telemetry.families import FAMILIES, Family, reference
from telemetry.series import Names, Series, from_fields, histogram

COUNTER = Family("jobs_total", "counter", "both", "Jobs.", ("queue",))
HISTOGRAM = Family("wait_seconds", "histogram", "both", "Waits.", ("queue",), (1.0, 5.0))


def samples(metric: Metric) -> dict[tuple[str, str], float]:
    return {(each.name, each.labels.get("le", "")): each.value for each in metric.samples}


def test_buckets_are_cumulative_and_include_their_bound() -> None:
    series = Series([HISTOGRAM])
    for value in (0.5, 1.0, 5.0, 9.0):
        series.bins("wait_seconds", "q").observe(value)
    (metric,) = series.metrics("x_")

    assert samples(metric) == {
        ("x_wait_seconds_bucket", "1.0"): 2.0,
        ("x_wait_seconds_bucket", "5.0"): 3.0,
        ("x_wait_seconds_bucket", "+Inf"): 4.0,
        ("x_wait_seconds_count", ""): 4.0,
        ("x_wait_seconds_sum", ""): 15.5,
    }


def test_a_histogram_survives_the_totals() -> None:
    series = Series([HISTOGRAM])
    for value in (0.5, 9.0):
        series.bins("wait_seconds", "q").observe(value)
    restored = from_fields(HISTOGRAM, dict(series.shared()))
    (metric,) = series.metrics("x_")

    assert samples(histogram("x_", HISTOGRAM, restored)) == samples(metric)


def test_a_bucket_of_another_version_is_counted_in_the_next() -> None:
    found = from_fields(HISTOGRAM, {("wait_seconds", "2.5", "q"): 3.0})

    assert found[("q",)].counts == [0.0, 3.0, 0.0]


def test_only_what_the_fleet_adds_up_is_shared() -> None:
    own = Family("lag_total", "counter", "process", "Lag.")
    series = Series([COUNTER, own])
    series.count("jobs_total", "q", by=2)
    series.count("lag_total")

    assert dict(series.shared()) == {("jobs_total", "", "q"): 2.0}


def test_names_beyond_the_most_are_other_and_none_is_no_label() -> None:
    names = Names(2)

    assert [names.label(name) for name in ("a", None, "b", "a")] == ["a", "unnamed", "other", "a"]


def test_the_table_keeps_prometheus_rules_of_names() -> None:
    for family in FAMILIES:
        assert family.name.endswith("_total") is (family.type == "counter")
        assert family.type != "histogram" or family.name.endswith(("_seconds", "_events"))
        assert bool(family.buckets) is (family.type == "histogram")
        assert sorted(family.buckets) == list(family.buckets)
        assert family.help.endswith(".")
        assert len({"model", "tenant"} & set(family.labels)) <= 1
    assert len({name for each in FAMILIES for name in each.names}) == sum(
        len(each.names) for each in FAMILIES
    )


def test_the_reference_is_the_table() -> None:
    """If it is not: `python -m telemetry.families > docs/metrics.md`."""
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == reference()
