"""Everything that lives as long as a worker: built when its loop starts, gone when it ends."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from contract.redis_keys import queue_name
from relay.connection import Connection
from relay.log import Log
from relay.model_leases import ModelLeases
from relay.publisher import Publisher
from relay.settings import RelaySettings
from relay.subscriber import Subscriber
from relay.vector_cache import VectorCache
from workers.backend_registry import build
from workers.backends.dsn import BackendConfig
from workers.backends.protocols import Embed, HasModelLease
from workers.celery_pool.pool import AsyncioPool
from workers.circuit_watch import CircuitWatch
from workers.config import embed_requests_of
from workers.embedding.budget import Budget
from workers.embedding.packer import Packer, PackingRules
from workers.endpoints.circuit_breaker import CircuitBreaker, Verdict
from workers.endpoints.endpoints import Endpoint, EndpointPool
from workers.maintenance import Maintenance
from workers.request_fitting import RequestFitting
from workers.roster_reporter import RosterReporter
from workers.settings import WorkerSettings
from workers.slots import Slots
from workers.worker import Worker


def give_packers(
    servers: EndpointPool,
    config: BackendConfig,
    settings: WorkerSettings,
    connection: Connection,
    *,
    on_room: Callable[[str], None],
    on_verdict: Callable[[], None],
) -> None:
    """Let embed jobs of each endpoint share requests; `on_room` is called with the queue's name."""
    if not settings.embed_pack:
        return
    ttl_s, queue = settings.embed_cache_ttl_s, queue_name(config.name, "embed")
    memory = VectorCache(connection, config.name, ttl_s) if ttl_s else None
    for server in servers.all:
        if isinstance(server.adapter, Embed):
            server.packer = Packer(
                server.adapter, _rules(config, settings), memory=memory,
                on_room=lambda: on_room(queue), on_verdict=on_verdict,
            )  # fmt: skip


def _rules(config: BackendConfig, settings: WorkerSettings) -> PackingRules:
    return PackingRules(
        budget=Budget(settings.embed_pack_texts, settings.embed_pack_tokens),
        most=max(1, min(settings.embed_requests, embed_requests_of(config))),
        wait_s=settings.embed_pack_wait_s,
    )


class WorkerLifetime:
    """The lifespan of one worker; `worker` is there from its beginning."""

    worker: Worker

    def __init__(
        self,
        settings: WorkerSettings,
        relay_settings: RelaySettings,
        config: BackendConfig,
        slots: Slots,
        slots_each: Mapping[str, int],
    ) -> None:
        """Keep what app.py has read; `slots_each` are those of one endpoint, by queue."""
        self._settings = settings
        self._relay_settings = relay_settings
        self._config = config
        self._slots = slots
        self._slots_each = slots_each

    def of(self, pool: AsyncioPool) -> AbstractAsyncContextManager[None]:
        """The context that the pool enters before its first task and leaves after its last."""
        return self._with_backend(pool)

    @asynccontextmanager
    async def _with_backend(self, pool: AsyncioPool) -> AsyncGenerator[None]:
        changed = asyncio.Event()
        servers = self._servers(changed)
        async with Connection.open(self._relay_settings) as connection:
            await connection.ping()
            for server in servers.all:
                if isinstance(server.adapter, HasModelLease):
                    residence = ModelLeases(connection, servers.name, self._settings.worker_name)
                    server.adapter.use_model_lease(residence)
            self._pack(servers, connection, changed)
            try:
                async with self._with_upkeep(pool, connection, servers, changed):
                    yield
            finally:
                await servers.aclose()

    def _servers(self, changed: asyncio.Event) -> EndpointPool:
        """Every endpoint with its adapter and its circuit, whose changes set the event."""
        servers = EndpointPool(
            [
                Endpoint(build(config), address, partial(self._breaker, changed), self._slots_each)
                for address, config in self._config.each.items()
            ],
            changed.set,
        )
        self._slots.admits = servers.admit
        return servers

    def _pack(self, servers: EndpointPool, connection: Connection, changed: asyncio.Event) -> None:
        """Let embed jobs share requests; their queue is consumed while there is room for more."""

        def settle(queue: str) -> None:
            self._slots.settle(queue)
            changed.set()

        def look_again() -> None:
            self.worker.choosing.stale.set()

        give_packers(
            servers, self._config, self._settings, connection,
            on_room=settle, on_verdict=look_again,
        )  # fmt: skip

    def _breaker(self, changed: asyncio.Event, verdict: Verdict) -> CircuitBreaker:
        return CircuitBreaker(
            failures=self._settings.breaker_failures,
            open_s=self._settings.breaker_open_s,
            clock=asyncio.get_running_loop().time,
            on_change=changed.set,
            verdict=verdict,
        )

    @asynccontextmanager
    async def _with_upkeep(
        self,
        pool: AsyncioPool,
        connection: Connection,
        servers: EndpointPool,
        changed: asyncio.Event,
    ) -> AsyncGenerator[None]:
        """Run the loops beside the tasks; when one crashes, the worker ends."""
        reader, writer = Subscriber(connection), Publisher(connection)
        self.worker = self._worker(pool, connection, reader, writer, servers)
        presence = RosterReporter(self.worker, connection, self._settings, self._config)
        self.worker.look = presence.check_once
        upkeep = Maintenance(self.worker, connection, reader, self._settings)
        circuits = CircuitWatch(
            servers, self._config, self._slots, changed=changed, presence=presence,
            wake=lambda queue: self.worker.alarm.set(queue, 0.0),
        )  # fmt: skip
        loops = (
            writer.write(), reader.listen(), upkeep.renew(), upkeep.reap(), upkeep.watch(),
            upkeep.obey(), upkeep.drain(pool.draining, pool.hurrying), presence.check(),
            presence.report(), circuits.watch(), self.worker.alarm.ring(),
        )  # fmt: skip
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop) for loop in loops]
            try:
                yield
            finally:
                await upkeep.resign()
                await presence.leave()
                for task in tasks:
                    task.cancel()

    def _worker(
        self,
        pool: AsyncioPool,
        connection: Connection,
        reader: Subscriber,
        writer: Publisher,
        servers: EndpointPool,
    ) -> Worker:
        return Worker(
            name=self._settings.worker_name,
            servers=servers,
            slots=self._slots,
            connection=connection,
            writer=writer,
            log=Log(connection, reader),
            fitting=RequestFitting(private_images=self._settings.private_images),
            draining=pool.draining,
            patience=self._settings.retry_patience,
        )
