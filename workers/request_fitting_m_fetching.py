"""A model that is not there: pulled by a job of its own, which all who wait for it follow."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from contract.errors_m_backend_errors import (
    ModelMissing,
)
from contract.events import AnyEvent, Cancelled, Done, Failed, Phase, Progress
from contract.models import PullRequest
from contract.redis_keys import queue_name
from contract.tenants import Tenant
from relay.log import Log
from relay.queue import Queue

_STEP = 0.01
"""Progress that is worth an event."""


async def pulled(
    queue: Queue, log: Log, backend: str, model: str, tenant: str
) -> AsyncGenerator[Phase, None]:
    """Pull a model on a backend, or follow whoever does; tells how far it is.

    Leaving early does not stop the pull. Raises ModelMissing if it fails, RelayUnavailable.
    """
    request = PullRequest(model=model, backend=backend)
    pulls = queue_name(backend, "pull")
    record, _ = await queue.enqueue(request, queue=pulls, tenant=Tenant(name=tenant))
    told: float | None = None
    yield Phase(phase="pulling")
    async with aclosing(log.follow(record.id)) as pages:
        async for frames in pages:
            for frame in frames:
                progress = _progress(frame.event, model)
                if progress is not None and (told is None or progress - told >= _STEP):
                    told = progress
                    yield Phase(phase="pulling", progress=progress)


def _progress(event: AnyEvent, model: str) -> float | None:
    """0 to 1 where the event tells; raises ModelMissing where it says that the pull failed."""
    match event:
        case Progress(overall_total_bytes=int(total), overall_completed_bytes=int(completed)):
            return round(min(1.0, completed / total), 3) if total else None
        case Failed(code=code, message=message):
            raise ModelMissing(f"{model} is not there, and pulling it failed: {message} ({code})")
        case Cancelled():
            raise ModelMissing(f"{model} is not there, and its pull was cancelled")
        case Done():
            return 1.0
        case _:
            return None
