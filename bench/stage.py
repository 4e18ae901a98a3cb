"""What scenarios share: how much to measure, the backend, the proxies beside us, fresh fleets."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from bench import peers, processes
from bench.figures import Figures
from bench.processes import BACKEND, Running
from bench.targets import OpenAiShaped
from bench.wire import BadAnswer

HEADERS = {"X-Fleet-Backend": BACKEND}


class Through(NamedTuple):
    """A way from the load generator to the backend, and the processes on it."""

    target: OpenAiShaped
    processes: Mapping[str, Running]
    redis_url: str = ""
    """Of the fleet."""


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int = 5
    with_peers: bool = True
    scale: float = 1.0
    """Of the number of jobs: less than 1 to try the benchmark itself."""

    def jobs(self, count: int) -> int:
        """So many, scaled."""
        return max(8, round(count * self.scale))


class Stage:
    """One run; what it starts is stopped with the stack."""

    def __init__(self, plan: Plan, folder: Path, stack: ExitStack) -> None:
        """Start the backend; proxies start when they are first wanted."""
        self.plan = plan
        self.folder = folder
        self.figures = Figures()
        self.budget_s = 60.0
        """Seconds for the rounds of the scenario."""
        self._stack = stack
        self._fleets = 0
        self._proxies: dict[str, Through | str] = {}
        target, process = stack.enter_context(processes.backend(folder))
        self.direct = Through(target, {"backend": process})

    def rounds(self, most: int | None = None, share: float = 1.0) -> Iterator[int]:
        """Numbers of rounds, from 0: at least one, and no further one once time has run out.

        `share` is the part of the scenario's time that these rounds may take.
        """
        until = perf_counter() + share * self.budget_s
        for number in range(min(most or self.plan.rounds, self.plan.rounds)):
            if number and perf_counter() > until:
                self.say(f"{number} rounds: the machine is too slow for more in this time")
                return
            yield number

    def proxies(self) -> dict[str, Through]:
        """The proxies that are installed and start; the others are noted as missing."""
        if not self.plan.with_peers:
            return {}
        for name, start in peers.PROXIES.items():
            if name not in self._proxies:
                self._proxies[name] = self._started(name, start)
        found = {}
        for name, each in self._proxies.items():
            if isinstance(each, str):
                self.figures.missing[name] = each
            else:
                found[name] = each
        return found

    def _started(self, name: str, start: peers.Start) -> Through | str:
        if why := peers.why_missing(name):
            return why
        try:
            port, process = self._stack.enter_context(start(self.folder, self.direct.target.port))
        except TimeoutError as error:
            return str(error)[-400:]
        aliases = peers.LITELLM_ALIASES if name == "LiteLLM" else None
        return Through(OpenAiShaped(name, port, aliases=aliases), {name: process})

    def ways(self, fleet: Through) -> dict[str, Through]:
        """Everybody: the backend itself, the fleet, the proxies."""
        return {"direct": self.direct, "fleet": fleet, **self.proxies()}

    def present(self, ways: Mapping[str, Through]) -> Iterator[tuple[str, Through]]:
        """Those that have not failed so far."""
        return ((name, way) for name, way in ways.items() if name not in self.figures.missing)

    @contextmanager
    def trying(self, name: str) -> Generator[None]:
        """A peer that fails is noted as missing, and the others are measured on."""
        try:
            yield
        except (BadAnswer, OSError, ExceptionGroup) as error:  # a TimeoutError is an OSError
            if name in {"direct", "fleet"}:
                raise
            why = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            self.figures.missing[name] = f"it failed: {type(why).__name__}: {str(why)[:200]}"
            self.say(f"{name}: {self.figures.missing[name]}")

    @contextmanager
    def fleet(self, dsn: str = "", **variables: str) -> Generator[Through]:
        """A fresh Redis, worker and shim; the backend is the stage's unless `dsn` is another."""
        self._fleets += 1
        folder = self.folder / f"fleet{self._fleets}"
        folder.mkdir()
        port = self.direct.target.port
        variables.setdefault("FLEET_DRAIN_S", "0")  # so that it stops at once
        with processes.fleet(folder, port, dsn=dsn, **variables) as (fleet, own):
            yield Through(OpenAiShaped("fleet", fleet.port, HEADERS), own, fleet.redis_url)

    def say(self, text: str) -> None:
        """Progress, at once."""
        print(f"  {text}", flush=True)
