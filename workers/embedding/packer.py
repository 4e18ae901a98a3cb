"""Packs the texts of embed jobs into requests: many jobs, one round trip (anything-llm #4529).

Each job calls `embed` as it would call its backend, and receives its own vectors only. A text
that several jobs need is sent once; texts that exceed one request are sent in several. The texts
of a cancelled job are removed; a request is cancelled when no job needs any of its texts.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from contract.embeddings import EmbedRequest, is_finite
from contract.events import Done, Phase, Vectors
from workers.backends.protocols import Embed, LimitsEmbedBatch, Stream
from workers.embedding.options import PackingOptions, Text, texts_of
from workers.embedding.packing_check import PackingChecks
from workers.embedding.request_sender import Budget, RequestSender
from workers.embedding.text_queue import EmbedJob, QueuedText


class VectorMemory(Protocol):
    """Stores vectors by tenant and the digest of text and options; never raises."""

    async def get(self, digests: Sequence[str]) -> list[bytes | None]:
        """Rows of little-endian float32, in the order of the digests; None is unknown."""
        ...

    async def put(self, rows: Mapping[str, bytes]) -> None:
        """Keep rows by their digests."""
        ...


_RECENT_JOBS: Final = 8
"""Jobs whose sizes are the estimate for the next one."""
_PUTS: Final = 4
"""Concurrent writes to the memory; the vectors of further requests are not stored."""


@dataclass(frozen=True, slots=True)
class PackingRules:
    """How an endpoint's texts are packed."""

    budget: Budget = field(default_factory=lambda: Budget(texts=256, tokens=16384))
    max_requests: int = 4
    """Concurrent requests."""
    wait_s: float = 0.005
    """Longest wait for further texts, only while the backend is busy."""
    shares_vectors: bool = False
    """Whether tenants share vectors."""


