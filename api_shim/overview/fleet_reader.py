"""Reads the state of the fleet: a handful of commands, however many jobs wait.

A read costs three commands for the roster and one for each backend without a live worker, one for
the names of queues and one for each 200 of them, three for dead letters, one for memory, and every
five seconds one for the totals of metrics. None of it grows with the number of jobs.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from api_shim.overview.concerns import Losses, concerns_of
from api_shim.overview.fleet_state import (
    BackendSummary,
    FleetState,
    QueueSummary,
    RedisState,
    WorkerSlots,
    WorkerSummary,
)
from api_shim.overview.pace import Pace
from api_shim.submission.caller_rights import visible, without_hosts
from api_shim.submission.roster_cache import Pool, RosterCache, pools
from api_shim.submission.roster_views import backend_view
from contract.json_lines import json_line
from contract.redis_keys import backend_of
from contract.roster import QueueReport, WorkerReport
from contract.tenants import Tenant
from relay.connection import Connection
from relay.dead_letters import DeadLetters, UnreadableMessages
from relay.metrics.totals import FleetTotals
from relay.position import Positions
from relay.roster import Roster
from relay.scheduling.pauses import pause_in, schedule_in
from relay.scripts.queues import QueueCounts

_LATELY_S: Final = 600.0
_MOST_WARM: Final = 8
_SHOWN: Final = frozenset({"chat", "embed", "image", "pull", "rerank"})
"""Kinds of jobs whose slots are shown although they are free."""


class Reading(NamedTuple):
    """One read of everything, from which the state for each tenant is made."""

    at: float
    """Unix seconds, by Redis's clock."""
    roster: Roster
    counts: Sequence[QueueCounts]
    losses: Losses
    redis: RedisState


class FleetReader:
    """Reads the fleet over one connection."""

    def __init__(self, connection: Connection, roster: RosterCache) -> None:
        """Use this connection."""
        self._connection = connection
        self._roster = roster
        self._positions = Positions(connection)
        self._dead_letters = DeadLetters(connection)
        self._unreadable = UnreadableMessages(connection)
        self._pace = Pace(FleetTotals(connection))

    async def read(self, *, max_age_s: float = 0.0) -> Reading:
        """Read everything; the roster may be `max_age_s` seconds old. Raises RelayUnavailable."""
        roster = await self._roster.read(max_age_s=max_age_s)
        served = {queue.name for worker in roster.workers for queue in worker.queues}
        counts, (dead, lately), unreadable, (used, most), _ = await asyncio.gather(
            self._positions.survey(served),
            self._dead_letters.count(_LATELY_S),
            self._unreadable.count(),
            self._connection.memory(),
            self._pace.follow(self._connection.now()),
        )
        return Reading(
            self._connection.now(),
            roster,
            counts,
            Losses(dead, lately, unreadable),
            RedisState(used_bytes=used, max_bytes=most or None),
        )

    def state(self, reading: Reading, tenant: Tenant) -> FleetState:
        """The fleet as this tenant sees it: an admin sees all."""
        serving: dict[str, list[QueueReport]] = {}
        roster = visible(reading.roster, tenant.models, tenant.backends)
        roster = without_hosts(roster, tenant)
        workers = roster.workers
        for worker in workers:
            for queue in worker.queues if not worker.draining else ():
                serving.setdefault(queue.name, []).append(queue)
        queues = tuple(
            self._queue(counts, serving.get(counts.queue, ()), reading, tenant)
            for counts in reading.counts
            if (counts.queue in serving or _is_used(counts))
            and tenant.may_use_backend(backend_of(counts.queue))
        )
        backends = tuple(_backend(pool, workers) for pool in pools(*roster).values())
        losses = reading.losses if tenant.admin else None
        redis = reading.redis if tenant.admin else None
        ended = tuple(map(sum, zip(*(queue.ended for queue in queues), strict=True)))
        rates = [queue.drain_per_s for queue in queues if queue.drain_per_s is not None]
        return FleetState(
            at=reading.at,
            concerns=concerns_of(queues, backends, workers, losses, redis),
            waiting=sum(queue.depth for queue in queues),
            delayed=sum(queue.delayed for queue in queues),
            running=sum(queue.running for queue in queues),
            ended=ended or (0,) * 15,
            ended_per_s=sum(rates) if rates else None,
            first_token_ms=self._pace.first_token_ms,
            tokens_per_s=self._pace.tokens_per_s,
            dead=losses and losses.dead,
            dead_lately=losses and losses.dead_lately,
            unreadable=losses and losses.unreadable,
            redis=redis,
            queues=queues,
            workers=tuple(_worker(worker) for worker in workers),
            backends=backends,
            roster_revision=_revision(roster),
        )

    def _queue(
        self,
        counts: QueueCounts,
        serving: Sequence[QueueReport],
        reading: Reading,
        tenant: Tenant,
    ) -> QueueSummary:
        rate = self._positions.rate(counts.ended)
        oldest = counts.oldest_at
        return QueueSummary(
            name=counts.queue,
            depth=counts.depth,
            urgent=counts.urgent,
            interactive=counts.interactive,
            delayed=counts.delayed,
            scheduled=counts.scheduled,
            running=counts.leased,
            slots=sum(report.slots for report in serving),
            workers=len(serving),
            is_known=any(counts.queue in known.slots for known in reading.roster.known),
            tokens=counts.tokens,
            oldest_s=None if oldest is None else round(max(0.0, reading.at - oldest), 1),
            drain_per_s=rate,
            eta_s=round(counts.depth / rate, 1) if rate and not counts.why else None,
            paused=pause_in(counts.why),
            windows=schedule_in(counts.schedule).windows,
            ended=tuple(int(n) if n and n.isdigit() else 0 for n in reversed(counts.ended)),
            tenants=_visible(counts.tenants, tenant),
        )


