"""The one Celery task: a ticket, which says that there is work in a queue."""

from collections.abc import Callable

from celery import Celery

from contract.names import TICKET_TASK
from workers.bridge import async_task
from workers.worker import Worker


def register_ticket(app: Celery, worker_of: Callable[[], Worker]) -> None:
    """Let the app answer tickets; `worker_of` gives the worker once its lifespan has begun."""

    @async_task(app, name=TICKET_TASK, ignore_result=True)
    async def ticket(queue: str) -> None:
        await worker_of().work(queue)
