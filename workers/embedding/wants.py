"""What one job asks of the packer, and each of its texts, which others may want as well."""

import asyncio
from base64 import b64encode
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Final

from contract.errors import BadAnswer
from contract.events import Done, Phase, Timings, Usage, Vectors
from workers.embedding.options import PackingOptions, Text, tokens_of

_BLOCK_ROWS: Final = 256
_BLOCK_BYTES: Final = 512 * 1024


class Want:
    """A text that is to be embedded once, for all who want it."""

    __slots__ = ("flight", "key", "orders", "rank", "since", "text", "tokens")

    def __init__(self, key: Hashable, text: Text, tokens: int, rank: int, since: float) -> None:
        """It waits since then; who has the lower `rank` comes first."""
        self.key = key
        self.text = text
        self.tokens = tokens
        self.rank = rank
        self.since = since
        self.orders: dict[EmbedOrder, list[int]] = {}
        """Who wants it, and as which rows; empty once nobody does."""
        self.flight: PackedRequest | None = None
        """The request that it went out with."""

    def arrive(self, row: bytes) -> None:
        """Give its vector to all who want it."""
        for order, rows in self.orders.items():
            order.take(rows, row)

    def settle(self, tokens: int = 0, *, is_told: bool = True) -> None:
        """Nothing more will come: tell what it cost, if the backend told."""
        for order in self.orders:
            order.settle(self, tokens, is_told=is_told)
        self.orders.clear()


class EmbedOrder:
    """The texts of one job: which are offered, which have come, which are sent on."""

    def __init__(self, texts: Sequence[Text]) -> None:
        """Nothing is offered yet."""
        self.texts = texts
        self.tokens = [tokens_of(text) for text in texts]
        self.offered = 0
        self.sent = 0
        self.rank = 0
        self.open: set[Want] = set()
        """What still is to come, or to be paid."""
        self.left_texts = len(texts)
        self.left_tokens = sum(self.tokens)
        self.news = asyncio.Event()
        self.error: BaseException | None = None
        self._rows: list[bytes | None] = [None] * len(texts)
        self._width: int | None = None
        self._phase: Phase | None = None
        self._spent = 0
        self._is_told = True
        self._ignored: tuple[str, ...] = ()
        self._load_ms: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether every row was sent on, and what it cost is known."""
        return self.sent == len(self.texts) and not self.open

    def may_offer(self, window: int) -> bool:
        """Whether there is more to offer, `window` texts ahead of what was sent on at most."""
        return self.offered < min(len(self.texts), self.sent + window)

    def hear(self, event: Phase | Done) -> None:
        """What the backend says besides the rows."""
        if isinstance(event, Phase):
            self._phase = event
        else:
            self._ignored = event.ignored
            self._load_ms = event.timings.load_ms or self._load_ms
        self.news.set()

    def take(self, rows: Sequence[int], row: bytes) -> None:
        """A vector, which stands in these rows."""
        if self._width not in {None, len(row)}:
            self.fail(BadAnswer("the backend answered vectors of different widths"))
            return
        self._width = len(row)
        for at in rows:
            self._rows[at] = row
            self.left_texts -= 1
            self.left_tokens -= self.tokens[at]
        self.news.set()

    def settle(self, want: Want, tokens: int, *, is_told: bool) -> None:
        """One text is done with; `is_told`: the backend counts."""
        self.open.discard(want)
        self._spent += tokens
        self._is_told = self._is_told and is_told
        self.news.set()

    def fail(self, error: BaseException) -> None:
        """The job cannot be done; the first error counts."""
        self.error = self.error or error
        self.news.set()

    def events(self) -> Iterator[Phase | Vectors]:
        """What can be sent on now: rows in their order, in blocks."""
        if self._phase is not None:
            phase, self._phase = self._phase, None
            yield phase
        while block := self._block():
            width = len(block[0])
            data = b64encode(b"".join(block)).decode("ascii")
            first, end = self.sent, self.sent + len(block)
            self._rows[first:end] = [None] * len(block)
            self.sent = end
            yield Vectors(index=first, count=len(block), dimension=width // 4, data=data)

    def _block(self) -> list[bytes]:
        block: list[bytes] = []
        most = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // (self._width or 1)))
        for row in self._rows[self.sent : self.sent + most]:
            if row is None:
                break
            block.append(row)
        return block

    def done(self) -> Done:
        """The last word."""
        return Done(
            usage=Usage(prompt_tokens=self._spent) if self._is_told else None,
            timings=Timings(load_ms=self._load_ms),
            ignored=self._ignored,
        )


class WantedTexts:
    """Who asks twice for the same text, while it waits or is out, gets the same vector.

    Order is fair among jobs: each has one text before any has two.
    """

    def __init__(self, options: PackingOptions) -> None:
        """Nobody waits."""
        self.options: Final = options
        self.waiting: dict[Hashable, Want] = {}
        self.out: dict[Hashable, Want] = {}
        self._rank = 0

    @property
    def is_empty(self) -> bool:
        """Whether it can be forgotten."""
        return not (self.waiting or self.out)

    @property
    def since(self) -> float:
        """When the one came that has waited longest."""
        return next(iter(self.waiting.values())).since

    @property
    def has_several_jobs(self) -> bool:
        """Whether texts of more than one job are here."""
        wants = [*self.waiting.values(), *self.out.values()]
        return any(want.orders.keys() != wants[0].orders.keys() for want in wants)

    def offer(self, order: EmbedOrder, *, shares: bool, now: float) -> None:
        """Put the order's next text in line; `shares`: others may want the same one."""
        at = order.offered
        order.offered += 1
        text = order.texts[at]
        key: Hashable = (None if shares else id(order), text)
        want = self.waiting.get(key) or self.out.get(key)
        if want is None:
            order.rank = max(order.rank + 1, self._rank)
            want = self.waiting[key] = Want(key, text, order.tokens[at], order.rank, now)
        want.orders.setdefault(order, []).append(at)
        order.open.add(want)

    def send(self, wants: list[Want]) -> "PackedRequest":
        """Take them out of the line."""
        flight = PackedRequest(self, wants)
        self._rank = max(self._rank, min(want.rank for want in wants))
        for want in wants:
            self.out[want.key] = self.waiting.pop(want.key)
            want.flight = flight
        return flight

    def leave(self, order: EmbedOrder) -> None:
        """The order wants nothing more; what nobody wants now is not asked for."""
        flights = set()
        for want in order.open:
            want.orders.pop(order, None)
            if want.orders:
                continue
            if want.flight is None:
                del self.waiting[want.key]
            else:
                flights.add(want.flight)
        order.open.clear()
        for flight in flights:
            flight.stop_unless_wanted()


class PackedRequest:
    """One request to the backend, and the texts in it."""

    def __init__(self, line: WantedTexts, wants: list[Want]) -> None:
        """Not started."""
        self.line = line
        self.wants = wants
        self.task: asyncio.Task[Any] | None = None

    @property
    def wanted(self) -> list[Want]:
        """What is still to come and wanted."""
        return [want for want in self.wants if want.orders]

    def stop_unless_wanted(self) -> None:
        """Close the request if nobody waits for anything in it."""
        if self.wanted:
            return
        self.forget()
        if self.task is not None:
            self.task.cancel()

    def forget(self) -> None:
        """Let nobody join what is in it any more."""
        for want in self.wants:
            if self.line.out.get(want.key) is want:
                del self.line.out[want.key]
