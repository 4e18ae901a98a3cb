"""The Celery tasks: tickets, which say that there is work, jobs of others, and what is neither."""

import base64
import logging
from collections.abc import Callable
from typing import Any

from celery import Celery

from contract.errors import RelayUnavailable
from contract.redis_keys import TICKET_TASK, UNREADABLE_TASK
from contract.requests import Kind
from contract.tenants import DEFAULT_TENANT
from workers.celery_pool.greenlet_bridge import async_task
from workers.foreign_tasks import TASKS, TENANT_HEADER, fields_of
from workers.worker import Worker

_log = logging.getLogger(__name__)


def register_ticket(app: Celery, worker_of: Callable[[], Worker]) -> None:
    """Let the app answer tickets; `worker_of` gives the worker once its lifespan has begun."""

    @async_task(app, name=TICKET_TASK, bind=True, ignore_result=True)
    async def ticket(self: Any, /, *_: Any, **_newer: Any) -> None:
        # What a ticket says is where it stands; a newer version may say more.
        queue = self.request.delivery_info["routing_key"]
        try:
            await worker_of().work(queue)
        except RelayUnavailable as error:
            # A ticket is a hint: the reapers send as many as jobs wait.
            _log.warning("a ticket of %s comes to nothing: %s", queue, error)


def register_unreadable(app: Celery, worker_of: Callable[[], Worker]) -> None:
    """Let the app set aside what workers/celery_pool/transport.py could not read."""

    @async_task(app, name=UNREADABLE_TASK, bind=True, ignore_result=True)
    async def unreadable(
        self: Any, /, reason: str, size_bytes: int, data: str, **task: Any
    ) -> None:
        queue = self.request.delivery_info["routing_key"]
        _log.error("a message in %s was set aside (`fleet dead messages`): %s", queue, reason)
        await worker_of().adoption.set_aside(
            queue, reason=reason, size_bytes=size_bytes, data=base64.b64decode(data), **task
        )


def register_jobs(app: Celery, worker_of: Callable[[], Worker]) -> None:
    """Let the app take jobs as any Celery application sends them (docs/celery.md)."""
    for name, kind in TASKS.items():
        _register_job(app, name, kind, worker_of)


def _register_job(app: Celery, name: str, kind: Kind, worker_of: Callable[[], Worker]) -> None:
    @async_task(app, name=name, bind=True, ignore_result=True)
    async def job(self: Any, /, *args: Any, **kwargs: Any) -> None:
        message = self.request
        queue = message.delivery_info["routing_key"]
        tenant = getattr(message, TENANT_HEADER, None) or DEFAULT_TENANT.name
        worker = worker_of()
        try:
            await worker.adoption.adopt(kind, message.id, queue, fields_of(args, kwargs), tenant)
            # The message is the job's ticket too.
            await worker.work(queue)
        except RelayUnavailable as error:
            _log.warning("task %s in %s comes to nothing now: %s", message.id, queue, error)
