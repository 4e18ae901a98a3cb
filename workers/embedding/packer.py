"""Packs the texts of embed jobs into requests: many jobs, one round trip (anything-llm #4529).

Each job calls `embed` as it would call its backend, and hears of its own texts only. What many
jobs want at once is asked once; what is too much for one request goes out in several. A job that
ends early takes its texts with it; a request is closed when nobody wants anything in it any more.
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
from workers.embedding.sending import Budget, Sending
from workers.embedding.wants import EmbedOrder


class VectorMemory(Protocol):
    """Keeps vectors by the digest of what they are of; never raises."""

    async def get(self, digests: Sequence[str]) -> list[bytes | None]:
        """Rows of little-endian float32, in the order of the digests; None is unknown."""
        ...

    async def put(self, rows: Mapping[str, bytes]) -> None:
        """Keep rows by their digests."""
        ...


_LATELY: Final = 8
"""Jobs whose sizes tell what the next one may have."""
_PUTS: Final = 4
"""Requests whose vectors are written to the memory at once; those of others are not kept."""


@dataclass(frozen=True, slots=True)
class PackingRules:
    """How an endpoint's texts are packed."""

    budget: Budget = field(default_factory=lambda: Budget(texts=256, tokens=16384))
    most: int = 4
    """Requests at once."""
    wait_s: float = 0.005
    """For company, and only while the backend is busy."""


class Packer:
    """All embed jobs of one endpoint."""

    def __init__(
        self,
        backend: Embed,
        rules: PackingRules,
        *,
        memory: VectorMemory | None = None,
        on_room: Callable[[], None] = lambda: None,
        on_verdict: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_room` is called when `has_room` has changed, `on_verdict` when `packs` has."""
        self._backend = backend
        self._rules = rules
        self._memory = memory
        self._on_room = on_room
        self._verdicts = PackingChecks(backend, on_verdict)
        self._sending = Sending(
            backend, self._budget, self._verdicts,
            most=rules.most, wait_s=rules.wait_s, on_rows=self._keep,
        )  # fmt: skip
        self._orders: set[EmbedOrder] = set()
        self._expected = 0
        self._lately: deque[int] = deque([rules.budget.texts], maxlen=_LATELY)
        self._most_texts = rules.budget.texts
        self._had_room = True
        self._puts: set[asyncio.Task[None]] = set()

    def packs(self, model: str) -> bool | None:
        """Whether texts of several jobs share requests; None: it was not tried yet."""
        return self._verdicts.of(model)

    @property
    def has_room(self) -> bool:
        """Whether one more job would not wait here for long: what is in hand is soon out."""
        rounds = self._rules.most + 1
        texts = sum(order.left_texts for order in self._orders)
        tokens = sum(order.left_tokens for order in self._orders)
        texts += self._expected * max(self._lately)
        return texts < rounds * self._most_texts and tokens < rounds * self._rules.budget.tokens

    def expect(self, count: int) -> None:
        """So many more jobs are being claimed; how many texts they have is not known yet."""
        self._expected += count
        self._look_at_room()

    async def embed(self, request: EmbedRequest) -> Stream[Phase | Vectors | Done]:
        """The vectors of one job, in order, in blocks; raises BackendError."""
        options, order = PackingOptions.of(request), EmbedOrder(texts_of(request))
        self._orders.add(order)
        self._lately.append(request.count)
        self._most_texts = self._budget(request.model).texts
        self._look_at_room()
        try:
            while not order.is_over:
                order.news.clear()
                await self._offer(order, options)
                for event in order.events():
                    yield event
                self._look_at_room()
                if order.error is not None:
                    raise order.error
                if not (order.may_offer(self._window(options)) or order.is_over):
                    await order.news.wait()
            yield order.done()
        finally:
            self._orders.discard(order)
            self._sending.line(options).leave(order)
            self._sending.pump()
            self._look_at_room()

    async def aclose(self) -> None:
        """Close every request; who still waits is told."""
        await self._verdicts.aclose()
        await self._sending.aclose()
        for task in self._puts:
            task.cancel()
        if self._puts:
            await asyncio.wait(self._puts)

    def _budget(self, model: str) -> Budget:
        """What the settings and the adapter allow."""
        budget = self._rules.budget
        if not isinstance(self._backend, LimitsEmbedBatch):
            return budget
        return Budget(min(budget.texts, self._backend.max_texts(model)), budget.tokens)

    def _window(self, options: PackingOptions) -> int:
        """Texts of one job that wait or are out at once: their vectors are in memory."""
        return self._budget(options.model).texts * (self._rules.most + 1)

    async def _offer(self, order: EmbedOrder, options: PackingOptions) -> None:
        """Put more of its texts in line, unless their vectors are known already."""
        texts = order.texts[order.offered : order.sent + self._window(options)]
        if not texts:
            return
        known = await self._known(options, texts)
        line, now = self._sending.line(options), asyncio.get_running_loop().time()
        for row in known:
            if row is None:
                line.offer(order, shares=self.packs(options.model) is True, now=now)
            else:
                order.take([order.offered], row)
                order.offered += 1
        self._sending.pump()

    async def _known(
        self, options: PackingOptions, texts: Sequence[Text]
    ) -> Sequence[bytes | None]:
        # Where company changes a vector, one that was made in company is nobody else's.
        if self._memory is None or self.packs(options.model) is False:
            return [None] * len(texts)
        known = await self._memory.get([options.digest(text) for text in texts])
        # Versions before 0.2 kept NaN, too.
        return [row if row is not None and is_finite(row) else None for row in known]

    def _keep(self, options: PackingOptions, rows: Mapping[Text, bytes]) -> None:
        if self._memory is None or self.packs(options.model) is False or len(self._puts) >= _PUTS:
            return
        named = {options.digest(text): row for text, row in rows.items()}
        task = asyncio.create_task(self._memory.put(named))
        self._puts.add(task)
        task.add_done_callback(self._puts.discard)

    def _look_at_room(self) -> None:
        if self.has_room is not self._had_room:
            self._had_room = not self._had_room
            self._on_room()
