"""The models at one endpoint: which of them is out of order there, and how each is loaded now.

Each has a circuit of its own for each queue, made when a job of it first goes through: a model that
fails keeps its own jobs waiting and nobody else's. A model that is loaded one way
(contract/model_names.py) is not asked to load another way while jobs of the first way run (ollama
PR
14407).
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from contract.model_names import canonical, model_of, untagged
from workers.endpoints.circuit_breaker import CircuitBreaker, Permit

_REMEMBERED: Final = 1000
"""Circuits, and ways in which a model was loaded last: names come from callers."""


class ModelCircuits:
    """The models at one endpoint; `make` gives a new circuit, closed."""

    def __init__(self, make: Callable[[], CircuitBreaker]) -> None:
        """Nothing has failed, nothing runs."""
        self._make = make
        self._breakers: OrderedDict[tuple[str, str], CircuitBreaker] = OrderedDict()
        self._runs: Counter[str] = Counter()
        self._last: OrderedDict[str, str] = OrderedDict()

    def enter(self, queue: str, loaded: str) -> Permit:
        """Go through the circuit of a model (as it is loaded) for jobs of a queue."""
        key = (queue, canonical(loaded))
        if key not in self._breakers:
            self._breakers[key] = self._make()
            self._forget()
        self._breakers.move_to_end(key)
        return self._breakers[key].enter()

    def resting(self, queue: str) -> set[str]:
        """The models (canonical) whose jobs may not go through now."""
        return {
            loaded
            for (its, loaded), breaker in self._breakers.items()
            if its == queue and not breaker.admits
        }

    def failing(self, queue: str) -> set[str]:
        """The models (canonical) that did not answer since they failed."""
        return {
            loaded
            for (its, loaded), breaker in self._breakers.items()
            if its == queue and not breaker.is_at_rest
        }

    def open(self) -> Iterator[tuple[str, str, float]]:
        """Queue, model and time by the clock of each open circuit."""
        for (queue, loaded), breaker in self._breakers.items():
            if breaker.open_until is not None:
                yield queue, loaded, breaker.open_until

    def half_open_due(self) -> None:
        """Let one job of each model through whose time has come."""
        for breaker in self._breakers.values():
            breaker.half_open_if_due()

    def is_there_again(self) -> None:
        """The endpoint is: let one job of each model through that could not reach it."""
        for breaker in self._breakers.values():
            if breaker.was_unreachable:
                breaker.half_open()

    def begin(self, loaded: str) -> None:
        """A job runs that needs the model so."""
        name = canonical(loaded)
        self._runs[name] += 1
        self._last[model_of(name)] = name
        self._last.move_to_end(model_of(name))
        while len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)

    def end(self, loaded: str) -> bool:
        """It has ended; whether it was the last one that needed the model so."""
        name = canonical(loaded)
        self._runs[name] -= 1
        if self._runs[name] > 0:
            return False
        del self._runs[name]
        return True

    def running_as(self, model: str) -> str | None:
        """How a model is loaded for the jobs that run; None if none does."""
        return self.running().get(untagged(model))

    def running(self) -> dict[str, str]:
        """How each model that has jobs running is loaded, by its untagged name."""
        return {model_of(name): name for name in self._runs}

    def is_loaded_otherwise(self, loaded: str) -> bool:
        """Whether the model was last needed in another way than this one."""
        name = canonical(loaded)
        return self._last.get(model_of(name), name) != name

    def _forget(self) -> None:
        """Keep to the bound: who remembers nothing goes first, then who was used least lately."""
        if len(self._breakers) <= _REMEMBERED:
            return
        idle = (key for key, breaker in self._breakers.items() if breaker.is_at_rest)
        del self._breakers[next(idle, next(iter(self._breakers)))]
