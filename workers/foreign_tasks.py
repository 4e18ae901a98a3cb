"""Jobs that other Celery applications send: the message becomes a job, and is its ticket.

    app.send_task("fleet.chat", kwargs={"model": ..., "messages": [...]}, queue="ollama.chat")

The keyword arguments are the request as HTTP accepts it. Once registered it is an ordinary job,
with the task's id as its own (`redis_keys.job_id`). Messages that wait while no slot is free are
registered too, so that they have their position in the queue and can be cancelled. An invalid
request becomes a failed job with the reason: a producer does not read the logs of workers.
"""

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from contract import redis_keys
from contract.errors import (
    FleetError,
    InternalError,
    InvalidRequest,
    QueueError,
    RelayUnavailable,
    RequestError,
)
from contract.jobs import TASKS, any_request
from contract.requests import Kind
from contract.tenants import DEFAULT_TENANT, Tenant
from contract.wire import must_be_text, written
from relay.chance import DICE
from relay.claims import Claims
from relay.connection import Connection
from relay.dead_letters import UnreadableMessages
from relay.queue import Queue
from relay.webhooks.webhook_store import WebhookStore
from telemetry.trace_context import context_of, working_for

_log = logging.getLogger(__name__)

TENANT_HEADER: Final = "fleet_tenant"
"""Header of the message that names the tenant; a producer that can write to Redis is trusted."""
_AT_ONCE: Final = 100
"""Messages of a queue that `adopt_waiting` registers in one call."""
_GIVE_UP_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 2.0


class ForeignTasks:
    """Registers messages of other Celery applications as jobs."""

    def __init__(self, connection: Connection) -> None:
        """Register through this connection."""
        self._connection = connection
        self._webhooks = WebhookStore(connection)
        self._queue = Queue(connection, self._webhooks.has)
        self._claims = Claims(connection)
        self._unreadable = UnreadableMessages(connection)

    async def adopt(
        self, kind: Kind, task_id: str, queue: str, fields: Mapping[str, Any], tenant: str
    ) -> None:
        """Register a message as a job; a second time changes nothing.

        Retries for a minute while Redis is away, because no other worker has the message; raises
        RelayUnavailable after that.
        """
        await _with_retries(
            lambda: self._register(kind, task_id, queue, fields, tenant),
            f"task {written(task_id)} was not registered, and is lost",
        )

    async def set_aside(
        self, queue: str, *, reason: str, size_bytes: int, data: bytes,
        kind: Kind | None = None, task_id: str | None = None,
    ) -> None:  # fmt: skip
        """Keep a message that no worker can read; if it named a job, that is a failed one.

        Raises RelayUnavailable after a minute.
        """
        id = redis_keys.job_id(task_id) if kind and task_id else None
        await _with_retries(
            lambda: self._unreadable.put(
                queue, reason=reason, size_bytes=size_bytes, data=data, job_id=id
            ),
            f"a message of {size_bytes} bytes in {queue} was not set aside, and is lost",
        )
        if kind and id:
            error = InvalidRequest(f"the message cannot be read: {reason}")
            await self._queue.refuse(id, kind=kind, queue=queue, error=error)

    async def _register(
        self, kind: Kind, task_id: str, queue: str, fields: Mapping[str, Any], tenant: str
    ) -> None:
        id = redis_keys.job_id(task_id)
        try:
            owner = _tenant(tenant)
            request = _request(kind, queue, fields)
            await self._webhooks.recent()
            await self._queue.enqueue(request, queue=queue, tenant=owner, job_id=id)
        except RelayUnavailable:
            raise
        except (RequestError, QueueError) as error:
            await self._refuse(id, task_id, kind, queue, error)
        except Exception:  # noqa: BLE001 - a producer may send anything
            # Whatever a producer sends, its task gets a record and the worker continues.
            _log.exception("task %s: unexpected error", written(task_id))
            defect = InternalError("a defect in the fleet; the worker's log has the details")
            await self._refuse(id, task_id, kind, queue, defect)

    async def _refuse(
        self, job_id: str, task_id: str, kind: Kind, queue: str, error: FleetError
    ) -> None:
        _log.warning("task %s is refused: %s", written(task_id), error)
        await self._queue.refuse(job_id, kind=kind, queue=queue, error=error)

    async def adopt_waiting(self, queue: str) -> int:
        """Register the messages that wait in a queue's list, at most 100. Returns how many.

        For queues that are not consumed because no slot is free. A message is removed once its job
        is registered, and replaced by a ticket. Raises RelayUnavailable.
        """
        waiting = await self._connection.command("LRANGE", queue, -_AT_ONCE, -1)
        found = [(text, message) for text in waiting if (message := foreign(text)) is not None]
        for text, message in found:
            with working_for(message.trace):
                await self.adopt(message.kind, message.id, queue, message.fields, message.tenant)
            if await self._connection.command("LREM", queue, -1, text):
                await self._claims.give_ticket_back(queue)
        return len(found)


