"""The queue of texts that wait for a request, shared by embed jobs that ask for the same text.

Jobs of different scopes share requests, but no text: how soon a vector comes would tell one tenant
what another one embeds.
"""

import asyncio
from base64 import b64encode
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Final

from contract.errors import BadAnswer
from contract.events import Done, Phase, Timings, Usage, Vectors
from workers.embedding.options import PackingOptions, Text, tokens_of

_BLOCK_ROWS: Final = 256
_BLOCK_BYTES: Final = 512 * 1024


class QueuedText:
    """A text that is embedded once for all jobs that need it."""

    __slots__ = ("jobs", "keeps", "key", "rank", "request", "scope", "since", "text", "tokens")

    def __init__(self, key: Hashable, job: "EmbedJob", at: int, rank: int, since: float) -> None:
        """The text `at` of a job; `since` is the loop's time, the lowest `rank` is sent first."""
        self.key = key
        self.scope = job.scope
        self.keeps = False
        """Whether its vector may be cached, by one of its jobs."""
        self.text = job.texts[at]
        self.tokens = job.tokens[at]
        self.rank = rank
        self.since = since
        self.jobs: dict[EmbedJob, list[int]] = {}
        """The jobs that need it, with their row numbers; empty once no job does."""
        self.request: PackedRequest | None = None
        """The request in which it was sent."""

    def deliver(self, row: bytes) -> None:
        """Give its vector, little-endian float32, to its jobs."""
        for job, rows in self.jobs.items():
            job.add_row(rows, row)

    def finish(self, tokens: int = 0, *, is_counted: bool = True) -> None:
        """Remove it from its jobs, and add its tokens to their usage."""
        for job in self.jobs:
            job.finish(self, tokens, is_counted=is_counted)
        self.jobs.clear()


