"""Which backend a request goes to: the one it names, or a live one that has the model.

Pure: the roster in, a name or a Refusal out. Kinds that only ask, or do no more than a chat does
(chat, embed, image, show, load), go to any pool that can answer, the least loaded first. Kinds that
change a backend go to the only one that fits, or ask the caller which is meant: no load balancer
should choose whose model is deleted.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NoReturn

from api_shim.abilities import missing, refuse, ungranted
from api_shim.pools import Pool
from api_shim.problems import Refusal
from contract.backend_errors import (
    NotSupported,
)
from contract.errors import (
    InvalidRequest,
    NoWorker,
    UnknownBackend,
    UnknownModel,
)
from contract.jobs import AnyRequest
from contract.models import CreateRequest, PullRequest, RunningRequest
from contract.names import queue_name
from contract.requests import Kind
from contract.roster import QueueView

_ASKING: Final[frozenset[Kind]] = frozenset({"chat", "embed", "image", "show", "load"})
_CLOSE: Final = 5


def named(
    backend: str, request: AnyRequest, pools: Mapping[str, Pool], known: Iterable[str] = ()
) -> None:
    """Check the backend that a request names; `known` are backends that ever had a queue.

    Raises Refusal.
    """
    kind = request.kind
    pool = pools.get(backend)
    if pool is None:
        _refuse_absent(backend, pools, known)
    if pool.capabilities and kind not in pool.capabilities:
        raise Refusal(
            NotSupported,
            f"Backend {backend} cannot do {kind}; it can do {', '.join(pool.capabilities)}.",
            capabilities=pool.capabilities,
        )
    if queue_name(backend, kind) not in pool.queues:
        raise _no_worker(queue_name(backend, kind))
    refuse(request, _model_of(request), _wrong(request, pool))


def _refuse_absent(backend: str, pools: Mapping[str, Pool], known: Iterable[str]) -> NoReturn:
    if backend in known or not pools:
        # It has been here before, or nobody is here at all: the name may well be right.
        raise _no_worker(backend)
    raise Refusal(
        UnknownBackend,
        f"There is no backend {backend}; live ones: {_listed(pools)}.",
        matches=_close(backend, pools),
    )


def _no_worker(what: str) -> Refusal:
    return Refusal(
        NoWorker,
        f"No live worker serves {what}: start one, or send the job to wait with "
        "/api/v1/jobs/<kind>?enqueue_anyway=true and a backend.",
        retry_after_s=5.0,
    )


def fitting(request: AnyRequest, pools: Mapping[str, Pool]) -> list[Pool]:
    """The pools that can do a request that names no backend, best health first; at least one.

    Raises Refusal.
    """
    if not pools:
        raise _no_worker("anything")
    able = [pool for pool in pools.values() if request.kind in pool.capabilities]
    if not able:
        raise Refusal(
            NotSupported, f"No live backend can do {request.kind}; live ones: {_listed(pools)}."
        )
    having = able if isinstance(request, (PullRequest, RunningRequest)) else _having(request, able)
    serving = [pool for pool in having if queue_name(pool.name, request.kind) in pool.queues]
    if not serving:
        raise _no_worker(" or ".join(queue_name(pool.name, request.kind) for pool in having))
    healthy = [pool for pool in serving if pool.is_healthy] or serving
    if len(healthy) > 1 and request.kind not in _ASKING:
        raise Refusal(
            InvalidRequest,
            f"Several backends could be meant: name one of {_listed(p.name for p in healthy)} "
            "in `backend`, or in the header X-Fleet-Backend.",
            matches=[pool.name for pool in healthy],
        )
    return healthy


def _model_of(request: AnyRequest) -> str:
    """The model that must be there for the request to work."""
    if isinstance(request, CreateRequest):
        return request.source
    return getattr(request, "model", "")


def _wrong(request: AnyRequest, pool: Pool) -> list[str]:
    """What of the request this pool cannot do, in words."""
    reports = pool.find(_model_of(request))
    return [*missing(request, reports), *ungranted(request, pool.grants)]


def _having(request: AnyRequest, able: Sequence[Pool]) -> list[Pool]:
    model = _model_of(request)
    having = [pool for pool in able if pool.find(model)]
    if having:
        fit = [pool for pool in having if not _wrong(request, pool)]
        if not fit:
            refuse(request, model, _wrong(request, having[0]))
        return fit
    pulling = [pool for pool in able if "pull" in pool.capabilities]
    if request.on_missing == "pull" and pulling:
        return pulling
    names = sorted({name for pool in able for name in pool.models})
    matches = _close(model, names)
    meant = f"; close names: {', '.join(matches)}" if matches else ""
    raise Refusal(
        UnknownModel,
        f"No live backend has the model {model[:80]}{meant}. GET /api/v1/models lists them all; "
        "POST /api/v1/jobs/pull fetches one.",
        matches=matches,
    )


def least_loaded(model: str, candidates: Sequence[Pool], queues: Iterable[QueueView]) -> Pool:
    """The candidate whose queue is shortest for its slots; among equals the one that is warm."""
    loads: dict[str, float] = {}
    for queue in queues:
        loads[queue.name] = (queue.depth + queue.in_flight) / max(queue.slots, 1)

    def rank(pool: Pool) -> tuple[float, bool, str]:
        load = sum(loads.get(queue, 0.0) for queue in _queues_of(pool))
        is_warm = any(report.warm for report in pool.find(model))
        return load, not is_warm, pool.name

    return min(candidates, key=rank)


def _queues_of(pool: Pool) -> list[str]:
    """All queues of a pool: what pulls or embeds on a box is in the way of what chats there."""
    return [queue for queue in pool.queues if queue.rpartition(".")[0] == pool.name]


def _close(name: str, names: Iterable[str]) -> list[str]:
    """Names like this one, the likest first; without regard to case."""
    by_lower = {each.lower(): each for each in names}
    # 0.4 rather than 0.6: "llama" must find "llama3.2:3b-instruct".
    found = difflib.get_close_matches(name.lower(), by_lower, n=_CLOSE, cutoff=0.4)
    return [by_lower[each] for each in found]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
