"""Everything that lives as long as a worker: built when its loop starts, closed when it ends."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from contract.redis_keys import queue_name
from contract.requests import Kind
from relay.aliases.moves import Moves
from relay.claims import Claims
from relay.connection import Connection
from relay.log import Log
from relay.metrics.totals import FleetTotals
from relay.metrics.totals_reporter import TotalsReporter
from relay.model_leases import ModelLeases
from relay.publisher import Publisher
from relay.queue import Queue
from relay.room.answer_room import AnswerRoom
from relay.settings import RelaySettings
from relay.subscriber import Subscriber
from relay.vector_cache import VectorCache
from telemetry.process_metrics import ProcessMetrics, single
from telemetry.tracing import tracing_of
from telemetry.worker_endpoint import serving
from workers.backend_registry import build
from workers.backends.dsn import BackendConfig
from workers.backends.protocols import Backend, Embed, HasModelLease, Rerank, ScoresPairs
from workers.celery_pool.pool import AsyncioPool
from workers.circuit_watch import CircuitWatch
from workers.config import embed_requests_of, over_all
from workers.delayed_wakeups import DelayedWakeups
from workers.embedding.packer import Packer, PackingRules
from workers.embedding.pair_packer import PairPacker
from workers.embedding.request_sender import Budget
from workers.endpoints.circuit_breaker import CircuitBreaker, Verdict
from workers.endpoints.endpoints import Endpoint, EndpointPool
from workers.endpoints.prompt_places import home_of
from workers.foreign_tasks import ForeignTasks
from workers.host.container import PodCost
from workers.image_fetch import ImageFetcher
from workers.maintenance import Maintenance
from workers.model_affinity import ModelAffinity
from workers.request_fitting import RequestFitting
from workers.roster_reporter import RosterReporter
from workers.run import RunServices
from workers.sessions import Sessions
from workers.settings import WorkerSettings
from workers.slots import IdleSlots, Slots
from workers.state import WorkerState
from workers.worker import Worker


class WorkerLifetime:
    """Builds the parts of one worker on its loop, runs their loops, and closes them.

    `worker`, `foreign_tasks` and `slots` exist once the context of `of` has been entered.
    """

    worker: Worker
    foreign_tasks: ForeignTasks
    slots: Slots

    def __init__(
        self,
        settings: WorkerSettings,
        relay_settings: RelaySettings,
        config: BackendConfig,
        slots_each: Mapping[str, int],
    ) -> None:
        """Keep what app.py has read; `slots_each` are those of one endpoint, by queue."""
        self._settings = settings
        self._relay_settings = relay_settings
        self._config = config
        self._slots_each = slots_each
        self._changed = asyncio.Event()
        """Set whenever a circuit or the capacity of a packer changes."""
        self._models_stale = asyncio.Event()
        """Set when the backend should be probed again."""

    def of(self, pool: AsyncioPool) -> AbstractAsyncContextManager[None]:
        """Return the context that the pool enters before its first task and leaves after its last.

        Entering it raises RelayUnavailable if Redis does not answer.
        """
        return self._open(pool)

    @asynccontextmanager
    async def _open(self, pool: AsyncioPool) -> AsyncGenerator[None]:
        self._metrics = ProcessMetrics("worker", self._settings)
        self._tracing = tracing_of("worker", self._settings.otel_genai, os.environ)
        async with Connection.open(self._relay_settings, self._metrics) as connection:
            await connection.ping()
            self.foreign_tasks = ForeignTasks(connection)
            endpoints = self._endpoints(connection)
            capacity = over_all(self._slots_each, len(self._config.each))
            self.slots = Slots(capacity, endpoints.admit)
            self.foreign_tasks = ForeignTasks(connection)
            try:
                async with self._running(pool, connection, endpoints):
                    yield
            finally:
                await endpoints.aclose()

    def _endpoints(self, connection: Connection) -> EndpointPool:
        """Every endpoint with its adapter, its circuits and its packer."""
        settings, config = self._settings, self._config
        ttl_s = settings.embed_cache_ttl_s
        memory = VectorCache(connection, config.name, ttl_s) if ttl_s else None
        endpoints = []
        for number, (address, each) in enumerate(config.each.items(), start=1):
            adapter = build(each)
            if isinstance(adapter, HasModelLease):
                adapter.use_model_lease(ModelLeases(connection, config.name, settings.worker_name))
            packers = self._packers(adapter, memory)
            home = home_of(address, socket.gethostname(), settings.worker_name)
            endpoints.append(
                Endpoint(
                    adapter,
                    address,
                    self._breaker,
                    self._slots_each,
                    packers=packers,
                    home=home,
                    label=f"{config.name}/{number}",
                )
            )
        return EndpointPool(endpoints, self._changed.set)

    def _packers(
        self, adapter: Backend, memory: VectorCache | None
    ) -> dict[str, Packer | PairPacker]:
        """The packers of an endpoint by kind of job; none if its jobs are not packed."""
        settings, found = self._settings, dict[str, Packer | PairPacker]()
        if not settings.embed_pack:
            return found
        rules = PackingRules(
            budget=Budget(settings.embed_pack_texts, settings.embed_pack_tokens),
            max_requests=max(1, min(settings.embed_requests, embed_requests_of(self._config))),
            wait_s=settings.embed_pack_wait_s,
            shares_vectors=settings.embed_cache_shared,
        )
        if isinstance(adapter, Embed):
            found["embed"] = Packer(
                adapter, rules, memory=memory,
                on_capacity_change=partial(self._on_capacity_change, "embed"),
                on_checked=self._models_stale.set,
            )  # fmt: skip
        if isinstance(adapter, Rerank) and isinstance(adapter, ScoresPairs):
            found["rerank"] = PairPacker(
                adapter, rules,
                on_capacity_change=partial(self._on_capacity_change, "rerank"),
                on_checked=self._models_stale.set,
            )  # fmt: skip
        return found

    def _on_capacity_change(self, kind: Kind) -> None:
        """Consume the queue of a kind while one of its packers has capacity."""
        self.slots.settle(queue_name(self._config.name, kind))
        self._changed.set()

    def _breaker(self, verdict: Verdict) -> CircuitBreaker:
        return CircuitBreaker(
            failures=self._settings.breaker_failures,
            open_s=self._settings.breaker_open_s,
            clock=asyncio.get_running_loop().time,
            on_change=self._changed.set,
            verdict=verdict,
        )

    @asynccontextmanager
    async def _running(
        self, pool: AsyncioPool, connection: Connection, endpoints: EndpointPool
    ) -> AsyncGenerator[None]:
        """Run the loops beside the tasks; when one crashes, the worker ends."""
        subscriber, publisher = Subscriber(connection), Publisher(connection)
        name, claims = self._settings.worker_name, Claims(connection)
        wakeups, idle = DelayedWakeups(claims.wake), IdleSlots(name, claims, self.slots, subscriber)
        state = self._state(pool, endpoints, wakeups, idle, Sessions(name, claims, self.slots))
        reporter = RosterReporter(state, connection, self._settings, self._config)
        services = self._services(connection, subscriber, state.fitting)
        self.worker = Worker(
            state, services, publisher=publisher, wakeups=wakeups, reporter=reporter
        )
        maintenance = Maintenance(
            state, self.worker, self.foreign_tasks, connection=connection,
            subscriber=subscriber, settings=self._settings, metrics=self._metrics,
            answer_room=services.answer_room,
        )  # fmt: skip
        circuits = CircuitWatch(
            endpoints, self._config, self.slots, changed=self._changed, reporter=reporter,
            wake=partial(wakeups.set, delay_s=0.0),
        )  # fmt: skip
        loops = (
            publisher.write(), subscriber.listen(), idle.listen(), reporter.report(),
            maintenance.renew(), maintenance.reap(), maintenance.make_room(), maintenance.watch(),
            maintenance.obey(), maintenance.free_children(), maintenance.drain(pool),
            wakeups.run(), circuits.watch(), reporter.probe(),
            PodCost(self._settings, state.held.__len__).run(),
        )  # fmt: skip
        measured = self._measured(state, connection, subscriber, publisher)
        async with measured as reporter.metrics_url, asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop) for loop in loops]
            try:
                yield
            finally:
                await maintenance.resign()
                await reporter.leave()
                for task in tasks:
                    task.cancel()

    def _services(
        self,
        connection: Connection,
        subscriber: Subscriber,
        fitting: RequestFitting,
    ) -> RunServices:
        return RunServices(
            connection=connection,
            log=Log(connection, subscriber),
            queue=Queue(connection),
            fitting=fitting,
            patience=self._settings.retry_patience,
            metrics=self._metrics,
            tracing=self._tracing,
            backend_type=self._config.type,
            moves=Moves(connection),
            addresses=tuple(self._config.each),
            images=ImageFetcher(
                most_bytes=connection.settings.max_images_bytes,
                at_once_bytes=self._settings.images_at_once_bytes,
                private=self._settings.private_images,
            ),
            answer_room=AnswerRoom(connection),
        )

    @asynccontextmanager
    async def _measured(
        self,
        state: WorkerState,
        connection: Connection,
        subscriber: Subscriber,
        publisher: Publisher,
    ) -> AsyncGenerator[str | None]:
        """Send what this worker counts to the totals, and serve it; yields the URL, if any."""
        self._observe(state, subscriber, publisher)
        totals = FleetTotals(connection, self._settings.metrics_names)
        reporter = TotalsReporter(self._metrics.series, totals)
        async with serving(self._metrics, self._settings) as url:
            loops = (reporter.run(), self._metrics.watch_loop())
            tasks = [asyncio.create_task(loop) for loop in loops]
            try:
                yield url
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                await reporter.finish()
                await self._tracing.aclose()

    def _observe(self, state: WorkerState, subscriber: Subscriber, publisher: Publisher) -> None:
        """Let the metrics read what this worker holds."""
        series = self._metrics.series
        series.read("subscriptions", lambda: single(subscriber.count))
        series.read("unpublished_events", lambda: single(publisher.waiting))
        series.read("slots", lambda: [((q,), n) for q, n in state.slots.capacity.items()])
        series.read(
            "running_jobs", lambda: [((q,), state.held.in_flight(q)) for q in state.slots.capacity]
        )
        series.read(
            "endpoint_circuit_open",
            lambda: [
                ((each.address or self._config.type,), float(each.breaker.open_until is not None))
                for each in state.endpoints.all
            ],
        )

    def _state(
        self,
        pool: AsyncioPool,
        endpoints: EndpointPool,
        wakeups: DelayedWakeups,
        idle_slots: IdleSlots,
        sessions: Sessions,
    ) -> WorkerState:
        return WorkerState(
            name=self._settings.worker_name,
            endpoints=endpoints,
            slots=self.slots,
            idle_slots=idle_slots,
            sessions=sessions,
            affinity=ModelAffinity(self.slots, wakeups.set, self._models_stale),
            fitting=RequestFitting(
                pass_image_urls=self._settings.pass_image_urls,
                prompts={name: model.prompts or {} for name, model in self._config.models.items()},
            ),
            draining=pool.draining,
        )
