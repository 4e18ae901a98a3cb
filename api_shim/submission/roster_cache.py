"""The roster by backend: a pool is a backend with all workers that serve it."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from copy import copy
from functools import cached_property
from typing import Final

from api_shim.submission.caller_rights import visible
from contract.features import Feature
from contract.model_kinds import ModelKind, kinds, lacks, rank
from contract.model_names import find
from contract.roster import BackendReport, Capability, KnownBackend, ModelReport, WorkerReport
from contract.tenants import Tenant
from relay.roster import Roster, RosterStore, consumed

_REMEMBERED: Final = 1000
"""Names of models that a pool finds without a search the second time; clients choose them."""
_MOST_LIMITS: Final = 256
"""Sets of limits of keys for which the roster is remembered as they see it."""
_Limits = tuple[tuple[str, ...] | None, tuple[str, ...] | None]
"""Models and backends."""


class Pool:
    """What all live workers report about one backend, or what is known of one without any.

    Its properties are computed once.
    """

    def __init__(self, name: str) -> None:
        """No report is added yet."""
        self.name = name
        self._found: dict[str, list[ModelReport]] = {}
        self.reports: list[BackendReport] = []
        self.workers: list[str] = []
        self.queues: set[str] = set()
        """Queues that a worker consumes now; a draining worker consumes none."""
        self.known_queues: set[str] = set()
        """Queues that no worker consumes now, but one that is started will."""
        self.last_seen_at: float | None = None
        """Unix seconds at which a worker of the known queues reported, if one ever did."""

    @cached_property
    def is_healthy(self) -> bool:
        """Whether the backend is healthy for at least one worker."""
        return any(report.healthy for report in self.reports)

    @cached_property
    def capabilities(self) -> tuple[Capability, ...]:
        """Capabilities that any worker reports."""
        return tuple(dict.fromkeys(c for report in self.reports for c in report.capabilities))

    @cached_property
    def grants(self) -> frozenset[Feature] | None:
        """Features that any worker reports the backend to grant; None if no worker reports them."""
        reported = [
            frozenset(report.grants) for report in self.reports if report.grants is not None
        ]
        return frozenset[Feature]().union(*reported) if reported else None

    @cached_property
    def models(self) -> dict[str, list[ModelReport]]:
        """By name: what each worker reports about the model."""
        models: dict[str, list[ModelReport]] = {}
        for report in self.reports:
            for model in report.models:
                models.setdefault(model.name, []).append(model)
        return models

    def with_known_queues(self) -> "Pool":
        """A copy whose known queues count as consumed."""
        pool = copy(self)
        pool.queues = self.queues | self.known_queues
        return pool

    def with_names(
        self,
        taken: Collection[str],
        names: Mapping[str, str],
        is_shown: Callable[[str], bool] = lambda _: True,
    ) -> "Pool":
        """A copy where names that are `taken` by aliases mean models of this pool, or nothing.

        `names` are those that mean a model, by name; of the other models it has those that are
        shown.
        """
        pool = copy(self)
        pool.forget_names()
        others = {
            name: its for name, its in self.models.items() if name not in taken and is_shown(name)
        }
        added = {
            name: [report.model_copy(update={"name": name}) for report in self.find(model)]
            for name, model in names.items()
        }
        pool.models = {**others, **added}
        return pool

    def forget_names(self) -> None:
        """Search for each model anew: names have other meanings now."""
        self._found = {}

    def find(self, model: str) -> list[ModelReport]:
        """The reports about a model; a name without a tag means the tag `latest`."""
        known = self._found.get(model)
        if known is None:
            found = find(self.models, model)
            known = [] if found is None else found[1]
            if len(self._found) < _REMEMBERED:
                self._found[model] = known
        return known

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


def pools(workers: Iterable[WorkerReport], known: Iterable[KnownBackend] = ()) -> dict[str, Pool]:
    """Every backend of the fleet by name: those with live workers, then those that are known."""
    found: dict[str, Pool] = {}
    for worker in workers:
        for report in worker.backends:
            pool = found.setdefault(report.name, Pool(report.name))
            pool.reports.append(report)
            pool.workers.append(worker.name)
            if not worker.draining:
                pool.queues.update(queue.name for queue in worker.queues)
    for each in known:
        pool = found.setdefault(each.backend.name, Pool(each.backend.name))
        if not pool.workers:
            pool.reports.append(each.backend)
        pool.known_queues.update(each.slots.keys() - pool.queues)
        pool.last_seen_at = each.last_seen_at
    return dict(sorted(found.items()))


class RosterCache:
    """A cached roster; concurrent callers share one read."""

    def __init__(
        self, roster: RosterStore, max_age_s: float, configured: Iterable[KnownBackend] = ()
    ) -> None:
        """Cache for `max_age_s` seconds; `configured` backends are known without any worker."""
        self._roster = roster
        self._max_age_s = max_age_s
        self._configured = tuple(configured)
        self._seen = Roster([], [])
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()
        self._pools: tuple[Roster, Mapping[str, Pool]] = (self._seen, {})
        self._limited: dict[_Limits, tuple[Roster, Roster, Mapping[str, Pool]]] = {}
        """By limits: the roster, and what keys with these limits see of it."""

    async def read(self, *, max_age_s: float = 0.0) -> Roster:
        """The roster as of `max_age_s` seconds ago or later; raises RelayUnavailable."""
        asked_at = time.monotonic()
        async with self._looking:
            if self._looked_at < asked_at - max_age_s:
                looked_at = time.monotonic()
                self._seen = self._with_configured(await self._roster.read())
                self._looked_at = looked_at
        return self._seen

    async def recent(self) -> Roster:
        """The roster, from the cache if it is fresh enough; raises RelayUnavailable."""
        if self._looked_at >= time.monotonic() - self._max_age_s:
            return self._seen
        return await self.read(max_age_s=self._max_age_s)

    @property
    def recent_pools(self) -> Mapping[str, Pool]:
        """The pools of the cached roster: call `recent` first."""
        of, found = self._pools
        if of is not self._seen:
            found = pools(*self._seen)
            self._pools = self._seen, found
        return found

    def seen_by(
        self, tenant: Tenant, *, every_model: bool = False
    ) -> tuple[Roster, Mapping[str, Pool]]:
        """The cached roster and its pools, without what the tenant's key may not use.

        Call `read` or `recent` first. `every_model`: with all models of its backends.
        """
        limits = (None if every_model else tenant.models), tenant.backends
        if limits == (None, None):
            return self._seen, self.recent_pools
        known = self._limited.get(limits)
        if known is None or known[0] is not self._seen:
            if len(self._limited) >= _MOST_LIMITS:
                self._limited.clear()
            its = visible(self._seen, *limits)
            known = self._limited[limits] = self._seen, its, pools(*its)
        return known[1], known[2]

    async def workers(self) -> list[WorkerReport]:
        """Every live worker now; raises RelayUnavailable."""
        return (await self.read()).workers

    async def pools_of(self, tenant: Tenant) -> Mapping[str, Pool]:
        """Every backend now that the tenant's key may use, by name; raises RelayUnavailable."""
        await self.read()
        return self.seen_by(tenant)[1]

    async def forget(self, backend: str) -> bool:
        """Forget what workers reported of a backend; returns whether anything was known.

        Raises RelayUnavailable.
        """
        return await self._roster.forget(backend)

    def _with_configured(self, roster: Roster) -> Roster:
        """Add what is configured where no worker, live or remembered, has reported better."""
        reported = consumed(roster.workers) | {
            queue for each in roster.known for queue in each.slots
        }
        added = []
        for each in self._configured:
            slots = {queue: count for queue, count in each.slots.items() if queue not in reported}
            if slots:
                added.append(each.model_copy(update={"slots": slots}))
        return Roster(roster.workers, [*roster.known, *added])
