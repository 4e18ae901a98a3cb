"""The models at one endpoint: which of them fail there, and how each is loaded now.

Each has a circuit for each queue, made with its first job: a model that fails delays only its own
jobs. A model that is loaded one way (contract/model_names.py) is not loaded in another way while
jobs of the first way run (ollama PR 14407).
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from contract.model_names import canonical, model_of, untagged
from workers.endpoints.circuit_breaker import CircuitBreaker, Permit

_REMEMBERED: Final = 1000
"""Bound of the circuits and of the stored models: clients choose the names."""


class ModelCircuits:
    """The circuits of the models at one endpoint, and how each model is loaded."""

    def __init__(self, make: Callable[[], CircuitBreaker]) -> None:
        """Start with none; `make` returns a new circuit, closed."""
        self._make = make
        self._breakers: OrderedDict[tuple[str, str], CircuitBreaker] = OrderedDict()
        self._troubled: set[tuple[str, str]] = set()
        """Those that may not be at rest; others need not be looked at for each claim."""
        self._runs: Counter[str] = Counter()
        self._last: OrderedDict[str, str] = OrderedDict()

    def enter(self, queue: str, loaded: str) -> Permit:
        """Enter the circuit of a model, loaded this way, for a job of `queue`."""
        key = (queue, canonical(loaded))
        if key not in self._breakers:
            breaker = self._breakers[key] = self._make()
            breaker.on_failure = partial(self._troubled.add, key)
            self._forget()
        self._breakers.move_to_end(key)
        return self._breakers[key].enter()

    def resting(self, queue: str) -> set[str]:
        """Return the models (canonical names) whose circuits admit no job now."""
        return {
            loaded
            for (its, loaded), breaker in self._not_at_rest()
            if its == queue and not breaker.admits
        }

    def failing(self, queue: str) -> set[str]:
        """Return the models (canonical names) that have not answered since they failed."""
        return {loaded for (its, loaded), _ in self._not_at_rest() if its == queue}

    def _not_at_rest(self) -> list[tuple[tuple[str, str], CircuitBreaker]]:
        found: list[tuple[tuple[str, str], CircuitBreaker]] = []
        for key in list(self._troubled):
            breaker = self._breakers.get(key)
            if breaker is None or breaker.is_at_rest:
                self._troubled.discard(key)
            else:
                found.append((key, breaker))
        return found

    def open(self) -> Iterator[tuple[str, str, float]]:
        """Yield queue, model and due time (by the clock) of each open circuit."""
        for (queue, loaded), breaker in self._breakers.items():
            if breaker.open_until is not None:
                yield queue, loaded, breaker.open_until

    def half_open_due(self) -> None:
        """Admit one trial job of each model whose circuit is due."""
        for breaker in self._breakers.values():
            breaker.half_open_if_due()

    def endpoint_recovered(self) -> None:
        """Admit one trial job of each model that could not reach the endpoint before."""
        for breaker in self._breakers.values():
            if breaker.was_unreachable:
                breaker.half_open()

    def begin(self, loaded: str) -> None:
        """Count a job that runs with the model loaded this way."""
        name = canonical(loaded)
        self._runs[name] += 1
        self._last[model_of(name)] = name
        self._last.move_to_end(model_of(name))
        while len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)

    def end(self, loaded: str) -> bool:
        """Forget the job; return whether it was the last one of this way of loading."""
        name = canonical(loaded)
        self._runs[name] -= 1
        if self._runs[name] > 0:
            return False
        del self._runs[name]
        return True

    def running_as(self, model: str) -> str | None:
        """Return how a model is loaded for the jobs that run; None if none does."""
        return self.running().get(untagged(model))

    def running(self) -> dict[str, str]:
        """Return how each model with running jobs is loaded, by its untagged name."""
        return {model_of(name): name for name in self._runs}

    def is_loaded_otherwise(self, loaded: str) -> bool:
        """Return whether the model was last loaded in another way."""
        name = canonical(loaded)
        return self._last.get(model_of(name), name) != name

    def _forget(self) -> None:
        """Keep to the bound: drop one without failures, else the least recently used."""
        if len(self._breakers) <= _REMEMBERED:
            return
        idle = (key for key, breaker in self._breakers.items() if breaker.is_at_rest)
        del self._breakers[next(idle, next(iter(self._breakers)))]
