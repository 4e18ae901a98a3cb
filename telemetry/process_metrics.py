"""The metrics of one process: what the relay reports, the lag of its loop, and its exposition."""

import asyncio
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Never

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.registry import Collector
from typing_extensions import override

from contract.redis_keys import kind_of
from telemetry.families import COUNTED, OWN, PROCESS
from telemetry.relay_observer import RelayObserver
from telemetry.series import Labels, Names, Series
from telemetry.settings import MetricsSettings

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_LAG_EVERY_S: Final = 0.5


class ProcessMetrics(RelayObserver):
    """Counts what happens in this process; a worker and a shim add what only they know."""

    def __init__(self, process: str, settings: MetricsSettings) -> None:
        """`process` is what it is: `shim` or `worker`."""
        self.series = Series((*COUNTED, *OWN))
        self.models = Names(settings.metrics_names)
        self.tenants = Names(settings.metrics_names)
        self._round_trips = self.series.bins("redis_round_trip_seconds")
        self._published = self.series.bins("published_events")
        labels = (installed_version(), process, platform.python_version())
        self.series.read("build_info", lambda: [(labels, 1.0)])

    @override
    def on_round_trip(self, seconds: float) -> None:
        self._round_trips.observe(seconds)

    @override
    def on_published(self, events: int) -> None:
        self._published.observe(events)

    @override
    def on_enqueued(self, queue: str, priority: str) -> None:
        self.series.count("jobs_enqueued_total", kind_of(queue), queue, priority)

    @override
    def on_refused(self, queue: str, scope: str) -> None:
        self.series.count("enqueues_refused_total", queue, scope)

    @override
    def on_settled(self, tenant: str, cost: float) -> None:
        if cost:
            self.series.count("tenant_cost_total", self.tenants.label(tenant), by=cost)

    @override
    def on_removed_early(self, tenant: str, jobs: int) -> None:
        self.series.count("jobs_removed_early_total", self.tenants.label(tenant), by=jobs)

    @override
    def on_set_aside(self, key: str) -> None:
        self.series.count("keys_set_aside_total", key)

    @override
    def on_ended(self, queue: str, priority: str, tenant: str, outcome: str) -> None:
        self.series.count("jobs_total", kind_of(queue), queue, outcome, priority)
        self.series.count("tenant_jobs_total", self.tenants.label(tenant), outcome)

    def on_handed_over(self, reason: str, jobs: int = 1) -> None:
        """Count jobs that went back to their queue."""
        if jobs:
            self.series.count("hand_overs_total", reason, by=jobs)

    async def watch_loop(self) -> Never:
        """Measure how late the loop's timers are, until cancelled."""
        bins, now = self.series.bins("loop_lag_seconds"), asyncio.get_running_loop().time
        while True:
            due_at = now() + _LAG_EVERY_S
            await asyncio.sleep(_LAG_EVERY_S)
            bins.observe(max(0.0, now() - due_at))

    def text(self, more: Iterable[Metric] = (), *, own: bool = True) -> bytes:
        """The metrics of this process, if `own`, and `more`, in Prometheus's text format."""
        registry = CollectorRegistry()
        metrics = list(more)
        if own:
            ProcessCollector(registry=registry)
            metrics += self.series.metrics(PROCESS)
        registry.register(_Ready(metrics))
        return generate_latest(registry)


class _Ready(Collector):
    """Metrics that are ready to be served."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    @override
    def collect(self) -> Iterable[Metric]:
        return self._metrics


def single(value: float) -> list[tuple[Labels, float]]:
    """A gauge without labels."""
    return [((), value)]


def installed_version() -> str:
    """The version of llm-fleet that is installed; "0" where it is only a source tree."""
    try:
        return version("llm-fleet")
    except PackageNotFoundError:
        return "0"