def _is_used(counts: QueueCounts) -> bool:
    has_jobs = counts.depth or counts.delayed or counts.leased or counts.scheduled
    return bool(has_jobs or any(counts.ended) or counts.why or counts.schedule)


def _visible(waiting: dict[str, int] | None, tenant: Tenant) -> dict[str, int] | None:
    if waiting is None or tenant.admin:
        return waiting
    return {name: jobs for name, jobs in waiting.items() if name == tenant.name}


def _worker(worker: WorkerReport) -> WorkerSummary:
    return WorkerSummary(
        name=worker.name,
        host=worker.host,
        pid=worker.pid,
        started_at=worker.started_at,
        draining=worker.draining,
        version=worker.version,
        backends=tuple(backend.name for backend in worker.backends),
        running=sum(queue.in_flight for queue in worker.queues),
        queues=tuple(
            WorkerSlots(queue=q.name, kind=q.kind, running=q.in_flight, slots=q.slots)
            for q in worker.queues
            if q.kind in _SHOWN or q.in_flight
        ),
        loading=_distinct(queue.loading for queue in worker.queues),
    )


def _backend(pool: Pool, workers: Iterable[WorkerReport]) -> BackendSummary:
    view = backend_view(pool)
    models = pool.models
    warm = [name for name, reports in models.items() if any(each.warm for each in reports)]
    queues = [queue for worker in workers for queue in worker.queues]
    loading = _distinct(q.loading for q in queues if backend_of(q.name) == pool.name)
    return BackendSummary(
        name=view.name,
        type=view.type,
        healthy=view.healthy,
        error=view.error,
        version=view.version,
        circuit_open_until=view.circuit_open_until,
        endpoints=view.endpoints,
        endpoints_down=view.endpoints_down,
        capabilities=view.capabilities,
        workers=len(view.workers),
        models=len(models),
        warm=tuple(sorted(warm)[:_MOST_WARM]),
        loading=loading,
    )


def _distinct(names: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({name for name in names if name}))


def _revision(roster: Roster) -> str:
    """A digest of what backends and models are, without what changes with every job."""
    told = [
        (worker.name, [backend.model_dump(mode="json", exclude={"endpoints"})])
        for worker in roster.workers
        for backend in worker.backends
    ] + [("", [known.backend.model_dump(mode="json")]) for known in roster.known]
    return hashlib.sha256(json_line(told)).hexdigest()[:16]
