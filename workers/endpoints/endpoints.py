"""The endpoints of one backend, and the selection of one for each job.

A backend is a type and one or more addresses that can replace each other. A job runs at an endpoint
whose circuits (its own and the model's) are closed, that has a free slot and the model, and that
did not just fail the same job; among these at the one where its conversation ran last, then at one
that has the model in memory, then at the one with the fewest jobs. A stream never moves: when it
breaks, the job's next attempt is placed anew. Kinds of jobs that change what a backend holds run at
every endpoint (`broadcast.py`). One address is the same, without a selection.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from time import monotonic
from types import MappingProxyType
from typing import Final, NamedTuple

from contract.errors import BackendError
from contract.model_names import canonical, is_same, model_of, untagged
from contract.redis_keys import kind_of
from contract.roster import ModelReport
from workers.backends.protocols import Backend, Embed, GrantsFeatures, NamesSlots, Rerank
from workers.embedding.packer import ExpectedJob, Packer
from workers.embedding.pair_packer import ExpectedPairs, PairPacker
from workers.endpoints.broadcast import EVERYWHERE, Broadcast
from workers.endpoints.circuit_breaker import (
    CircuitBreaker,
    Permit,
    Verdict,
    endpoint_works,
    model_works,
)
from workers.endpoints.model_circuits import ModelCircuits
from workers.endpoints.prompt_places import PromptSlots

_REMEMBERED: Final = 1000
"""Jobs whose last failed endpoint is remembered."""
_PROMPTED: Final = frozenset({"chat", "embed", "rerank"})
"""Kinds of jobs that use a slot of llama-server."""
IN_MEMORY: Final = frozenset({"chat", "embed", "image", "load", "count", "rerank"})
"""Kinds of jobs that load their model into memory."""


class ClaimLimits(NamedTuple):
    """Which jobs of a queue no endpoint with a free slot may run now; fields of ClaimFilter."""

    resting: frozenset[str]
    failing: frozenset[str]
    only: Mapping[str, frozenset[str]] | None
    one_runner: bool = False
    here: frozenset[str] | None = None


class Endpoint:
    """One endpoint: its adapter, the results of its last probe, and the jobs that run there."""

    def __init__(
        self,
        adapter: Backend,
        address: str,
        breaker: Callable[[Verdict], CircuitBreaker],
        slots: Mapping[str, int],
        *,
        packers: Mapping[str, Packer | PairPacker] = MappingProxyType({}),
        home: str = "",
        label: str = "",
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Start without a probe and without a job.

        `breaker` makes circuits, `slots` are by queue; `packers` run jobs of their kind in place
        of the adapter. `home` is the id of the address (prompt_places.py), `label` its name for
        tenants, `clock` is in seconds.
        """
        self.adapter = adapter
        self.address = address
        self.label = label or address
        self.breaker = breaker(endpoint_works)
        self.model_circuits = ModelCircuits(partial(breaker, model_works))
        self.has_contexts = (
            isinstance(adapter, GrantsFeatures) and "context_length" in adapter.grants
        )
        """Whether jobs may choose the context length that a model is loaded with."""
        self.slots = dict(slots)
        self.taken: Counter[str] = Counter()
        self.error: str | None = "not checked yet"
        self.version: str | None = None
        self.models: tuple[ModelReport, ...] = ()
        self.packers = dict(packers)
        self.home = home
        self.conversations = 0
        """How many have begun here: of two idle addresses the one with fewer gets the next."""
        self.prompt_slots = PromptSlots(clock) if isinstance(adapter, NamesSlots) else None

    @property
    def works(self) -> bool:
        """Whether it answered the last probe, and its circuit is closed."""
        return self.error is None and self.breaker.open_until is None

    @property
    def in_flight(self) -> int:
        """Jobs of this worker that run there, of all its queues."""
        return self.taken.total()

    def takes(self, queue: str) -> bool:
        """Return whether one more job of `queue` can run here."""
        packer = self.packers.get(kind_of(queue))
        if packer is not None and not packer.has_capacity:
            return False
        return self.breaker.admits and self.taken[queue] < self.slots.get(queue, 0)

    def probe_succeeded(self) -> None:
        """Close its circuit: a probe was answered."""
        was_open = self.breaker.open_until is not None
        self.breaker.probe_succeeded()
        if was_open:
            self.model_circuits.endpoint_recovered()

    def may_run(self, queue: str, loaded: str) -> bool:
        """Return whether a job of `queue` may use its model, loaded this way, now."""
        running = self.model_circuits.running_as(model_of(loaded)) if self._shares(queue) else None
        name = canonical(loaded)
        return running in {None, name} and name not in self.model_circuits.resting(queue)

    def limits(self, queue: str) -> tuple[set[str], set[str], dict[str, str]]:
        """Return models with open circuits, models that failed last, how running ones load."""
        at = self.model_circuits
        return at.resting(queue), at.failing(queue), at.running() if self._shares(queue) else {}

    def _shares(self, queue: str) -> bool:
        return self.has_contexts and kind_of(queue) in IN_MEMORY

    def begin(self, queue: str, loaded: str) -> Permit:
        """Count a job that runs here with its model loaded this way."""
        if kind_of(queue) in IN_MEMORY:
            self.model_circuits.begin(self.name_of(loaded))
        return self.model_circuits.enter(queue, self.name_of(loaded))

    def end(self, queue: str, loaded: str) -> bool:
        """Forget the job; return whether its model may be loaded in another way from now on."""
        was_last = kind_of(queue) in IN_MEMORY and self.model_circuits.end(self.name_of(loaded))
        return was_last and self.has_contexts

    def name_of(self, loaded: str) -> str:
        """Return how the server loads a model for a job that requests it this way."""
        return loaded if self.has_contexts else model_of(loaded)

    def lacks(self, model: str | None) -> bool:
        """Return whether the endpoint listed its models without this one."""
        names = {untagged(report.name) for report in self.models}
        return bool(names) and model is not None and untagged(model) not in names

    def is_warm(self, loaded: str | None) -> bool:
        """Return whether the model is in memory, loaded this way."""
        if loaded is None or self.model_circuits.is_loaded_otherwise(self.name_of(loaded)):
            return False
        model = model_of(loaded)
        return any(report.warm and is_same(report.name, model) for report in self.models)


