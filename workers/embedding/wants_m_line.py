"""The texts of one model and one set of options: those that wait, and those that are out."""

import asyncio
from collections.abc import Hashable
from typing import Any, Final

from workers.embedding.options import Options
from workers.embedding.wants import Order, Want


class Line:
    """Who asks twice for the same text, while it waits or is out, gets the same vector.

    Order is fair among jobs: each has one text before any has two.
    """

    def __init__(self, options: Options) -> None:
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

    def offer(self, order: Order, *, shares: bool, now: float) -> None:
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

    def send(self, wants: list[Want]) -> "Flight":
        """Take them out of the line."""
        flight = Flight(self, wants)
        self._rank = max(self._rank, min(want.rank for want in wants))
        for want in wants:
            self.out[want.key] = self.waiting.pop(want.key)
            want.flight = flight
        return flight

    def leave(self, order: Order) -> None:
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


class Flight:
    """One request to the backend, and the texts in it."""

    def __init__(self, line: Line, wants: list[Want]) -> None:
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
