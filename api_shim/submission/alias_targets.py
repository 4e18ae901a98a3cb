"""Which target of an alias takes a request, and the fleet as it looks to clients that use aliases.

A request goes to the first target that a worker takes jobs of now. If there is none, it goes to the
first one that it could wait for. The targets after it become the fallbacks of the job; their
backends are chosen now, so that a worker or the maintainer can move the job without the roster.
Only errors that say that a target is not here are passed over: the abilities of a model are judged
on the first target that is here.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from api_shim.http.problems import Refusal
from api_shim.submission.roster_cache import Pool
from contract.aliases.alias_table import AliasTable, TargetView
from contract.errors import InvalidRequest, NoWorker, UnknownBackend, UnknownModel
from contract.jobs import AnyRequest
from contract.redis_keys import queue_name
from contract.requests import AliasTarget, Kind, Route
from contract.roster import WorkerReport
from contract.tenants import Tenant
from contract.usage import Prices, price_of
from contract.wire import encode
from relay.aliases.moves import takes_jobs
from relay.position import NO_WORKER
from relay.scheduling.later import is_later

_NOT_HERE: Final = frozenset({UnknownBackend.code, UnknownModel.code, NoWorker.code})
MOVING: Final[frozenset[Kind]] = frozenset({"chat", "embed", "image", "rerank"})
"""Kinds of jobs that move to another target; the others are about one model."""


class Placed(NamedTuple):
    """A request with the queue that takes it."""

    request: AnyRequest
    """With its route, if its model is an alias."""
    queue: str
    awaits_worker: bool = False
    """Whether no live worker consumes the queue."""
    reason: str = ""
    """Why the first target of its alias does not have it."""

    @property
    def obstacle(self) -> str:
        """What the job waits for, besides its turn."""
        return NO_WORKER if self.awaits_worker else self.reason

    @property
    def next(self) -> "Placed | None":
        """The same for the next target of its alias; None if there is none."""
        route = self.request.route
        if route is None or len(route.targets) == 1:
            return None
        rest = route.model_copy(update={"targets": route.targets[1:]})
        request = self.request.model_copy(update={"route": rest})
        queue = queue_name(rest.targets[0].backend or "", request.kind)
        return Placed(request, queue, reason=f"fallback: the queue {self.queue} is full")

    def at(self, queue: str, backend: str) -> "Placed":
        """The same in a queue of this backend, which an earlier call has chosen."""
        route = self.request.route
        if route is None or queue == self.queue:
            return self._replace(queue=queue)
        its = [at for at, target in enumerate(route.targets) if target.backend == backend]
        first = route.targets[its[0] if its else 0].model_copy(update={"backend": backend})
        rest = route.targets[its[0] + 1 :] if its else ()
        changed = route.model_copy(update={"targets": (first, *rest)})
        return Placed(self.request.model_copy(update={"route": changed}), queue)


class Option(NamedTuple):
    """A target that could take a request, with its backend."""

    target: AliasTarget
    awaits_worker: bool


class TargetChoice:
    """The choice among the targets of one route."""

    def __init__(
        self, request: AnyRequest, route: Route, workers: Sequence[WorkerReport], prices: Prices
    ) -> None:
        """No target is considered yet; `workers` are live, `prices` those of models."""
        self._prices = prices
        self._request = request
        self._route = route
        self._workers = workers
        self._options: list[Option] = []
        self._refusals: list[Refusal] = []

    def add(self, target: AliasTarget, backend: str, *, awaits_worker: bool) -> None:
        """Consider the next target, which this backend can take."""
        price = price_of(self._prices, backend, target.model)
        text = None if price is None else encode(price).decode()
        pinned = target.model_copy(update={"backend": backend, "price": text})
        self._options.append(Option(pinned, awaits_worker))

    def refuse(self, target: AliasTarget, refusal: Refusal) -> None:
        """Pass over the next target; raises Refusal if it is here, and cannot do what is asked."""
        about = about_alias(self._route.alias, target, refusal)
        if refusal.code not in _NOT_HERE and not self._options:
            raise about
        self._refusals.append(about)

    def placed(self) -> Placed:
        """The request at the chosen target; raises Refusal if none can take it."""
        if not self._options:
            raise self._refusals[0]
        here = [at for at, option in enumerate(self._options) if self._is_here(option.target)]
        at = here[0] if here and not is_later(self._request) else 0
        chosen = self._options[at]
        targets = [option.target for option in self._options[at:]]
        if self._request.kind not in MOVING:
            del targets[1:]
        route = self._route.model_copy(update={"targets": tuple(targets)})
        return Placed(
            self._request.model_copy(update={"route": route}),
            self._queue_of(chosen.target),
            chosen.awaits_worker,
            self._why_passed_over(at),
        )

    def _queue_of(self, target: AliasTarget) -> str:
        return queue_name(target.backend or "", self._request.kind)

    def _is_here(self, target: AliasTarget) -> bool:
        queue = self._queue_of(target)
        if target.wait_s == 0 and _is_busy(self._workers, queue):
            return False
        return takes_jobs(self._workers, queue, target.model)

    def _why_passed_over(self, at: int) -> str:
        if at:
            queue = self._queue_of(self._options[0].target)
            return f"fallback: no worker takes jobs of {queue} now"
        return f"fallback: {self._refusals[0].detail}" if self._is_first_refused else ""

    @property
    def _is_first_refused(self) -> bool:
        first = self._route.targets[0]
        return bool(self._refusals) and self._options[0].target.model != first.model


def _is_busy(workers: Sequence[WorkerReport], queue: str) -> bool:
    reports = [each for worker in workers for each in worker.queues if each.name == queue]
    return sum(each.in_flight for each in reports) >= sum(each.slots for each in reports)


def about_alias(alias: str, target: AliasTarget, refusal: Refusal) -> Refusal:
    """The same error, which says what the alias stands for."""
    where = f" on {target.backend}" if target.backend else ""
    is_other = alias != target.model
    detail = f"{alias} is an alias of {target.model}{where}: {refusal.detail}"
    about = Refusal(
        refusal.code,
        detail if is_other else str(refusal.detail),
        status=refusal.status_code,
        headers=refusal.headers,
    )
    about.title, about.extra = refusal.title, refusal.extra
    return about


def at_backend(route: Route, backend: str | None) -> Route:
    """The targets of a route that a request for this backend may use; raises InvalidRequest."""
    if backend is None:
        return route
    fitting = [
        target.model_copy(update={"backend": backend})
        for target in route.targets
        if target.backend in (None, backend)
    ]
    if not fitting:
        names = ", ".join(sorted({target.backend or "" for target in route.targets}))
        raise InvalidRequest(
            f"backend: the alias {route.alias} has no target on {backend}, only on {names}: leave "
            "the backend out, or name a model",
            field="backend",
        )
    return route.model_copy(update={"targets": tuple(fitting)})


def pools_with_aliases(
    found: Mapping[str, Pool], table: AliasTable, tenant: Tenant, *asked: str
) -> Mapping[str, Pool]:
    """The pools, where each alias is listed as a model beside the model that it stands for.

    `found` are those that the tenant's key may use, with all their models. `asked` are names that a
    client asks for, which a pattern may fit. An alias is listed on the backends of its first target
    that is there and that the key may use, with what that model can do.
    """
    if not table.aliases and tenant.models is None:
        return found
    names = {name: name for name in table.names}
    for name in asked:
        alias = table.find(name, lambda model: any(p.find(model) for p in found.values()))
        if alias is not None:
            names[name] = alias
    listed: dict[str, dict[str, str]] = {pool: {} for pool in found}
    for name, alias in names.items():
        for pool, model in _standing_for(found, table, tenant, name, alias):
            listed[pool][name] = model
    shown = tenant.may_use_model
    return {name: pool.with_names(names, listed[name], shown) for name, pool in found.items()}


def _standing_for(
    found: Mapping[str, Pool], table: AliasTable, tenant: Tenant, asked: str, alias: str
) -> list[tuple[str, str]]:
    """The backends of an alias's first usable target that is there, each with the model."""
    try:
        targets = table.route(asked, alias).targets
    except InvalidRequest:
        return []
    for target in targets:
        having = [
            (name, target.model)
            for name, pool in found.items()
            if target.backend in (None, name) and pool.find(target.model)
        ]
        if having and tenant.may_use_alias(alias, asked, target.model):
            return having
    return []


def target_views(
    route: Route, found: Mapping[str, Pool], workers: Sequence[WorkerReport]
) -> tuple[TargetView, ...]:
    """The targets of a route, and whether the fleet could use each now."""
    return tuple(
        TargetView(
            model=target.model,
            backend=target.backend,
            wait_s=target.wait_s,
            problem=_problem(target, found, workers),
        )
        for target in route.targets
    )


def _problem(
    target: AliasTarget, found: Mapping[str, Pool], workers: Sequence[WorkerReport]
) -> str | None:
    if target.backend is not None and target.backend not in found:
        return f"there is no backend {target.backend}"
    pools = [found[target.backend]] if target.backend is not None else list(found.values())
    having = [pool for pool in pools if pool.find(target.model)]
    if not having:
        where = f"the backend {target.backend}" if target.backend else "any backend"
        return f"no model {target.model} is known on {where}"
    queues = [queue_name(pool.name, kind) for pool in having for kind in MOVING]
    if not any(takes_jobs(workers, queue, target.model) for queue in queues):
        return "no worker takes its jobs now"
    return None