class Reservation:
    """A slot at one endpoint, held for one job from before its claim to its end."""

    def __init__(self, endpoints: "EndpointPool", queue: str, endpoint: Endpoint) -> None:
        """Made by `EndpointPool.reserve` at an endpoint with a free slot."""
        self._pool = endpoints
        self._queue = queue
        self._job_id = ""
        self._is_broadcast = len(endpoints.all) > 1 and kind_of(queue) in EVERYWHERE
        self._endpoint = endpoint
        self._permits: list[Permit] = []
        self._expected_job: ExpectedJob | ExpectedPairs | None = None
        self._loaded: str | None = None
        self._names_slot = False
        self.prompt_slot: int | None = None
        """The slot of its server that the job is to name."""
        self._enter(None)

    @property
    def home(self) -> str:
        """The id of the address where the job runs."""
        return self._endpoint.home

    @property
    def adapter(self) -> Backend:
        """The adapter that runs the job."""
        if self._is_broadcast:
            return self._pool.broadcast
        return self._endpoint.adapter

    @property
    def loaded(self) -> str | None:
        """The job's model as the endpoint loads it for this job; None if it names none."""
        return self._loaded and self._endpoint.name_of(self._loaded)

    @property
    def limits(self) -> ClaimLimits:
        """Which jobs neither this endpoint nor another one with a free slot may run now."""
        return self._pool.limits(self._queue, self._endpoint)

    def packer_for(self, tenant: str, *, keeps: bool = True) -> Embed | Rerank | None:
        """What runs a tenant's job instead of the adapter (embedding/packer.py, pair_packer.py).

        `keeps`: whether its vectors may be cached.
        """
        if self._expected_job is not None:
            self._expected_job.tenant = tenant
            self._expected_job.keeps = keeps
        return self._expected_job

    def move(
        self,
        job_id: str,
        loaded: str | None,
        conversation: str | None = None,
        home: str | None = None,
    ) -> str | None:
        """Move to the endpoint that is best for the claimed job, whose model is `loaded` this way.

        Its `conversation` ran last at `home`. Returns the label of the address for the event
        `started`; None if the backend has only one.
        """
        self._job_id = job_id
        failed_at = self._pool.failed_at.get(job_id)
        best = self._pool.best(self._queue, loaded, failed_at, held=self._endpoint, home=home)
        self.release()
        self._endpoint = best or self._endpoint
        self._enter(loaded)
        self._take_prompt_slot(conversation)
        self._endpoint.conversations += conversation is not None and home is None
        if self._is_broadcast:
            return ", ".join(endpoint.label for endpoint in self._pool.all)
        return self._endpoint.label if len(self._pool.all) > 1 else None

    def _take_prompt_slot(self, conversation: str | None) -> None:
        slots = self._endpoint.prompt_slots
        if slots is not None and kind_of(self._queue) in _PROMPTED:
            self.prompt_slot, self._names_slot = slots.take(conversation), True

    def answered(self) -> None:
        """Record that the backend began to answer."""
        if not self._is_broadcast:
            for permit in self._permits:
                permit.answered()

    def failed(self, error: BackendError) -> None:
        """Record that the backend failed the job: its next attempt prefers another endpoint."""
        if self._is_broadcast:
            return
        for permit in self._permits:
            permit.dropped() if error.is_echo else permit.failed(error)
        self._pool.failed_at[self._job_id] = self._endpoint.address
        while len(self._pool.failed_at) > _REMEMBERED:
            self._pool.failed_at.popitem(last=False)

    def release(self) -> None:
        """Free the slot."""
        if self._names_slot and self._endpoint.prompt_slots is not None:
            self._endpoint.prompt_slots.free(self.prompt_slot)
            self.prompt_slot, self._names_slot = None, False
        if self._expected_job is not None:
            self._expected_job.settle()
        self._endpoint.taken[self._queue] -= 1
        for permit in self._permits:
            permit.dropped()
        if self._loaded is not None and self._endpoint.end(self._queue, self._loaded):
            self._pool.on_change()
        self._loaded = None

    def _enter(self, loaded: str | None) -> None:
        self._endpoint.taken[self._queue] += 1
        packer = self._endpoint.packers.get(kind_of(self._queue))
        self._expected_job = None if packer is None else packer.expect_job()
        self._permits = [self._endpoint.breaker.enter()]
        if loaded is not None and not self._is_broadcast:
            self._loaded = loaded
            self._permits.append(self._endpoint.begin(self._queue, loaded))


