"""The synchronous client: runs `AsyncClient` on an event loop in another thread.

    with Client() as fleet:
        for word in fleet.chat("Why is the sky blue?", model="llama3.2"):
            print(word, end="")

Every method is made from the asynchronous one (blocking.py), except those that return a handle, and
`map`, which reads its requests in the caller's thread.
"""

from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import ExitStack
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

import httpx
from anyio.from_thread import start_blocking_portal

from contract.jobs import JobAccepted
from contract.requests import Kind
from fleet.client.async_client import AsyncClient
from fleet.client.batches import AsyncBatches
from fleet.client.blocking import Blocking, blocking_generator, blocking_method, map_blocking
from fleet.client.job import AsyncJob
from fleet.client.map import REQUESTS_IN_FLIGHT, KeyFactory, MapResult, RequestLike
from fleet.client.webhooks import AsyncWebhooks

Fields = ParamSpec("Fields")


def _job_method(
    method: Callable[Concatenate[Any, Fields], Awaitable[AsyncJob]],
) -> Callable[Concatenate[Any, Fields], "Job"]:
    call = blocking_method(method)

    @wraps(method)
    def blocking(self: Blocking, /, *args: Fields.args, **fields: Fields.kwargs) -> "Job":
        return Job(self._portal, call(self, *args, **fields))

    return blocking


class Job(Blocking):
    """A handle on a job; see `AsyncJob`."""

    @property
    def id(self) -> str:
        """The id of the job."""
        return str(self._sibling.id)

    @property
    def accepted(self) -> JobAccepted | None:
        """The response to the enqueue, if this handle is from one."""
        found: JobAccepted | None = self._sibling.accepted
        return found

    pages = blocking_generator(AsyncJob.pages)
    frames = blocking_generator(AsyncJob.frames)
    events = blocking_generator(AsyncJob.events)
    words = blocking_generator(AsyncJob.words)
    result = blocking_method(AsyncJob.result)
    outcome = blocking_method(AsyncJob.outcome)
    registered = blocking_method(AsyncJob.registered)
    view = blocking_method(AsyncJob.view)
    cancel = blocking_method(AsyncJob.cancel)
    retry = _job_method(AsyncJob.retry)


class Batches(Blocking):
    """Submits, reads, cancels and downloads batches; see `fleet.client.batches.AsyncBatches`."""

    submit = blocking_method(AsyncBatches.submit)
    look = blocking_method(AsyncBatches.look)
    cancel = blocking_method(AsyncBatches.cancel)
    newest = blocking_method(AsyncBatches.newest)
    page = blocking_method(AsyncBatches.page)
    fetch = blocking_generator(AsyncBatches.fetch)


class Webhooks(Blocking):
    """Manages the caller's webhooks; see `fleet.client.webhooks.AsyncWebhooks`."""

    add = blocking_method(AsyncWebhooks.add)
    list = blocking_method(AsyncWebhooks.list)
    get = blocking_method(AsyncWebhooks.get)
    change = blocking_method(AsyncWebhooks.change)
    remove = blocking_method(AsyncWebhooks.remove)
    rotate = blocking_method(AsyncWebhooks.rotate)
    deliveries = blocking_method(AsyncWebhooks.deliveries)
    replay = blocking_method(AsyncWebhooks.replay)