class Packer:
    """All embed jobs of one endpoint."""

    def __init__(
        self,
        backend: Embed,
        rules: PackingRules,
        *,
        memory: VectorMemory | None = None,
        on_capacity_change: Callable[[], None] = lambda: None,
        on_checked: Callable[[], None] = lambda: None,
    ) -> None:
        """The callbacks are called when `has_capacity`, and when `packs`, has changed."""
        self._backend = backend
        self._rules = rules
        self._memory = memory
        self._on_capacity_change = on_capacity_change
        self._checks = PackingChecks(backend, on_checked)
        self._sender = RequestSender(
            backend, self._budget, self._checks,
            max_requests=rules.max_requests, wait_s=rules.wait_s, on_rows=self._keep,
        )  # fmt: skip
        self._jobs: set[EmbedJob] = set()
        self._expected = 0
        self._recent_counts: deque[int] = deque([rules.budget.texts], maxlen=_RECENT_JOBS)
        self._max_texts = rules.budget.texts
        self._had_capacity = True
        self._puts: set[asyncio.Task[None]] = set()

    def packs(self, model: str) -> bool | None:
        """Whether texts of several jobs share requests; None before the check."""
        return self._checks.of(model)

    @property
    def has_capacity(self) -> bool:
        """Whether the worker should claim another job: its texts would be sent soon."""
        rounds = self._rules.max_requests + 1
        texts = sum(job.left_texts for job in self._jobs)
        tokens = sum(job.left_tokens for job in self._jobs)
        texts += self._expected * max(self._recent_counts)
        return texts < rounds * self._max_texts and tokens < rounds * self._rules.budget.tokens

    def expect_job(self) -> "ExpectedJob":
        """Count a job that is being claimed, whose number of texts is not known yet."""
        self._count_expected(1)
        return ExpectedJob(self, self._count_expected)

    def _count_expected(self, change: int) -> None:
        self._expected += change
        self._notify_capacity()

    async def embed(
        self, request: EmbedRequest, tenant: str = "", *, keeps: bool = True
    ) -> Stream[Phase | Vectors | Done]:
        """The vectors of one job of a tenant, in order, in blocks; raises BackendError.

        `keeps`: whether they may be cached.
        """
        scope = "" if self._rules.shares_vectors else tenant
        options, job = PackingOptions.of(request), EmbedJob(texts_of(request), scope, keeps=keeps)
        self._jobs.add(job)
        self._recent_counts.append(request.count)
        self._max_texts = self._budget(request.model).texts
        self._notify_capacity()
        try:
            while not job.is_complete:
                job.changed.clear()
                await self._queue_texts(job, options)
                for event in job.events():
                    yield event
                self._notify_capacity()
                if job.error is not None:
                    raise job.error
                if not (job.may_queue(self._window(options)) or job.is_complete):
                    await job.changed.wait()
            yield job.done()
        finally:
            self._jobs.discard(job)
            self._sender.queue(options).remove(job)
            self._sender.send_due()
            self._notify_capacity()

    async def aclose(self) -> None:
        """Cancel every request, and fail the jobs that wait with BackendUnreachable."""
        await self._checks.aclose()
        await self._sender.aclose()
        for task in self._puts:
            task.cancel()
        if self._puts:
            await asyncio.wait(self._puts)

    def _budget(self, model: str) -> Budget:
        """The bounds of the settings and of the adapter."""
        budget = self._rules.budget
        if not isinstance(self._backend, LimitsEmbedBatch):
            return budget
        return Budget(min(budget.texts, self._backend.max_texts(model)), budget.tokens)

    def _window(self, options: PackingOptions) -> int:
        """Most texts of one job that are queued or sent: their vectors are held in memory."""
        return self._budget(options.model).texts * (self._rules.max_requests + 1)

    async def _queue_texts(self, job: EmbedJob, options: PackingOptions) -> None:
        """Queue more texts of a job, or add their rows if the memory has them."""
        texts = job.texts[job.queued : job.yielded + self._window(options)]
        if not texts:
            return
        known = await self._known(options, texts, job.scope)
        queue, now = self._sender.queue(options), asyncio.get_running_loop().time()
        for row in known:
            if row is None:
                queue.add(job, shares=self.packs(options.model) is True, now=now)
            else:
                job.add_row([job.queued], row)
                job.queued += 1
        self._sender.send_due()

    async def _known(
        self, options: PackingOptions, texts: Sequence[Text], scope: str
    ) -> Sequence[bytes | None]:
        # Where a batch changes vectors, one from a batch is not reused.
        if self._memory is None or self.packs(options.model) is False:
            return [None] * len(texts)
        known = await self._memory.get([_name(options, text, scope) for text in texts])
        # Versions before 0.2 stored NaN, too.
        return [row if row is not None and is_finite(row) else None for row in known]

    def _keep(self, options: PackingOptions, rows: Mapping[QueuedText, bytes]) -> None:
        if self._memory is None or self.packs(options.model) is False or len(self._puts) >= _PUTS:
            return
        named = {
            _name(options, each.text, each.scope): row for each, row in rows.items() if each.keeps
        }
        task = asyncio.create_task(self._memory.put(named))
        self._puts.add(task)
        task.add_done_callback(self._puts.discard)

    def _notify_capacity(self) -> None:
        if self.has_capacity is not self._had_capacity:
            self._had_capacity = not self._had_capacity
            self._on_capacity_change()


def _name(options: PackingOptions, text: Text, scope: str) -> str:
    """The name of a vector in the memory."""
    digest = options.digest(text)
    return f"{scope}:{digest}" if scope else digest


class ExpectedJob:
    """A job that a packer expects, until its texts arrive or it is known that none will."""

    def __init__(self, packer: Packer, count: Callable[[int], None]) -> None:
        """Made by `Packer.expect_job`, which has counted it; `count` changes that number."""
        self.tenant = ""
        """Whose job it is, once that is known."""
        self.keeps = True
        """Whether its vectors may be cached."""
        self._packer = packer
        self._count = count
        self._is_expected = True

    def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """Embed the job's texts together with those of other jobs; raises BackendError."""
        self.settle()
        return self._packer.embed(request, self.tenant, keeps=self.keeps)

    def settle(self) -> None:
        """Expect the job no longer; a second call changes nothing."""
        if self._is_expected:
            self._is_expected = False
            self._count(-1)
