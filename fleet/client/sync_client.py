"""The synchronous client: `AsyncClient`, run in a thread of its own.

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
from fleet.client.blocking import Blocking, steps, waits, walk
from fleet.client.job import AsyncJob
from fleet.client.map import REQUESTS_IN_FLIGHT, Asked, KeyOf, MapResult

Fields = ParamSpec("Fields")


def _hands_out_a_job(
    ask: Callable[Concatenate[Any, Fields], Awaitable[AsyncJob]],
) -> Callable[Concatenate[Any, Fields], "Job"]:
    found = waits(ask)

    @wraps(ask)
    def asked(self: Blocking, /, *args: Fields.args, **fields: Fields.kwargs) -> "Job":
        return Job(self._portal, found(self, *args, **fields))

    return asked


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

    pages = steps(AsyncJob.pages)
    frames = steps(AsyncJob.frames)
    events = steps(AsyncJob.events)
    words = steps(AsyncJob.words)
    result = waits(AsyncJob.result)
    outcome = waits(AsyncJob.outcome)
    registered = waits(AsyncJob.registered)
    view = waits(AsyncJob.view)
    cancel = waits(AsyncJob.cancel)
    retry = _hands_out_a_job(AsyncJob.retry)


class Batches(Blocking):
    """Submits, reads, cancels and downloads batches; see `fleet.client.batches.AsyncBatches`."""

    submit = waits(AsyncBatches.submit)
    look = waits(AsyncBatches.look)
    cancel = waits(AsyncBatches.cancel)
    newest = waits(AsyncBatches.newest)
    page = waits(AsyncBatches.page)
    fetch = steps(AsyncBatches.fetch)


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

    def job(self, job_id: str) -> Job:
        """A handle on a job by its id; sends no request.

        A unique prefix of the id, of four digits or more, is enough.
        """
        return Job(self._portal, self._fleet.job(job_id))

    def map(
        self,
        /,
        requests: Iterable[Asked],
        *,
        in_flight: int = REQUESTS_IN_FLIGHT,
        ordered: bool = True,
        kind: Kind | None = None,
        idempotency_key: KeyOf | None = None,
        **fields: Any,
    ) -> Generator[MapResult, None, None]:
        """Yield results of many requests, in order or as they complete; see `AsyncClient.map`.

        The requests are read in the thread that iterates.
        """
        many = self._fleet.many(kind=kind, idempotency_key=idempotency_key, **fields)
        return walk(self._portal, enumerate(requests), many.one, in_flight, ordered=ordered)

    enqueue = _hands_out_a_job(AsyncClient.enqueue)
    chat = steps(AsyncClient.chat)
    embed = waits(AsyncClient.embed)
    image = waits(AsyncClient.image)
    pull = steps(AsyncClient.pull)
    show = waits(AsyncClient.show)
    load = waits(AsyncClient.load)
    unload = waits(AsyncClient.unload)
    delete = waits(AsyncClient.delete)
    copy = waits(AsyncClient.copy)
    create = waits(AsyncClient.create)
    running = waits(AsyncClient.running)
    jobs = waits(AsyncClient.jobs)
    dead = waits(AsyncClient.dead)
    dead_letter = waits(AsyncClient.dead_letter)
    purge_dead = waits(AsyncClient.purge_dead)
    dead_messages = waits(AsyncClient.dead_messages)
    purge_dead_messages = waits(AsyncClient.purge_dead_messages)
    add_backend = waits(AsyncClient.add_backend)
    remove_backend = waits(AsyncClient.remove_backend)
    create_key = waits(AsyncClient.create_key)
    keys = waits(AsyncClient.keys)
    revoke_key = waits(AsyncClient.revoke_key)
    backends = waits(AsyncClient.backends)
    models = waits(AsyncClient.models)
    queues = waits(AsyncClient.queues)
    workers = waits(AsyncClient.workers)
