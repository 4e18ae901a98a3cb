"""The one Celery task: a ticket, which says that there is work in a queue."""

import logging
from collections.abc import Callable

from celery import Celery

from contract.errors import RelayUnavailable
from contract.names import TICKET_TASK
from workers.bridge import async_task
from workers.worker import Worker

_log = logging.getLogger(__name__)


def register_ticket(app: Celery, worker_of: Callable[[], Worker]) -> None:
    """Let the app answer tickets; `worker_of` gives the worker once its lifespan has begun."""

    @async_task(app, name=TICKET_TASK, ignore_result=True)
    async def ticket(queue: str) -> None:
        try:
            await worker_of().work(queue)
        except RelayUnavailable as error:
            # A ticket is a hint: the reapers send as many as jobs wait.
            _log.warning("a ticket of %s comes to nothing: %s", queue, error)
