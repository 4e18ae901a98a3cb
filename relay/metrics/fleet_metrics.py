"""The metrics of the whole fleet: the totals of all processes, and the state that Redis knows."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import Metric

from contract.errors import RelayUnavailable
from contract.redis_keys import kind_of
from contract.requests import SLACK_S
from contract.roster import BackendReport, EndpointReport, QueueView, WorkerReport
from relay.connection import soon
from relay.metrics.census import Census, FleetCensus
from relay.metrics.totals import FleetTotals, Totals
from telemetry.families import COUNTED, FLEET, STATE
from telemetry.repeated_warnings import RepeatedWarnings
from telemetry.series import Field, Labels, counter, from_fields, gauge, histogram

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)

_MAX_AGE_S: Final = 1.0
"""Seconds for which scrapes share one read of Redis."""
_ALERTED: Final = ("lease_expired", "worker_died")
"""Reasons of hand-overs that an alert counts."""
_STATE: Final = {family.name: family for family in STATE}


class Rising:
    """Keeps the totals from falling where Redis has lost its newest writes.

    A fall would read as a restart from zero: `rate()` would count the whole total again.
    """

    def __init__(self) -> None:
        """No total has been read yet."""
        self._since = 0.0
        self._lost: dict[Field, float] = {}
        self._last: dict[Field, float] = {}

    def over(self, totals: Totals) -> dict[Field, float]:
        """The totals, each with what Redis had once counted and has lost."""
        if totals.since != self._since:
            self._since, self._lost, self._last = totals.since, {}, {}
        for field, last in self._last.items():
            if (value := totals.values.get(field, 0.0)) < last:
                self._lost[field] = self._lost.get(field, 0.0) + last - value
        self._last = totals.values
        fields = totals.values.keys() | self._lost.keys()
        return {
            field: totals.values.get(field, 0.0) + self._lost.get(field, 0.0) for field in fields
        }


class FleetMetrics:
    """Reads the fleet's metrics; concurrent scrapes share a read, and those within a second."""

    def __init__(self, totals: FleetTotals, census: Census) -> None:
        """Nothing is read yet."""
        self._totals = totals
        self._census = census
        self._rising = Rising()
        self._read_at = float("-inf")
        self._metrics: list[Metric] = []
        self._reading = asyncio.Lock()

    async def read(self) -> list[Metric]:
        """The metrics as of at most a second ago; raises nothing.

        Without Redis there is only one, which says so.
        """
        try:
            async with soon(), self._reading:
                if time.monotonic() - self._read_at > _MAX_AGE_S:
                    values = self._rising.over(await self._totals.read())
                    state = await self._census.read()
                    self._metrics = [*_counted(_zeros(state.queues) | values), *_state(state)]
                    self._read_at = time.monotonic()
        except RelayUnavailable as error:
            _repeated.warn("the fleet's metrics are missing: %s", error)
            return [_gauge("redis_up", [((), 0.0)])]
        return self._metrics


def _zeros(queues: Sequence[QueueView]) -> dict[Field, float]:
    """What alerts look at, before it has happened.

    To `increase()` a counter that appears with its first event has not increased by it.
    """
    died = [("hand_overs_total", "", reason) for reason in _ALERTED]
    dead = [
        ("jobs_total", "", kind_of(queue.name), queue.name, "dead", priority)
        for queue in queues
        for priority in SLACK_S
    ]
    return dict.fromkeys([*died, *dead], 0.0)


def _counted(values: dict[Field, float]) -> Iterator[Metric]:
    by_name: dict[str, dict[Field, float]] = {}
    for field, value in values.items():
        by_name.setdefault(field[0], {})[field] = value
    for family in COUNTED:
        found = {
            field: value
            for field, value in by_name.get(family.name, {}).items()
            if len(field) == len(family.labels) + 2  # of this version, not of one to come
        }
        if family.type == "counter":
            yield counter(FLEET, family, {field[2:]: value for field, value in found.items()})
        else:
            yield histogram(FLEET, family, from_fields(family, found))


