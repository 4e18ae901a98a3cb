"""The Celery tasks: tickets, jobs that other Celery applications send, malformed messages."""

import base64
import logging
from typing import Any

from celery import Celery

from contract.errors import RelayUnavailable
from contract.jobs import TASKS
from contract.redis_keys import TICKET_TASK, UNREADABLE_TASK
from contract.requests import Kind
from contract.tenants import DEFAULT_TENANT
from telemetry.repeated_warnings import RepeatedWarnings
from telemetry.trace_context import context_of, working_for
from workers.celery_pool.greenlet_bridge import async_task
from workers.foreign_tasks import TENANT_HEADER, fields_of
from workers.lifetime import WorkerLifetime

_log = logging.getLogger(__name__)
_repeated = RepeatedWarnings(_log)


def register_ticket(app: Celery, lifetime: WorkerLifetime) -> None:
    """Register the task of a ticket: the worker runs jobs of the ticket's queue."""

    @async_task(app, name=TICKET_TASK, bind=True, ignore_result=True)
    async def ticket(self: Any, /, *_: Any, **_newer: Any) -> None:
        # Only its queue matters; a newer version may send arguments.
        queue = self.request.delivery_info["routing_key"]
        try:
            await lifetime.worker.work(queue)
        except RelayUnavailable as error:
            # A ticket is a hint: the maintainer sends as many as jobs wait.
            _repeated.warn("a ticket of %s is dropped: %s", queue, error)


def register_unreadable(app: Celery, lifetime: WorkerLifetime) -> None:
    """Register the task of a message that workers/celery_pool/redis_transport.py could not read."""

    @async_task(app, name=UNREADABLE_TASK, bind=True, ignore_result=True)
    async def unreadable(
        self: Any, /, reason: str, size_bytes: int, data: str, **task: Any
    ) -> None:
        queue = self.request.delivery_info["routing_key"]
        _log.error("a message in %s was set aside (`fleet dead messages`): %s", queue, reason)
        await lifetime.foreign_tasks.set_aside(
            queue, reason=reason, size_bytes=size_bytes, data=base64.b64decode(data), **task
        )


def register_jobs(app: Celery, lifetime: WorkerLifetime) -> None:
    """Register a task a kind of job, for other Celery applications (docs/celery.md)."""
    for name, kind in TASKS.items():
        _register_job(app, name, kind, lifetime)


def _register_job(app: Celery, name: str, kind: Kind, lifetime: WorkerLifetime) -> None:
    @async_task(app, name=name, bind=True, ignore_result=True)
    async def job(self: Any, /, *args: Any, **kwargs: Any) -> None:
        message = self.request
        queue = message.delivery_info["routing_key"]
        tenant = getattr(message, TENANT_HEADER, None) or DEFAULT_TENANT.name
        fields = fields_of(args, kwargs)
        try:
            # What OpenTelemetry's instrumentation of Celery adds to the headers of a task.
            names = ("traceparent", "tracestate")
            with working_for(context_of(*(getattr(message, name, None) for name in names))):
                await lifetime.foreign_tasks.adopt(kind, message.id, queue, fields, tenant)
            # The message is the job's ticket too.
            await lifetime.worker.work(queue)
        except RelayUnavailable as error:
            _repeated.warn(
                "task %s in %s does not run now: %s", message.id, queue, error, about=queue
            )
