"""The roster by backend: a pool is a backend with all workers that serve it."""

import asyncio
import time
from collections.abc import Iterable

from contract.features import Feature
from contract.model_kinds import ModelKind, kinds, lacks, rank
from contract.model_names import find
from contract.roster import BackendReport, Capability, ModelReport, WorkerReport
from relay.roster import RosterStore


class Pool:
    """What all live workers report about one backend."""

    def __init__(self, name: str) -> None:
        """No report is added yet."""
        self.name = name
        self.reports: list[BackendReport] = []
        self.workers: list[str] = []
        self.queues: set[str] = set()
        """Queues that a worker consumes now; a draining worker consumes none."""

    @property
    def is_healthy(self) -> bool:
        """Whether the backend is healthy for at least one worker."""
        return any(report.healthy for report in self.reports)

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """Capabilities that any worker reports."""
        return tuple(dict.fromkeys(c for report in self.reports for c in report.capabilities))

    @property
    def grants(self) -> frozenset[Feature] | None:
        """Features that any worker reports the backend to grant; None if no worker reports them."""
        reported = [
            frozenset(report.grants) for report in self.reports if report.grants is not None
        ]
        return frozenset[Feature]().union(*reported) if reported else None

    @property
    def models(self) -> dict[str, list[ModelReport]]:
        """By name: what each worker reports about the model."""
        models: dict[str, list[ModelReport]] = {}
        for report in self.reports:
            for model in report.models:
                models.setdefault(model.name, []).append(model)
        return models

    def find(self, model: str) -> list[ModelReport]:
        """The reports about a model; a name without a tag means the tag `latest`."""
        found = find(self.models, model)
        return [] if found is None else found[1]

    def kinds(self, model: str) -> list[ModelKind]:
        """What kinds of jobs a model does; empty if that is unknown."""
        return kinds(self.find(model), self.capabilities)

    def lacks(self, model: str, kind: str) -> bool:
        """Whether a model is known not to do a kind of job here."""
        return lacks(self.find(model), kind)


def listing(found: Iterable[Pool]) -> dict[str, list[Pool]]:
    """Models by name with their pools, in the order of all lists: chat models first.

    Clients that take the first model of a list want to chat with it.
    """
    having: dict[str, list[Pool]] = {}
    for pool in found:
        for name in pool.models:
            having.setdefault(name, []).append(pool)
    order = {name: min(rank(p.kinds(name)) for p in owners) for name, owners in having.items()}
    return {name: having[name] for name in sorted(having, key=lambda name: (order[name], name))}


def pools(workers: Iterable[WorkerReport]) -> dict[str, Pool]:
    """Every backend of the fleet by name."""
    found: dict[str, Pool] = {}
    for worker in workers:
        for report in worker.backends:
            pool = found.setdefault(report.name, Pool(report.name))
            pool.reports.append(report)
            pool.workers.append(worker.name)
            if not worker.draining:
                pool.queues.update(queue.name for queue in worker.queues)
    return dict(sorted(found.items()))


class RosterCache:
    """A cached roster; concurrent callers share one read."""

    def __init__(self, roster: RosterStore, *, max_age_s: float) -> None:
        """Cache for `max_age_s` seconds."""
        self._roster = roster
        self._max_age_s = max_age_s
        self._workers: list[WorkerReport] = []
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()

    async def workers(self, *, max_age_s: float = 0.0) -> list[WorkerReport]:
        """Every live worker as of `max_age_s` seconds ago or later; raises RelayUnavailable."""
        asked_at = time.monotonic()
        async with self._looking:
            if self._looked_at < asked_at - max_age_s:
                looked_at = time.monotonic()
                self._workers = await self._roster.workers()
                self._looked_at = looked_at
        return self._workers

    async def recent(self) -> list[WorkerReport]:
        """Every live worker, from the cache if it is fresh enough; raises RelayUnavailable."""
        return await self.workers(max_age_s=self._max_age_s)
