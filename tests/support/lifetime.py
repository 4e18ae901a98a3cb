"""The parts of a worker, without Celery around them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from pydantic import SecretStr

from relay.settings import RelaySettings
from workers.app import capacity
from workers.backends.dsn import BackendConfig
from workers.celery_pool.pool import AsyncioPool
from workers.lifetime import WorkerLifetime
from workers.settings import WorkerSettings


@asynccontextmanager
async def lifetime(
    redis_url: str, *, passes: bool = False, **relay: float
) -> AsyncGenerator[WorkerLifetime]:
    """A worker of the scripted backend on this loop; `relay` are its times, as `lease_s`."""
    settings = WorkerSettings(pass_image_urls=passes)
    config = BackendConfig(name="scripted", type="scripted")
    pool = AsyncioPool.__new__(AsyncioPool)
    pool.draining, pool.hurrying = asyncio.Event(), asyncio.Event()
    made = WorkerLifetime(
        settings,
        RelaySettings.model_validate({"redis_url": SecretStr(redis_url), **relay}),
        config,
        await asyncio.to_thread(capacity, config, settings),
    )
    async with made.of(pool):
        yield made
