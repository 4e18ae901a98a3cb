"""Sends the packed requests of one endpoint: when, with which texts, and what a failure means.

On an idle backend a request is sent at once with the texts that wait. On a busy one texts gather:
a request is sent when it is full, or when fewer than two are open and its first text has waited
for `wait_s`, or when the backend is idle again.
"""

import asyncio
from base64 import b64decode
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Final

from contract.errors import BackendError, BackendUnreachable, TruncatedStream
from contract.events import Done, Vectors
from workers.backends.protocols import Embed
from workers.embedding.isolation import OF_ANY, Isolation, fail_jobs, fail_with_defect
from workers.embedding.options import PackingOptions, Text
from workers.embedding.packing_check import PackingChecks
from workers.embedding.text_queue import PackedRequest, QueuedText, TextQueue

_FEW: Final = 2
"""Open requests from which on only full ones are sent."""
_SUSPECTS: Final = 1000
_CLOSED: Final = BackendUnreachable("the worker closes its backend")


@dataclass(frozen=True, slots=True)
class Budget:
    """Bounds of one request; a single text may be longer than `tokens`."""

    texts: int
    tokens: int
    """Number of texts times the tokens of the longest: what a server that pads computes."""


def next_batch(
    waiting: Collection[QueuedText],
    budget: Budget,
    *,
    mixes: bool,
    suspects: Collection[object] = (),
) -> list[QueuedText]:
    """The texts of the next request; `waiting` is not empty.

    The first in order is always among them, then texts of similar length: many servers pad all to
    the longest. Without `mixes` all are of one job. A text in `suspects` is sent alone.
    """
    head = min(waiting, key=lambda text: (text.rank, text.since))
    if head.text in suspects:
        return [head]
    others = [
        text
        for text in waiting
        if text is not head
        and (mixes or not text.jobs.keys().isdisjoint(head.jobs))
        and text.text not in suspects
    ]
    size = head.tokens.bit_length()
    others.sort(key=lambda text: (abs(text.tokens.bit_length() - size), text.rank))
    batch, longest = [head], head.tokens
    for text in others:
        if len(batch) == budget.texts:
            break
        if max(longest, text.tokens) * (len(batch) + 1) <= budget.tokens:
            batch.append(text)
            longest = max(longest, text.tokens)
    return batch