class EmbedJob:
    """The texts of one job, and its rows until they are yielded."""

    def __init__(self, texts: Sequence[Text], scope: str = "", *, keeps: bool = True) -> None:
        """No text is queued yet; vectors are shared among jobs of the same `scope`.

        `keeps`: whether they may be cached.
        """
        self.keeps = keeps
        self.texts = texts
        self.scope = scope
        self.tokens = [tokens_of(text) for text in texts]
        self.queued = 0
        """Texts that were queued or had a cached vector."""
        self.yielded = 0
        """Rows that were yielded."""
        self.rank = 0
        self.pending: set[QueuedText] = set()
        """Texts without a vector or a token count."""
        self.left_texts = len(texts)
        self.left_tokens = sum(self.tokens)
        self.changed = asyncio.Event()
        self.error: BaseException | None = None
        self._rows: list[bytes | None] = [None] * len(texts)
        self._width: int | None = None
        self._phase: Phase | None = None
        self._prompt_tokens = 0
        self._is_counted = True
        self._ignored: tuple[str, ...] = ()
        self._load_ms: float | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every row was yielded and no text is pending."""
        return self.yielded == len(self.texts) and not self.pending

    def may_queue(self, window: int) -> bool:
        """Whether there are texts to queue, at most `window` ahead of the rows yielded."""
        return self.queued < min(len(self.texts), self.yielded + window)

    def on_event(self, event: Phase | Done) -> None:
        """Take an event of the backend that has no rows."""
        if isinstance(event, Phase):
            self._phase = event
        else:
            self._ignored = event.ignored
            self._load_ms = event.timings.load_ms or self._load_ms
        self.changed.set()

    def add_row(self, rows: Sequence[int], row: bytes) -> None:
        """Store a vector under its row numbers; a different width fails the job."""
        if self._width not in {None, len(row)}:
            self.fail(BadAnswer("the backend answered vectors of different widths"))
            return
        self._width = len(row)
        for at in rows:
            self._rows[at] = row
            self.left_texts -= 1
            self.left_tokens -= self.tokens[at]
        self.changed.set()

    def finish(self, text: QueuedText, tokens: int, *, is_counted: bool) -> None:
        """Remove a text from `pending`; `is_counted`: the backend reported usage."""
        self.pending.discard(text)
        self._prompt_tokens += tokens
        self._is_counted = self._is_counted and is_counted
        self.changed.set()

    def fail(self, error: BaseException) -> None:
        """Fail the job; the first error is kept."""
        self.error = self.error or error
        self.changed.set()

    def events(self) -> Iterator[Phase | Vectors]:
        """The events that can be yielded now: a phase, and rows in order, in blocks."""
        if self._phase is not None:
            phase, self._phase = self._phase, None
            yield phase
        while block := self._block():
            width = len(block[0])
            data = b64encode(b"".join(block)).decode("ascii")
            first, end = self.yielded, self.yielded + len(block)
            self._rows[first:end] = [None] * len(block)
            self.yielded = end
            yield Vectors(index=first, count=len(block), dimension=width // 4, data=data)

    def _block(self) -> list[bytes]:
        block: list[bytes] = []
        most = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // (self._width or 1)))
        for row in self._rows[self.yielded : self.yielded + most]:
            if row is None:
                break
            block.append(row)
        return block

    def done(self) -> Done:
        """The terminal event; without usage if the backend reported none."""
        return Done(
            usage=Usage(prompt_tokens=self._prompt_tokens) if self._is_counted else None,
            timings=Timings(load_ms=self._load_ms),
            ignored=self._ignored,
        )


class TextQueue:
    """Texts with the same options: those that wait, and those that were sent.

    A text of the same scope that is already here is not added twice: both jobs get its vector. Jobs
    take turns: each has one text queued before any has two.
    """

    def __init__(self, options: PackingOptions) -> None:
        """Empty."""
        self.options: Final = options
        self.waiting: dict[Hashable, QueuedText] = {}
        self.sent: dict[Hashable, QueuedText] = {}
        self._rank = 0

    @property
    def is_empty(self) -> bool:
        """Whether no text waits or was sent."""
        return not (self.waiting or self.sent)

    @property
    def since(self) -> float:
        """The loop's time when the oldest waiting text was queued; `waiting` is not empty."""
        return next(iter(self.waiting.values())).since

    @property
    def has_several_jobs(self) -> bool:
        """Whether there are texts of more than one job."""
        texts = [*self.waiting.values(), *self.sent.values()]
        return any(text.jobs.keys() != texts[0].jobs.keys() for text in texts)

    def add(self, job: EmbedJob, *, shares: bool, now: float) -> None:
        """Queue the next text of a job; `shares`: other jobs may get the same vector."""
        at = job.queued
        job.queued += 1
        text = job.texts[at]
        key: Hashable = (job.scope if shares else id(job), text)
        queued = self.waiting.get(key) or self.sent.get(key)
        if queued is None:
            job.rank = max(job.rank + 1, self._rank)
            queued = self.waiting[key] = QueuedText(key, job, at, job.rank, now)
        queued.keeps = queued.keeps or job.keeps
        queued.jobs.setdefault(job, []).append(at)
        job.pending.add(queued)

    def pack(self, texts: list[QueuedText]) -> "PackedRequest":
        """Move waiting texts into a new request."""
        request = PackedRequest(self, texts)
        self._rank = max(self._rank, min(text.rank for text in texts))
        for text in texts:
            self.sent[text.key] = self.waiting.pop(text.key)
            text.request = request
        return request

    def remove(self, job: EmbedJob) -> None:
        """Remove a job; texts and requests that no other job needs are dropped."""
        requests = set()
        for text in job.pending:
            text.jobs.pop(job, None)
            if text.jobs:
                continue
            if text.request is None:
                del self.waiting[text.key]
            else:
                requests.add(text.request)
        job.pending.clear()
        for request in requests:
            request.cancel_if_unneeded()


class PackedRequest:
    """One request to the backend, and the texts in it."""

    def __init__(self, queue: TextQueue, texts: list[QueuedText]) -> None:
        """Not started."""
        self.queue = queue
        self.texts = texts
        self.task: asyncio.Task[Any] | None = None

    @property
    def pending(self) -> list[QueuedText]:
        """The texts that a job still waits for."""
        return [text for text in self.texts if text.jobs]

    def cancel_if_unneeded(self) -> None:
        """Cancel the request if no job waits for any of its texts."""
        if self.pending:
            return
        self.detach()
        if self.task is not None:
            self.task.cancel()

    def detach(self) -> None:
        """Remove its texts from the queue, so that no further job joins them."""
        for text in self.texts:
            if self.queue.sent.get(text.key) is text:
                del self.queue.sent[text.key]
