"""The requests to one endpoint: when one goes out, what is in it, and what becomes of it.

An idle backend is asked at once, with whatever is there. While it works, texts gather: a request
goes out when it is full, or when fewer than two are out and its first text has waited for
`wait_s`, or when the backend is idle again.
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
from workers.embedding.isolation import OF_ANY, Isolation, crash, give_up
from workers.embedding.options import PackingOptions, Text
from workers.embedding.packing_check import PackingChecks
from workers.embedding.wants import PackedRequest, Want, WantedTexts

_FEW: Final = 2
"""Requests that may be out when one goes that is not full."""
_SUSPECTS: Final = 1000
_LEAVES: Final = BackendUnreachable("the worker lets go of its backend")


@dataclass(frozen=True, slots=True)
class Budget:
    """Bounds of one request; a single text may be longer than `tokens`."""

    texts: int
    tokens: int
    """Texts times the tokens of the longest: what a server that pads computes."""


def chosen(
    waiting: Collection[Want], budget: Budget, *, mixes: bool, suspects: Collection[object] = ()
) -> list[Want]:
    """What goes into the next request; `waiting` is not empty.

    Without `mixes` only texts of one job. What is under suspicion of breaking a request goes alone.
    """
    head = min(waiting, key=lambda want: (want.rank, want.since))
    if head.text in suspects:
        return [head]
    company = [
        want
        for want in waiting
        if want is not head
        and (mixes or not want.orders.keys().isdisjoint(head.orders))
        and want.text not in suspects
    ]
    size = head.tokens.bit_length()
    company.sort(key=lambda want: (abs(want.tokens.bit_length() - size), want.rank))
    found, longest = [head], head.tokens
    for want in company:
        if len(found) == budget.texts:
            break
        if max(longest, want.tokens) * (len(found) + 1) <= budget.tokens:
            found.append(want)
            longest = max(longest, want.tokens)
    return found


class Sending:
    """What waits and what is out; `most` requests at once."""

    def __init__(
        self,
        backend: Embed,
        budget: Callable[[str], Budget],
        verdicts: PackingChecks,
        *,
        most: int,
        wait_s: float,
        on_rows: Callable[[PackingOptions, Mapping[Text, bytes]], None],
    ) -> None:
        """`budget` is that of a model; `on_rows` is told every vector that has come."""
        self._backend = backend
        self._budget = budget
        self._verdicts = verdicts
        self._most = most
        self._wait_s = wait_s
        self._on_rows = on_rows
        self._lines: dict[PackingOptions, WantedTexts] = {}
        self._flights: set[PackedRequest] = set()
        self._suspects: dict[Text, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def line(self, options: PackingOptions) -> WantedTexts:
        """Where texts with these options wait."""
        return self._lines.setdefault(options, WantedTexts(options))

    def pump(self) -> None:
        """Send what it is time for."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_closed:
            for line in self._lines.values():
                self._fail(line, list(line.waiting.values()), _LEAVES)
        while not self._is_closed and len(self._flights) < self._most and self._sends_one():
            pass
        busy = {flight.line for flight in self._flights}
        self._lines = {
            options: line
            for options, line in self._lines.items()
            if line in busy or not line.is_empty
        }

    async def aclose(self) -> None:
        """Close every request; who still waits is told."""
        self._is_closed = True
        self.pump()
        tasks = [flight.task for flight in self._flights if flight.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _sends_one(self) -> bool:
        """Send the first request that is due; if none is, come back when one will be."""
        loop = asyncio.get_running_loop()
        waiting = [line for line in self._lines.values() if line.waiting and self._may_go(line)]
        waiting.sort(key=lambda line: line.since)
        for line in waiting:
            budget, mixes = self._budget(line.options.model), self._mixes(line)
            texts = line.waiting.values()
            wants = chosen(texts, budget, mixes=mixes, suspects=self._suspects)
            is_full = len(wants) == budget.texts or len(wants) < len(texts)
            has_waited = loop.time() >= line.since + self._wait_s
            if not (self._flights and mixes) or is_full or (has_waited and self._is_quiet):
                self._send(line, wants)
                return True
        if waiting and self._is_quiet:
            self._timer = loop.call_at(waiting[0].since + self._wait_s, self.pump)
        return False

    def _may_go(self, line: WantedTexts) -> bool:
        """Whether a request of its model may be out beside those that are."""
        model = line.options.model
        is_alone = all(flight.line.options.model != model for flight in self._flights)
        return is_alone or self._verdicts.of(model) is not False

    @property
    def _is_quiet(self) -> bool:
        return len(self._flights) < _FEW

    def _mixes(self, line: WantedTexts) -> bool:
        """Whether texts of several jobs may go together."""
        if self._budget(line.options.model).texts == 1:
            return False
        is_same = self._verdicts.of(line.options.model)
        if is_same is None and line.has_several_jobs:
            self._verdicts.find_out(line.options)
        return is_same is True

    def _send(self, line: WantedTexts, wants: list[Want]) -> None:
        flight = line.send(wants)
        self._flights.add(flight)
        flight.task = asyncio.create_task(self._fly(flight))
        flight.task.add_done_callback(partial(self._landed, flight))

    def _landed(self, flight: PackedRequest, task: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        flight.forget()
        if task.cancelled():
            self._fail(flight.line, flight.wanted, _LEAVES)
        elif (error := task.exception()) is not None:
            crash(flight.wanted, error)
        self.pump()

    async def _fly(self, flight: PackedRequest) -> None:
        ask = partial(self._ask, flight.line)
        fail = partial(self._fail, flight.line)
        try:
            await ask(flight.wants)
        except BackendError as error:
            await Isolation(ask, fail).of(flight.wanted, error)

    def _fail(self, line: WantedTexts, wants: Sequence[Want], error: BackendError) -> None:
        is_suspect = len(wants) == 1 and wants[0].text in self._suspects
        if len(wants) == 1 and isinstance(error, OF_ANY):
            self._suspects[wants[0].text] = None
            if len(self._suspects) > _SUSPECTS:
                del self._suspects[next(iter(self._suspects))]
        for order in give_up(wants, error, is_suspect=is_suspect and isinstance(error, OF_ANY)):
            line.leave(order)

    async def _ask(self, line: WantedTexts, wants: Sequence[Want]) -> None:
        """One request; raises BackendError, and what has come until then stands."""
        request = line.options.request([want.text for want in wants])
        rows: dict[Want, bytes] = {}
        done: Done | None = None
        try:
            async with aclosing(self._backend.embed(request)) as events:
                async for event in events:
                    if isinstance(event, Vectors):
                        found = dict(zip(wants[event.index :], _rows(event), strict=False))
                        rows |= found
                        self._arrive(line, found)
                        continue
                    for order in {order: None for want in wants for order in want.orders}:
                        order.hear(event)
                    if isinstance(event, Done):
                        done = event
                        break
        finally:
            _settle(list(rows), done)
        if done is None or len(rows) < len(wants):
            raise TruncatedStream(f"{len(rows)} vectors came for {len(wants)} texts")
        self._verdicts.answered(line.options.model)
        for want in wants:
            self._suspects.pop(want.text, None)
        self._on_rows(line.options, {want.text: row for want, row in rows.items()})

    @staticmethod
    def _arrive(line: WantedTexts, found: Mapping[Want, bytes]) -> None:
        for want, row in found.items():
            if line.out.get(want.key) is want:
                del line.out[want.key]
            want.arrive(row)


def _rows(event: Vectors) -> list[bytes]:
    data, size = b64decode(event.data), 4 * event.dimension
    return [data[at : at + size] for at in range(0, event.count * size, size)]


def _settle(wants: Sequence[Want], done: Done | None) -> None:
    """Share the cost of a request by length: the server tells it for all texts together."""
    total = done.usage.prompt_tokens if done is not None and done.usage else 0
    weights = list(accumulate((want.tokens for want in wants), initial=0))
    ends = [round(total * weight / (weights[-1] or 1)) for weight in weights]
    for want, (start, end) in zip(wants, pairwise(ends), strict=True):
        want.settle(end - start, is_told=done is None or done.usage is not None)
