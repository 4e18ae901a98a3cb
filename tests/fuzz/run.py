"""Rounds of made-up requests: each asks every operation, validly and not, with every key.

A round is made of the seed and its number alone, so any round can be run again by itself; only the
ids of what it is aimed at are new.
"""

import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisDeprecationWarning, Unsatisfiable
from schemathesis import GenerationMode

from fuzz.judge import aimed, case_of, fire
from fuzz.sockets import FINISHED, SOCKET, fault_of, made_call
from fuzz.tenants import Caller, Stage
from fuzz.valid_requests import valid

CASES: Final = 4
"""Of each operation, mode and round; each is five requests. A valid one comes with them."""


@dataclass(frozen=True)
class Fault:
    """An answer that breaks a promise."""

    number: int
    """The round that it was in."""
    operation: str
    caller: str
    status: int
    words: str
    command: str
    """The request, as a command of curl; of a WebSocket, what was sent."""

    @property
    def sort(self) -> tuple[str, int, str]:
        """Faults of one sort have probably one cause."""
        return self.operation, self.status, self.words.split("\n")[0][:60]


@dataclass
class Tally:
    """What came of the requests so far."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    served: set[str] = field(default_factory=set)
    """Operations that did what was asked at least once."""
    faults: dict[tuple[str, int, str], Fault] = field(default_factory=dict)
    """The first of each sort."""


_ABOUT_A_QUEUE: Final = ("/queues/{queue}/pause", "/queues/{queue}/windows")
Watch = Callable[[int, Tally], bool]
"""Told the round after each request; whether to go on."""


class Enough(Exception):
    """As many requests as were wanted have been sent."""


def fuzz(
    at: Stage,
    operations: dict[str, Any],
    *,
    of: int,
    rounds: Iterator[int],
    tally: Tally,
    watch: Watch,
    cases: int = CASES,
) -> None:
    """Send rounds of the seed `of` until `watch` has enough; the faults are in the tally."""
    try:
        for number in rounds:
            at.furnish()
            for name, operation in operations.items():
                salvo = _Salvo(at, name, number, tally, watch, cases)
                if operation.method != "delete":
                    salvo.send_valid(operation)
                for mode in GenerationMode:
                    start = zlib.crc32(f"{of} {number} {name} {mode}".encode())
                    salvo.send(operation.as_strategy(generation_mode=mode), start)
                if operation.method == "delete":  # there is something to aim at until then
                    salvo.send_valid(operation)
            _Salvo(at, SOCKET, number, tally, watch, cases).open_sockets(f"{of} {number}")
    except Enough:
        pass


@dataclass(frozen=True)
class _Salvo:
    """Some requests to one operation, each with every key."""

    at: Stage
    name: str
    number: int
    tally: Tally
    watch: Watch
    cases: int

    def send_valid(self, operation: Any) -> None:
        """What the operation is for."""
        for caller in self.at.callers.values():
            self._one(case_of(operation, valid(self.at, caller, self.name)), caller, None)

    def open_sockets(self, start: str) -> None:
        """WebSockets, as many of each key as an operation gets requests in two modes."""
        random = Random(start)
        for caller in self.at.callers.values():
            for _ in range(self.cases * 4):
                call = made_call(self.at, caller, random)
                words = fault_of(self.at, call)
                if call.code == FINISHED:
                    self.tally.served.add(self.name)
                self._count(caller, call.status, words, call.words)

    def send(self, strategy: Any, start: int) -> None:
        @seed(start)
        @settings(
            max_examples=self.cases,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def each(case: schemathesis.Case) -> None:
            for caller in self.at.callers.values():
                for owner in aimed(self.at, case, caller):
                    self._one(case, caller, owner)

        with warnings.catch_warnings(), suppress(Unsatisfiable):  # some cannot be asked wrongly
            # schemathesis draws from `random`, which Hypothesis seeds.
            warnings.simplefilter("ignore", HypothesisDeprecationWarning)
            each()

    def _one(self, case: schemathesis.Case, caller: Caller, owner: Caller | None) -> None:
        status, words = fire(self.at, case, caller, owner)
        if self.name.endswith(_ABOUT_A_QUEUE):
            self.at.open_queue()
        if 200 <= status < 300:
            self.tally.served.add(self.name)
        self._count(caller, status, words, case.as_curl_command() if words else "")

    def _count(self, caller: Caller, status: int, words: str, command: str) -> None:
        words = words or self.at.trouble.found()
        tally = self.tally
        tally.requests += 1
        tally.statuses[status] += 1
        if words:
            text = command.replace("\n", " ")[:2000]
            fault = Fault(self.number, self.name, caller.name, status, words, text)
            tally.faults.setdefault(fault.sort, fault)
        if not self.watch(self.number, tally):
            raise Enough