def _gauge(name: str, values: Iterable[tuple[Labels, float]]) -> Metric:
    return gauge(FLEET, _STATE[name], dict(values))


def _state(state: FleetCensus) -> Iterator[Metric]:
    memory = [(("used",), state.memory_bytes), (("limit",), state.memory_limit_bytes)]
    drain = Counter(worker.draining for worker in state.workers)
    yield _gauge("redis_up", [((), 1.0)])
    yield _gauge("redis_memory_bytes", memory)
    yield _gauge("workers", [(("live",), drain[False]), (("draining",), drain[True])])
    yield _gauge("live_jobs", [((), state.live_jobs)])
    yield _gauge("dead_letters", [((), state.dead_letters)])
    yield _gauge("unreadable_messages", [((), state.unreadable_messages)])
    yield _gauge("batches", [((), state.batches)])
    yield from _queues(state.queues)
    wanted = [((row.queue,), float(row.workers)) for row in state.wanted.queues]
    yield _gauge("wanted_workers", wanted)
    yield from _backends(state.workers)


def _queues(queues: Sequence[QueueView]) -> Iterator[Metric]:
    def of_each(name: str, values: Iterable[float]) -> Metric:
        return _gauge(name, [((q.name,), v) for q, v in zip(queues, values, strict=True)])

    yield of_each("queue_workers", (queue.workers for queue in queues))
    yield of_each("queue_slots", (queue.slots for queue in queues))
    yield of_each("waiting_jobs", (queue.depth for queue in queues))
    yield of_each("waiting_tokens", (queue.tokens for queue in queues))
    yield of_each("delayed_jobs", (queue.delayed for queue in queues))
    yield of_each("scheduled_jobs", (queue.scheduled for queue in queues))
    yield of_each("queue_paused", (float(queue.paused is not None) for queue in queues))
    yield of_each("running_jobs", (queue.in_flight for queue in queues))
    yield of_each("oldest_job_seconds", (queue.oldest_s or 0.0 for queue in queues))
    pulls = [queue for queue in queues if kind_of(queue.name) == "pull"]
    waiting = sum(queue.depth + queue.delayed for queue in pulls)
    running = sum(queue.in_flight for queue in pulls)
    yield _gauge("pulls", [(("waiting",), waiting), (("running",), running)])


def _backends(workers: Sequence[WorkerReport]) -> Iterator[Metric]:
    reports: dict[str, list[BackendReport]] = {}
    circuits: dict[Labels, float] = {}
    resting: dict[str, set[str]] = {}
    for worker in workers:
        for report in worker.backends:
            reports.setdefault(report.name, []).append(report)
            resting.setdefault(report.name, set()).update(
                model for queue in worker.queues for model in queue.model_circuits or ()
            )
            for endpoint in report.endpoints:
                labels = (report.name, endpoint.address)
                circuits[labels] = max(circuits.get(labels, 0.0), _is_open(endpoint))
    up = [((name,), float(any(r.healthy for r in found))) for name, found in reports.items()]
    yield _gauge("backend_up", up)
    yield _gauge("endpoint_circuit_open", circuits.items())
    open_models = [((name,), float(len(models))) for name, models in resting.items()]
    yield _gauge("model_circuits_open", open_models)
    yield _gauge("backend_models", _models(reports))


def _is_open(endpoint: EndpointReport) -> float:
    # The worker reports the time only while the circuit is open.
    return float(endpoint.circuit_open_until is not None)


def _models(reports: dict[str, list[BackendReport]]) -> Iterator[tuple[Labels, float]]:
    for name, found in reports.items():
        warm: dict[str, bool | None] = {}
        for model in (model for report in found for model in report.models):
            warm[model.name] = model.warm or warm.get(model.name, model.warm)
        states = Counter(
            "unknown" if is_warm is None else "warm" if is_warm else "cold"
            for is_warm in warm.values()
        )
        for state in ("warm", "cold", "unknown"):
            yield (name, state), float(states[state])
