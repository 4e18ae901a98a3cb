"""What one job asks of the packer, and each of its texts, which others may want as well."""

import asyncio
from base64 import b64encode
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from contract.errors_m_backend_errors import BadAnswer
from contract.events import Done, Phase, Timings, Usage, Vectors
from workers.embedding.options import Text, tokens_of

if TYPE_CHECKING:
    from workers.embedding.wants_m_line import Flight

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
        self.orders: dict[Order, list[int]] = {}
        """Who wants it, and as which rows; empty once nobody does."""
        self.flight: Flight | None = None
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


class Order:
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