class Client(Blocking):
    """A client of the fleet; see `AsyncClient`. Close it, or use it in a `with` statement."""

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        give_up_s: float | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Defaults are FLEET_URL, FLEET_API_KEY and FLEET_GIVE_UP_S; raises InvalidSetting."""
        self._fleet = AsyncClient(url, api_key=api_key, give_up_s=give_up_s, transport=transport)
        self._stack = ExitStack()
        super().__init__(self._stack.enter_context(start_blocking_portal()), self._fleet)

    def __enter__(self) -> Self:
        """Return the client; it connects on first use."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection; jobs continue."""
        self.close()

    def close(self) -> None:
        """Close every connection; jobs continue."""
        with self._stack:
            self._portal.call(self._fleet.aclose)

    @property
    def batches(self) -> Batches:
        """Files of requests, and the batches that run them."""
        return Batches(self._portal, self._fleet.batches)

    @property
    def webhooks(self) -> Webhooks:
        """Addresses to which the ends of jobs and batches are posted."""
        return Webhooks(self._portal, self._fleet.webhooks)

    def job(self, job_id: str) -> Job:
        """A handle on a job by its id; sends no request.

        A unique prefix of the id, of four digits or more, is enough.
        """
        return Job(self._portal, self._fleet.job(job_id))

    def map(
        self,
        /,
        requests: Iterable[RequestLike],
        *,
        in_flight: int = REQUESTS_IN_FLIGHT,
        ordered: bool = True,
        kind: Kind | None = None,
        idempotency_key: KeyFactory | None = None,
        **fields: Any,
    ) -> Generator[MapResult, None, None]:
        """Yield results of many requests, in order or as they complete; see `AsyncClient.map`.

        The requests are read in the thread that iterates.
        """
        many = self._fleet.many(kind=kind, idempotency_key=idempotency_key, **fields)
        return map_blocking(self._portal, enumerate(requests), many.one, in_flight, ordered=ordered)

    enqueue = _job_method(AsyncClient.enqueue)
    chat = blocking_generator(AsyncClient.chat)
    embed = blocking_method(AsyncClient.embed)
    rerank = blocking_method(AsyncClient.rerank)
    image = blocking_method(AsyncClient.image)
    pull = blocking_generator(AsyncClient.pull)
    show = blocking_method(AsyncClient.show)
    load = blocking_method(AsyncClient.load)
    unload = blocking_method(AsyncClient.unload)
    delete = blocking_method(AsyncClient.delete)
    copy = blocking_method(AsyncClient.copy)
    create = blocking_method(AsyncClient.create)
    running = blocking_method(AsyncClient.running)
    jobs = blocking_method(AsyncClient.jobs)
    scheduled = blocking_method(AsyncClient.scheduled)
    dead = blocking_method(AsyncClient.dead)
    dead_letter = blocking_method(AsyncClient.dead_letter)
    purge_dead = blocking_method(AsyncClient.purge_dead)
    dead_messages = blocking_method(AsyncClient.dead_messages)
    purge_dead_messages = blocking_method(AsyncClient.purge_dead_messages)
    add_backend = blocking_method(AsyncClient.add_backend)
    remove_backend = blocking_method(AsyncClient.remove_backend)
    usage = blocking_method(AsyncClient.usage)
    usage_limits = blocking_method(AsyncClient.usage_limits)
    limits = blocking_method(AsyncClient.limits)
    usage_file = blocking_method(AsyncClient.usage_file)
    create_key = blocking_method(AsyncClient.create_key)
    keys = blocking_method(AsyncClient.keys)
    audit = blocking_method(AsyncClient.audit)
    delete_tenant = blocking_method(AsyncClient.delete_tenant)
    tenant_receipt = blocking_method(AsyncClient.tenant_receipt)
    update_key = blocking_method(AsyncClient.update_key)
    rotate_key = blocking_method(AsyncClient.rotate_key)
    revoke_key = blocking_method(AsyncClient.revoke_key)
    aliases = blocking_method(AsyncClient.aliases)
    alias = blocking_method(AsyncClient.alias)
    set_alias = blocking_method(AsyncClient.set_alias)
    remove_alias = blocking_method(AsyncClient.remove_alias)
    backends = blocking_method(AsyncClient.backends)
    models = blocking_method(AsyncClient.models)
    queues = blocking_method(AsyncClient.queues)
    pause_queue = blocking_method(AsyncClient.pause_queue)
    resume_queue = blocking_method(AsyncClient.resume_queue)
    set_run_windows = blocking_method(AsyncClient.set_run_windows)
    workers = blocking_method(AsyncClient.workers)