class RequestSender:
    """The queues of one endpoint and its open requests, at most `max_requests`."""

    def __init__(
        self,
        backend: Embed,
        budget: Callable[[str], Budget],
        checks: PackingChecks,
        *,
        max_requests: int,
        wait_s: float,
        on_rows: Callable[[PackingOptions, Mapping[QueuedText, bytes]], None],
    ) -> None:
        """`budget` is called with a model, `on_rows` with the vectors of each request."""
        self._backend = backend
        self._budget = budget
        self._checks = checks
        self._max_requests = max_requests
        self._wait_s = wait_s
        self._on_rows = on_rows
        self._queues: dict[PackingOptions, TextQueue] = {}
        self._requests: set[PackedRequest] = set()
        self._suspects: dict[Text, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def queue(self, options: PackingOptions) -> TextQueue:
        """The queue of texts with these options."""
        return self._queues.setdefault(options, TextQueue(options))

    def send_due(self) -> None:
        """Send every request that is due. Once closed, fail the jobs of all waiting texts."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_closed:
            for queue in self._queues.values():
                self._fail(queue, list(queue.waiting.values()), _CLOSED)
        while (
            not self._is_closed and len(self._requests) < self._max_requests and self._send_next()
        ):
            pass
        busy = {request.queue for request in self._requests}
        self._queues = {
            options: queue
            for options, queue in self._queues.items()
            if queue in busy or not queue.is_empty
        }

    async def aclose(self) -> None:
        """Cancel every request, and fail the jobs that wait."""
        self._is_closed = True
        self.send_due()
        tasks = [request.task for request in self._requests if request.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _send_next(self) -> bool:
        """Send the first request that is due; if none is, set a timer for the next one."""
        loop = asyncio.get_running_loop()
        waiting = [queue for queue in self._queues.values() if queue.waiting]
        waiting = sorted(filter(self._may_send, waiting), key=lambda queue: queue.since)
        for queue in waiting:
            budget, mixes = self._budget(queue.options.model), self._mixes(queue)
            texts = queue.waiting.values()
            batch = next_batch(texts, budget, mixes=mixes, suspects=self._suspects)
            is_full = len(batch) == budget.texts or len(batch) < len(texts)
            has_waited = loop.time() >= queue.since + self._wait_s
            if not (self._requests and mixes) or is_full or (has_waited and self._has_few_open):
                self._send(queue, batch)
                return True
        if waiting and self._has_few_open:
            self._timer = loop.call_at(waiting[0].since + self._wait_s, self.send_due)
        return False

    def _may_send(self, queue: TextQueue) -> bool:
        """Whether its model may have one more open request."""
        model = queue.options.model
        is_alone = all(request.queue.options.model != model for request in self._requests)
        return is_alone or self._checks.of(model) is not False

    @property
    def _has_few_open(self) -> bool:
        return len(self._requests) < _FEW

    def _mixes(self, queue: TextQueue) -> bool:
        """Whether texts of several jobs may share a request; starts the check if unknown."""
        if self._budget(queue.options.model).texts == 1:
            return False
        is_same = self._checks.of(queue.options.model)
        if is_same is None and queue.has_several_jobs:
            self._checks.start(queue.options)
        return is_same is True

    def _send(self, queue: TextQueue, texts: list[QueuedText]) -> None:
        request = queue.pack(texts)
        self._requests.add(request)
        request.task = asyncio.create_task(self._run(request))
        request.task.add_done_callback(partial(self._on_done, request))

    def _on_done(self, request: PackedRequest, task: asyncio.Task[None]) -> None:
        self._requests.discard(request)
        request.detach()
        if task.cancelled():
            self._fail(request.queue, request.pending, _CLOSED)
        elif (error := task.exception()) is not None:
            fail_with_defect(request.pending, error)
        self.send_due()

    async def _run(self, request: PackedRequest) -> None:
        embed = partial(self._embed, request.queue)
        fail = partial(self._fail, request.queue)
        try:
            await embed(request.texts)
        except BackendError as error:
            await Isolation(embed, fail).run(request.pending, error)

    def _fail(self, queue: TextQueue, texts: Sequence[QueuedText], error: BackendError) -> None:
        is_suspect = len(texts) == 1 and texts[0].text in self._suspects
        if len(texts) == 1 and isinstance(error, OF_ANY):
            self._suspects[texts[0].text] = None
            if len(self._suspects) > _SUSPECTS:
                del self._suspects[next(iter(self._suspects))]
        for job in fail_jobs(texts, error, is_suspect=is_suspect and isinstance(error, OF_ANY)):
            queue.remove(job)

    async def _embed(self, queue: TextQueue, texts: Sequence[QueuedText]) -> None:
        """Embed texts in one request; raises BackendError; rows received before it are stored."""
        request = queue.options.request([text.text for text in texts])
        rows: dict[QueuedText, bytes] = {}
        done: Done | None = None
        try:
            async with aclosing(self._backend.embed(request)) as events:
                async for event in events:
                    if isinstance(event, Vectors):
                        found = dict(zip(texts[event.index :], _rows(event), strict=False))
                        rows |= found
                        self._deliver(queue, found)
                        continue
                    for job in {job: None for text in texts for job in text.jobs}:
                        job.on_event(event)
                    if isinstance(event, Done):
                        done = event
                        break
        finally:
            _share_usage(list(rows), done)
        if done is None or len(rows) < len(texts):
            raise TruncatedStream(f"{len(rows)} vectors came for {len(texts)} texts")
        self._checks.answered(queue.options.model)
        for text in texts:
            self._suspects.pop(text.text, None)
        self._on_rows(queue.options, rows)

    @staticmethod
    def _deliver(queue: TextQueue, found: Mapping[QueuedText, bytes]) -> None:
        for text, row in found.items():
            if queue.sent.get(text.key) is text:
                del queue.sent[text.key]
            text.deliver(row)


def _rows(event: Vectors) -> list[bytes]:
    data, size = b64decode(event.data), 4 * event.dimension
    return [data[at : at + size] for at in range(0, event.count * size, size)]


def _share_usage(texts: Sequence[QueuedText], done: Done | None) -> None:
    """Divide the tokens of a request by length: the server reports one sum for all texts."""
    total = done.usage.prompt_tokens if done is not None and done.usage else 0
    weights = list(accumulate((text.tokens for text in texts), initial=0))
    ends = [round(total * weight / (weights[-1] or 1)) for weight in weights]
    for text, (start, end) in zip(texts, pairwise(ends), strict=True):
        text.finish(end - start, is_counted=done is None or done.usage is not None)