async def _with_retries(do: Callable[[], Awaitable[None]], lost: str) -> None:
    """Call an idempotent function until Redis answers; raises RelayUnavailable after a minute."""
    give_up_at = asyncio.get_running_loop().time() + _GIVE_UP_S
    while True:
        try:
            await do()
        except RelayUnavailable as error:
            if asyncio.get_running_loop().time() > give_up_at:
                _log.error("%s: %s", lost, error)
                raise
            await asyncio.sleep(DICE.uniform(0.1, _LONGEST_PAUSE_S))
        else:
            return


class ForeignMessage:
    """A message of a producer: kind, task id, tenant and fields of the request."""

    def __init__(self, headers: Mapping[str, Any], body: Any) -> None:
        """Read task protocol 2: headers and `[args, kwargs, embed]`; raises LookupError."""
        self.kind = TASKS[headers["task"]]
        self.id = str(headers["id"])
        self.tenant = str(headers.get(TENANT_HEADER) or DEFAULT_TENANT.name)
        self.trace = context_of(headers.get("traceparent"), headers.get("tracestate"))
        self.fields = fields_of(body[0], body[1])


def foreign(text: bytes) -> ForeignMessage | None:
    """Return the message in an entry of a queue's list; None if it is a ticket or malformed."""
    if b'"fleet.ticket"' in text:
        return None
    try:
        envelope = json.loads(text)
        return ForeignMessage(envelope["headers"], json.loads(base64.b64decode(envelope["body"])))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        # The consumer sets it aside when it gets it (workers/celery_pool/message_check.py).
        return None


def fields_of(args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the request's fields; positional arguments become `args`, which is refused."""
    fields = dict(kwargs)
    return {"args": list(args), **fields} if args else fields


def _request(kind: Kind, queue: str, fields: Mapping[str, Any]) -> Any:
    """Return the request in a message; raises InvalidRequest."""
    if redis_keys.kind_of(queue) != kind:
        meant = f"{redis_keys.backend_of(queue)}.{kind}"
        raise InvalidRequest(f"queue {queue} takes no fleet.{kind}; that would be queue {meant}")
    must_be_text(dict(fields), "keyword argument")
    try:
        request = any_request.validate_python({**fields, "kind": kind}, strict=False)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"] if part != kind)
        raise InvalidRequest(f"keyword argument {where}: {first['msg']}") from None
    except RecursionError:
        raise InvalidRequest("the keyword arguments are nested too deeply") from None
    return request.model_copy(update={"backend": redis_keys.backend_of(queue)})


def _tenant(name: str) -> Tenant:
    try:
        return Tenant(name=name)
    except ValidationError:
        raise InvalidRequest(
            f"header {TENANT_HEADER}: {str(name)[:64]!r} is no tenant's name"
        ) from None
