"""The client for code without a loop: `AsyncClient`, run on a thread of its own.

    with Client() as fleet:
        for word in fleet.chat("Why is the sky blue?", model="llama3.2"):
            print(word, end="")

Nothing is written twice: every method asks its asynchronous sibling and waits.
"""

from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from contract.dead import DeadMessages, DeadPage, DeadView
from contract.events import (
    BEGINNING,
    AnyEvent,
    EventId,
)
from contract.frames import Frame
from contract.jobs import JobAccepted, JobPage, JobView
from contract.keys import IssuedKey, KeyFacts
from contract.requests import Kind, Request
from contract.result import Result, Status
from contract.roster import QueueView, WorkerReport
from fleet.aio import AsyncClient
from fleet.asking import Words
from fleet.job import AsyncJob
from fleet.mapping import REQUESTS_IN_FLIGHT, Answer, Asked, KeyOf
from fleet.pulling import items_of, walk
from fleet.reports import BackendGone, BackendView, ModelView

if TYPE_CHECKING:
    import numpy as np

Item = TypeVar("Item")


class Job:
    """A handle on a job; see `AsyncJob`."""

    def __init__(self, portal: BlockingPortal, job: AsyncJob) -> None:
        """Wrap the asynchronous handle."""
        self._portal = portal
        self._job = job

    @property
    def id(self) -> str:
        """Of the job."""
        return self._job.id

    @property
    def accepted(self) -> JobAccepted | None:
        """What the enqueue answered, if this handle comes from one."""
        return self._job.accepted

    def frames(self, after: EventId = BEGINNING) -> Generator[Frame, None, None]:
        """Like `events`, with the id, the time and the JSON of each."""
        return items_of(self._portal, self._job.frames(after))

    def events(self, after: EventId = BEGINNING) -> Generator[AnyEvent, None, None]:
        """Every event to the last word, each once, whatever happens to shims and connections."""
        return items_of(self._portal, self._job.events(after))

    def result(self, timeout_s: float | None = None) -> Result:
        """The whole answer once the job is done; raises what it failed with, or GaveUpWaiting."""
        return self._portal.call(self._job.result, timeout_s)

    def registered(self, timeout_s: float = 60.0) -> None:
        """Wait until a Celery message that was sent has become this job; see `AsyncJob`."""
        self._portal.call(self._job.registered, timeout_s)

    def view(self, wait_s: float | None = None) -> JobView:
        """Its record and its answer so far; with `wait_s`, waits that long for the end."""
        return self._portal.call(self._job.view, wait_s)

    def cancel(self) -> JobView:
        """Stop it in any phase."""
        return self._portal.call(self._job.cancel)

    def retry(self) -> "Job":
        """Run a dead letter again; the answer is the new job, and the same when asked again."""
        return Job(self._portal, self._portal.call(self._job.retry))