class Reserving:
    """A reservation from the begin of a block to its end."""

    __slots__ = ("_pool", "_queue", "_reservation")

    def __init__(self, endpoints: "EndpointPool", queue: str) -> None:
        """Made by `EndpointPool.reserve`."""
        self._pool = endpoints
        self._queue = queue
        self._reservation: Reservation | None = None

    def __enter__(self) -> Reservation | None:
        endpoint = self._pool.best(self._queue)
        if endpoint is not None:
            self._reservation = Reservation(self._pool, self._queue, endpoint)
        return self._reservation

    def __exit__(self, *_: object) -> None:
        if self._reservation is not None:
            self._reservation.release()


class EndpointPool:
    """All endpoints of the backend of a worker: at least one, all of one type."""

    def __init__(
        self, endpoints: Sequence[Endpoint], on_change: Callable[[], None] = lambda: None
    ) -> None:
        """Select among these; `on_change` is called when a model may be loaded in another way."""
        self.all = tuple(endpoints)
        self.on_change = on_change
        self.limited_queues: set[str] = set()
        """Queues in which nothing was claimed because of limits; woken at the next change."""
        self._claims = asyncio.Lock()
        self.failed_at: OrderedDict[str, str] = OrderedDict()
        """Address where a job failed last, by the job's id."""

    @property
    def name(self) -> str:
        """The backend's name."""
        return self.all[0].adapter.name

    @property
    def broadcast(self) -> Broadcast:
        """All endpoints as one backend (broadcast.py)."""
        adapters = {endpoint.label: endpoint.adapter for endpoint in self.all}
        up = [endpoint.label for endpoint in self.all if endpoint.breaker.open_until is None]
        return Broadcast(self.name, adapters, up)

    @property
    def error(self) -> str | None:
        """The errors of the last probes; None while one endpoint is healthy."""
        errors = [endpoint.error for endpoint in self.all]
        return None if None in errors else "; ".join(dict.fromkeys(e for e in errors if e))

    @property
    def open_until(self) -> float | None:
        """When the first circuit is due, by the loop's clock; None if one is not open."""
        times = [endpoint.breaker.open_until for endpoint in self.all]
        return None if None in times else min(time for time in times if time is not None)

    def models_open_until(self, queue: str) -> dict[str, float]:
        """Return, by model that no endpoint admits, when its first circuit is due."""
        each = [
            {model: at for its, model, at in endpoint.model_circuits.open() if its == queue}
            for endpoint in self.all
        ]
        models = set(each[0]).intersection(*each[1:])
        return {model: min(times[model] for times in each) for model in models}

    def admit(self, queue: str) -> bool:
        """Return whether an endpoint takes one more job of `queue`."""
        return any(endpoint.takes(queue) for endpoint in self.all)

    def limits(self, queue: str, held: Endpoint) -> ClaimLimits:
        """Return which jobs no endpoint with a free slot may run now; `held` counts as free."""
        candidates = [
            endpoint for endpoint in self.all if endpoint is held or endpoint.takes(queue)
        ]
        at = [endpoint.limits(queue) for endpoint in candidates]
        resting = set[str].intersection(*(resting for resting, _, _ in at))
        failing = set[str]().union(*(failing for _, failing, _ in at))
        running = [how for _, _, how in at]
        models = set(running[0]).intersection(*running[1:])
        only = {model: frozenset(how[model] for how in running) for model in models}
        has_contexts = any(endpoint.has_contexts for endpoint in candidates)
        return ClaimLimits(
            frozenset(resting),
            frozenset(failing),
            only if has_contexts else None,
            one_runner=has_contexts and len(self.all) == 1,
            here=frozenset(each.home for each in candidates) if kind_of(queue) == "chat" else None,
        )

    def claim_turn(self, queue: str) -> AbstractAsyncContextManager[None]:
        """Return a context for one claim; claims whose limits depend on each other take turns."""
        needs_turns = any(
            endpoint.has_contexts or endpoint.model_circuits.failing(queue) for endpoint in self.all
        )
        return self._turn() if needs_turns else nullcontext()

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        async with self._claims:
            yield

    def slots(self, queue: str) -> int:
        """Return how many jobs of `queue` all endpoints together run at once."""
        each = [endpoint.slots.get(queue, 0) for endpoint in self.all]
        return min(each) if kind_of(queue) in EVERYWHERE else sum(each)

    def best(
        self,
        queue: str,
        loaded: str | None = None,
        failed_at: str | None = None,
        *,
        held: Endpoint | None = None,
        home: str | None = None,
    ) -> Endpoint | None:
        """Return the endpoint for the next job; None if none takes one more.

        `held` is the one that is reserved for the job already, and counts as free; `home` is where
        its conversation ran last.
        """
        model = loaded and model_of(loaded)

        def rank(endpoint: Endpoint) -> tuple[bool, bool, bool, bool, bool, bool, int, int]:
            return (
                loaded is not None and not endpoint.may_run(queue, loaded),
                endpoint.lacks(model),
                endpoint.address == failed_at,
                endpoint.error is not None,
                home is not None and endpoint.home != home,
                not endpoint.is_warm(loaded),
                endpoint.in_flight - (endpoint is held),
                endpoint.conversations,
            )

        candidates = [
            endpoint for endpoint in self.all if endpoint is held or endpoint.takes(queue)
        ]
        if len(candidates) == 1:
            return candidates[0]
        return min(candidates, key=rank, default=None)

    def reserve(self, queue: str) -> "Reserving":
        """Return a context that reserves a slot for one job; None if no endpoint has one."""
        return Reserving(self, queue)

    def packs(self, model: str) -> bool | None:
        """Return whether jobs of a model share requests; None if no endpoint knows yet."""
        packers = [packer for endpoint in self.all for packer in endpoint.packers.values()]
        known = {packer.packs(model) for packer in packers} - {None}
        return False not in known if known else None

    async def aclose(self) -> None:
        """Close all packers and adapters."""
        await asyncio.gather(
            *(packer.aclose() for endpoint in self.all for packer in endpoint.packers.values())
        )
        await asyncio.gather(*(endpoint.adapter.aclose() for endpoint in self.all))
