"""Everything that lives as long as a worker: built when its loop starts, gone when it ends."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from relay.connection import Connection
from relay.log import Log
from relay.reader import Reader
from relay.residence import LeasedResidence
from relay.settings import RelaySettings
from relay.writer import Writer
from workers.backends.dsn import BackendConfig
from workers.backends.protocols import Backend, Resides
from workers.backends.registry import build
from workers.fitting import Fitting
from workers.pool import AsyncioPool
from workers.presence import Presence
from workers.settings import WorkerSettings
from workers.slots import Slots
from workers.upkeep import Upkeep
from workers.worker import Worker


class Life:
    """The lifespan of one worker; `worker` is there from its beginning."""

    worker: Worker

    def __init__(
        self,
        settings: WorkerSettings,
        relay_settings: RelaySettings,
        config: BackendConfig,
        slots: Slots,
    ) -> None:
        """Keep what app.py has read."""
        self._settings = settings
        self._relay_settings = relay_settings
        self._config = config
        self._slots = slots

    def of(self, pool: AsyncioPool) -> AbstractAsyncContextManager[None]:
        """The context that the pool enters before its first task and leaves after its last."""
        return self._with_backend(pool)

    @asynccontextmanager
    async def _with_backend(self, pool: AsyncioPool) -> AsyncGenerator[None]:
        backend = build(self._config)
        async with Connection.open(self._relay_settings) as connection:
            await connection.ping()
            if isinstance(backend, Resides):
                name = self._settings.worker_name
                backend.live_in(LeasedResidence(connection, backend.name, name))
            try:
                async with self._with_upkeep(pool, connection, backend):
                    yield
            finally:
                await backend.aclose()

    @asynccontextmanager
    async def _with_upkeep(
        self, pool: AsyncioPool, connection: Connection, backend: Backend
    ) -> AsyncGenerator[None]:
        """Run the loops beside the tasks; when one crashes, the worker ends."""
        reader, writer = Reader(connection), Writer(connection)
        self.worker = Worker(
            name=self._settings.worker_name,
            backend=backend,
            slots=self._slots,
            connection=connection,
            writer=writer,
            log=Log(connection, reader),
            fitting=Fitting(private_images=self._settings.private_images),
            draining=pool.draining,
            patience=self._settings.retry_patience,
        )
        upkeep = Upkeep(self.worker, connection, reader, self._settings)
        presence = Presence(self.worker, connection, self._settings, self._config)
        self.worker.look = presence.check_once
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(loop)
                for loop in (
                    writer.write(),
                    reader.listen(),
                    upkeep.renew(),
                    upkeep.reap(),
                    upkeep.obey(),
                    upkeep.drain(pool.draining),
                    presence.check(),
                    presence.report(),
                    self.worker.alarm.ring(),
                )
            ]
            try:
                yield
            finally:
                await presence.leave()
                for task in tasks:
                    task.cancel()