class Client:
    """A caller of the fleet; see `AsyncClient`. Close it, or use it in a `with`."""

    def __init__(self, url: str | None = None, **options: Any) -> None:
        """Take what is not given from FLEET_URL, FLEET_API_KEY and FLEET_GIVE_UP_S."""
        self._fleet = AsyncClient(url, **options)
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal())

    def __enter__(self) -> Self:
        """Nothing to wait for."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection; jobs go on."""
        self.close()

    def close(self) -> None:
        """Close every connection; jobs go on."""
        with self._stack:
            self._portal.call(self._fleet.aclose)

    def _ask(self, ask: Callable[..., Awaitable[Item]], *args: Any, **fields: Any) -> Item:
        async def asked() -> Item:
            return await ask(*args, **fields)

        return self._portal.call(asked)

    def enqueue(self, request: Request | Kind, **fields: Any) -> Job:
        """Put a job on its queue; give a request, or a kind and its fields."""
        return Job(self._portal, self._ask(self._fleet.enqueue, request, **fields))

    def map(
        self,
        requests: Iterable[Asked],
        *,
        kind: Kind | None = None,
        in_flight: int = REQUESTS_IN_FLIGHT,
        ordered: bool = True,
        idempotency_key: KeyOf | None = None,
        **fields: Any,
    ) -> Generator[Answer, None, None]:
        """Answers to many requests, in their order or as they come; see `AsyncClient.map`.

        The requests are taken by the thread that takes the answers.
        """
        many = self._fleet.many(kind=kind, idempotency_key=idempotency_key, **fields)
        return walk(self._portal, enumerate(requests), many.one, in_flight, ordered=ordered)

    def job(self, job_id: str) -> Job:
        """A handle on a job that somebody enqueued; nothing is asked yet.

        The first digits of an id do, four or more, where only one of the caller's begins so.
        """
        return Job(self._portal, self._fleet.job(job_id))

    def chat(self, words: Words, *, model: str, **fields: Any) -> Generator[str, None, None]:
        """Words of an answer as they come; leaving the loop early cancels the job."""
        return items_of(self._portal, self._fleet.chat(words, model=model, **fields))

    def embed(
        self, texts: Sequence[str], *, model: str, **fields: Any
    ) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
        """Vectors in the order of the texts, one row each, as a float32 array."""
        return self._ask(self._fleet.embed, texts, model=model, **fields)

    def image(self, prompt: str, *, model: str, **fields: Any) -> list[bytes]:
        """Make images from words, `count` of them; `image` may hold the bytes of one to start from.

        Raises the error that the job failed with.
        """
        return self._ask(self._fleet.image, prompt, model=model, **fields)

    def pull(
        self, model: str, *, backend: str | None = None, **fields: Any
    ) -> Generator[AnyEvent, None, None]:
        """Download a model to a backend; yields its events. Leaving early does not stop it."""
        return items_of(self._portal, self._fleet.pull(model, backend=backend, **fields))

    def show(self, model: str, **fields: Any) -> dict[str, Any]:
        """Everything that a backend knows of a model."""
        return self._ask(self._fleet.show, model, **fields)

    def load(self, model: str, **fields: Any) -> Result:
        """Bring a model into memory."""
        return self._ask(self._fleet.load, model, **fields)

    def unload(self, model: str, **fields: Any) -> Result:
        """Take a model out of memory."""
        return self._ask(self._fleet.unload, model, **fields)

    def delete(self, model: str, **fields: Any) -> Result:
        """Delete a model from a backend."""
        return self._ask(self._fleet.delete, model, **fields)

    def copy(self, model: str, destination: str, **fields: Any) -> Result:
        """Give a model a second name."""
        return self._ask(self._fleet.copy, model, destination, **fields)

    def create(self, model: str, source: str, **fields: Any) -> Result:
        """Make a model from another."""
        return self._ask(self._fleet.create, model, source, **fields)

    def running(self, backend: str | None = None) -> dict[str, Any]:
        """What a backend tells of the models that it has in memory."""
        return self._ask(self._fleet.running, backend)

    def jobs(
        self,
        *,
        status: Status | None = None,
        kind: Kind | None = None,
        queue: str | None = None,
        backend: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> JobPage:
        """Records, newest first; `before` is the `next` of the page before."""
        return self._ask(
            self._fleet.jobs,
            status=status,
            kind=kind,
            queue=queue,
            backend=backend,
            limit=limit,
            before=before,
        )

    def dead(
        self,
        *,
        queue: str | None = None,
        kind: Kind | None = None,
        tenant: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> DeadPage:
        """Dead letters, the last to die first; `before` is the `next` of the page before."""
        return self._ask(
            self._fleet.dead, queue=queue, kind=kind, tenant=tenant, limit=limit, before=before
        )

    def dead_letter(self, job_id: str) -> DeadView:
        """All about one dead letter, with what was asked for; raises JobNotFound."""
        return self._ask(self._fleet.dead_letter, job_id)

    def dead_messages(self, *, limit: int = 50) -> DeadMessages:
        """Messages in queues that no worker could read, the newest first. Takes an admin's key."""
        return self._ask(self._fleet.dead_messages, limit=limit)

    def purge_dead_messages(self) -> int:
        """Forget all of these. Returns how many; takes an admin's key."""
        return self._ask(self._fleet.purge_dead_messages)

    def purge_dead(self, job_id: str | None = None, **which: str | None) -> int:
        """Forget one dead letter for good, or all of a `queue`, `kind` or `tenant`."""
        return self._ask(self._fleet.purge_dead, job_id, **which)

    def add_backend(self, name: str, dsn: str) -> BackendView | None:
        """Start a worker for a backend; None: it has not reported yet."""
        return self._ask(self._fleet.add_backend, name, dsn)

    def remove_backend(self, name: str) -> BackendGone:
        """End a backend's workers; what waits for it waits on."""
        return self._ask(self._fleet.remove_backend, name)

    def create_key(self, tenant: str, **fields: Any) -> IssuedKey:
        """Make an API key for a tenant; `.key` is shown this once. The first must be an admin's."""
        return self._ask(self._fleet.create_key, tenant, **fields)

    def keys(self) -> tuple[KeyFacts, ...]:
        """Every API key, without the keys themselves. Takes an admin's key."""
        return self._ask(self._fleet.keys)

    def revoke_key(self, key_id: str) -> KeyFacts:
        """Take a key away; the shims refuse it within seconds."""
        return self._ask(self._fleet.revoke_key, key_id)

    def backends(self) -> tuple[BackendView, ...]:
        """Every backend, as its live workers see it."""
        return self._ask(self._fleet.backends)

    def models(self) -> tuple[ModelView, ...]:
        """Every model on every live backend."""
        return self._ask(self._fleet.models)

    def queues(self) -> tuple[QueueView, ...]:
        """Every queue that a live worker serves."""
        return self._ask(self._fleet.queues)

    def workers(self) -> tuple[WorkerReport, ...]:
        """Every live worker."""
        return self._ask(self._fleet.workers)
