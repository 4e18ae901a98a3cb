"""Selection of a request's backend: the one it names, or a live one that has the model.

Pure: request, roster and queue loads in; a backend's name out, or a Refusal. `choose` is the one
entry point. Kinds that only read or compute (chat, count, embed, image, load, rerank, show) may go
to any pool that serves them; the least loaded is chosen. Kinds that change a backend need a unique
match; if several fit, the client must name one: a load balancer should not choose whose model is
deleted.

A model that cannot be used is refused in one of three ways: no backend has it (`unknown_model`);
one has it, but it is not for this kind of job (`wrong_kind`); one has it, but the backend cannot
run that kind with any model (`not_supported`).

A queue that a worker consumes now is preferred. If no such queue fits, one that is only known is
chosen, by the capabilities and models that are remembered, and the job waits for a worker to start.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NoReturn

from api_shim.http.error_hints import NATIVE, ErrorHints
from api_shim.http.problems import Refusal
from api_shim.submission.roster_cache import Pool
from contract.chat import ChatRequest, SchemaFormat
from contract.embeddings import EmbedRequest
from contract.errors import (
    InvalidRequest,
    NotSupported,
    NoWorker,
    UnknownBackend,
    UnknownModel,
    WrongKind,
)
from contract.features import REMEDIES, Feature, features_of
from contract.jobs import AnyRequest
from contract.model_kinds import MODEL_KINDS, cannot, not_for
from contract.model_names import close
from contract.models import EVERY_MODEL, CreateRequest, PullRequest, RunningRequest, UnloadRequest
from contract.redis_keys import backend_of, queue_name
from contract.requests import Kind
from contract.roster import ModelReport, ModelTrait, QueueView

_READING_KINDS: Final[frozenset[Kind]] = frozenset(
    {"chat", "embed", "image", "show", "load", "count", "rerank"}
)
"""Kinds that any fitting backend may serve."""
_MOST_MATCHES: Final = 20
"""Names that a problem lists at most."""


def choose(
    request: AnyRequest,
    pools: Mapping[str, Pool],
    loads: Sequence[QueueView] = (),
    hints: ErrorHints = NATIVE,
    *,
    may_wait: bool = True,
) -> str:
    """The name of the backend that takes the request.

    `may_wait`: whether it may be one whose queue no worker consumes now.

    `loads` are the queues that are served or held a job lately; they decide between several fitting
    pools, and distinguish a backend that is down from an unknown one. They may be omitted where
    `depends_on_loads` is false. `hints` are those of the client's surface.

    Raises Refusal: `unknown_backend` or `unknown_model` (404), `no_worker` (503), `wrong_kind` or
    `not_supported` (400), `invalid_request` (422) if the client must name a backend.
    """
    live = {name: pool for name, pool in pools.items() if pool.workers}
    try:
        return _choose(request, live, loads, hints)
    except Refusal:
        if not any(pool.known_queues for pool in pools.values()):
            raise
    awake = {name: pool.with_known_queues() for name, pool in pools.items()}
    chosen = _choose(request, awake, loads, hints)
    if not may_wait:
        raise _no_worker(queue_name(chosen, request.kind), hints)
    return chosen


def _choose(
    request: AnyRequest,
    pools: Mapping[str, Pool],
    loads: Sequence[QueueView],
    hints: ErrorHints,
) -> str:
    """A fitting backend among those of which a worker consumes the queue; raises Refusal."""
    if request.backend is not None:
        known = {backend_of(queue.name) for queue in loads}
        _check_named(request.backend, request, pools, known, hints)
        return request.backend
    fitting = candidates(request, pools, hints)
    return least_loaded(_model_of(request), fitting, loads, request.kind).name


def depends_on_loads(request: AnyRequest, pools: Mapping[str, Pool]) -> bool:
    """Whether `choose` may need `loads`, which cost three round trips to Redis."""
    if request.backend is not None:
        return request.backend not in pools
    return sum(_may_fit(request, pool) for pool in pools.values()) > 1


def _may_fit(request: AnyRequest, pool: Pool) -> bool:
    if request.kind not in pool.capabilities:
        return False
    is_anywhere = not _needs_model(request) or request.on_missing == "pull"
    return is_anywhere or bool(pool.find(_model_of(request)))


def _check_named(
    backend: str,
    request: AnyRequest,
    pools: Mapping[str, Pool],
    known: Collection[str],
    hints: ErrorHints,
) -> None:
    """Check the backend that a request names; `known` are backends that ever had a queue.

    Raises Refusal.
    """
    kind, model = request.kind, _model_of(request)
    pool = pools.get(backend)
    if pool is None:
        _refuse_absent(backend, pools, known, hints)
    if pool.capabilities and kind not in pool.capabilities:
        _refuse_verb(kind, [pool])
    if not _is_for(kind, model, pool):
        _refuse_kind(model, kind, [pool], pools, hints)
    if queue_name(backend, kind) not in pool.queues:
        raise _no_worker(queue_name(backend, kind), hints)
    refuse(request, model, _wrong(request, pool, hints), hints)


def _refuse_absent(
    backend: str, pools: Mapping[str, Pool], known: Collection[str], hints: ErrorHints
) -> NoReturn:
    if backend in known or not pools:
        # It was served before, or no worker is live at all: the name may be right.
        raise _no_worker(backend, hints)
    raise Refusal(
        UnknownBackend,
        f"There is no backend {backend}; known ones: {_listed(pools)}.",
        matches=close(backend, pools),
    )


def _no_worker(what: str, hints: ErrorHints) -> Refusal:
    return Refusal(NoWorker, f"No live worker serves {what}: {hints.no_worker}.", retry_after_s=5.0)


def candidates(
    request: AnyRequest, pools: Mapping[str, Pool], hints: ErrorHints = NATIVE
) -> list[Pool]:
    """The pools that can run a request that names no backend, healthy ones only if there are any.

    At least one; raises Refusal.
    """
    if not pools:
        raise _no_worker("anything", hints)
    having = _able(request, pools, hints)
    serving = [pool for pool in having if queue_name(pool.name, request.kind) in pool.queues]
    if not serving:
        queues = " or ".join(queue_name(pool.name, request.kind) for pool in having)
        raise _no_worker(queues, hints)
    healthy = [pool for pool in serving if pool.is_healthy] or serving
    if len(healthy) > 1 and request.kind not in _READING_KINDS:
        raise Refusal(
            InvalidRequest,
            f"Several backends fit: name one of {_listed(p.name for p in healthy)} "
            f"in {hints.backend}.",
            matches=[pool.name for pool in healthy],
        )
    return healthy


def _able(request: AnyRequest, pools: Mapping[str, Pool], hints: ErrorHints) -> list[Pool]:
    """The pools that can run it and, where it needs a model, have the model."""
    able = [pool for pool in pools.values() if request.kind in pool.capabilities]
    model = _model_of(request)
    having = [pool for pool in pools.values() if pool.find(model)]
    if not able and not (having and _needs_model(request)):
        raise Refusal(
            NotSupported, f"No backend can do {request.kind}; known ones: {_listed(pools)}."
        )
    if not _needs_model(request):
        return able
    if not having:
        return _pulling(request, able, pools, hints)
    of_kind = [pool for pool in having if _is_for(request.kind, model, pool)]
    if not of_kind:
        _refuse_kind(model, request.kind, having, pools, hints)
    can = [pool for pool in of_kind if request.kind in pool.capabilities]
    if not can:
        _refuse_verb(request.kind, of_kind)
    fit = [pool for pool in can if not _wrong(request, pool, hints)]
    if not fit:
        refuse(request, model, _wrong(request, can[0], hints), hints)
    return fit


def _needs_model(request: AnyRequest) -> bool:
    if isinstance(request, UnloadRequest) and request.model == EVERY_MODEL:
        return False
    return not isinstance(request, (PullRequest, RunningRequest)) and bool(_model_of(request))


def _model_of(request: AnyRequest) -> str:
    """The model that must exist for the request to work."""
    if isinstance(request, CreateRequest):
        return request.source
    return getattr(request, "model", "")


def _is_for(kind: Kind, model: str, pool: Pool) -> bool:
    """Whether a pool's model may run a kind of job there, as far as is known."""
    if kind not in MODEL_KINDS:
        return True
    return (not pool.capabilities or kind in pool.capabilities) and not pool.lacks(model, kind)


def _wrong(request: AnyRequest, pool: Pool, hints: ErrorHints) -> list[str]:
    """Why this pool cannot run the request, a clause each."""
    reports = pool.find(_model_of(request))
    return [*missing(request, reports, hints), *ungranted(request, pool.grants)]


def needs(request: AnyRequest) -> dict[ModelTrait, str]:
    """The traits beyond its kind that a request needs, and the field that needs each."""
    match request:
        case ChatRequest():
            return _of_chat(request)
        case _:
            return {}


def _of_chat(request: ChatRequest) -> dict[ModelTrait, str]:
    found: dict[ModelTrait, str] = {}
    if request.tools:
        found["tools"] = "tools"
    if any(message.images for message in request.messages):
        found["vision"] = "messages"
    if request.think not in {"auto", "off"}:
        found["thinking"] = "think"
    if isinstance(request.response_format, SchemaFormat):
        found["schema"] = "response_format"
    return found


def missing(
    request: AnyRequest, reports: Iterable[ModelReport], hints: ErrorHints = NATIVE
) -> list[str]:
    """What the request needs and the model lacks, a clause each; empty if unknown."""
    every = list(reports)
    if not every:
        return []
    wrong = [
        f"it does not support {trait} (needed by {hints.fields.get(field, field)})"
        for trait, field in needs(request).items()
        if all(trait in report.lacks for report in every)
    ]
    dimension = max((report.dimension or 0) for report in every)
    wished = request.dimensions if isinstance(request, EmbedRequest) else None
    if wished and dimension and wished > dimension:
        wrong.append(f"dimensions is {wished}, and its vectors have {dimension}")
    return wrong


def ungranted(request: AnyRequest, grants: Collection[Feature] | None) -> list[str]:
    """Features of the request that the backend cannot grant and must not ignore, a clause each."""
    if grants is None:
        return []
    return [
        f"{wish}: {REMEDIES[wish]}"
        for wish in features_of(request)
        if wish in REMEDIES and wish not in grants
    ]


def without_effort(request: ChatRequest, pools: Mapping[str, Pool]) -> ChatRequest:
    """The request without its effort if every model of its name is known not to think.

    For surfaces whose clients send an effort to every model.
    """
    if request.think in {"auto", "off"}:
        return request
    own = pools.get(request.backend or "")
    named = [own] if own is not None else list(pools.values())
    reports = [report for pool in named for report in pool.find(request.model)]
    if reports and all("thinking" in report.lacks for report in reports):
        return request.model_copy(update={"think": "auto"})
    return request


def refuse(
    request: AnyRequest, model: str, wrong: Sequence[str], hints: ErrorHints = NATIVE
) -> None:
    """Raise a Refusal with these clauses, if there are any."""
    if wrong:
        raise Refusal(
            NotSupported,
            f"The model {model[:80]} does not support the request: {'; '.join(wrong)}. "
            f"Leave it out of the {request.kind} request, or choose another model "
            f"({hints.abilities}).",
        )


def _pulling(
    request: AnyRequest, able: Sequence[Pool], pools: Mapping[str, Pool], hints: ErrorHints
) -> list[Pool]:
    """The pools that can pull the missing model, if the request has `on_missing: pull`."""
    pulling = [pool for pool in able if "pull" in pool.capabilities]
    if request.on_missing == "pull" and pulling:
        return pulling
    raise absent(_model_of(request), pools.values(), hints)


def absent(model: str, pools: Collection[Pool], hints: ErrorHints) -> Refusal:
    """The error for a model that no backend has, with names that are close."""
    matches = close(model, {name for pool in pools for name in pool.models})
    meant = f"; close names: {', '.join(matches)}" if matches else ""
    can_pull = any("pull" in pool.capabilities for pool in pools)
    fetch = f"; {hints.pull.format(model=model[:80])}" if can_pull else ""
    return Refusal(
        UnknownModel,
        f"No live backend has the model {model[:80]}{meant}. {_sentence(hints.models)}{fetch}.",
        matches=matches,
    )


def _refuse_kind(
    model: str, kind: Kind, having: Sequence[Pool], pools: Mapping[str, Pool], hints: ErrorHints
) -> NoReturn:
    does = list(dict.fromkeys(it for pool in having for it in pool.kinds(model)))
    others = models_for(kind, pools.values())
    detail = not_for(model, kind, [it for it in does if it != kind], others)
    raise Refusal(
        WrongKind, hints.wrong_kind(model[:80], kind) + detail, matches=others[:_MOST_MATCHES]
    )


def models_for(kind: Kind, pools: Iterable[Pool]) -> list[str]:
    """Models that are known to do a kind of job; if there are none, those that may."""
    known: set[str] = set()
    unknown: set[str] = set()
    for pool in pools:
        if kind in pool.capabilities:
            for name, reports in pool.models.items():
                if any(kind in report.traits for report in reports):
                    known.add(name)
                elif kind in pool.kinds(name):
                    unknown.add(name)
    return sorted(known) or sorted(unknown)


def _refuse_verb(kind: Kind, pools: Sequence[Pool]) -> NoReturn:
    raise Refusal(
        NotSupported,
        " ".join(cannot(pool.name, kind, pool.capabilities) for pool in pools),
        capabilities=tuple(dict.fromkeys(it for pool in pools for it in pool.capabilities)),
    )


def least_loaded(
    model: str, candidates: Sequence[Pool], queues: Sequence[QueueView], kind: Kind = "chat"
) -> Pool:
    """The candidate with the shortest queue per slot; of equals, one that has the model warm.

    One whose queue for this kind of job is paused comes last.
    """
    loads: dict[str, float] = {}
    paused = {queue.name for queue in queues if queue.paused is not None}
    for queue in queues:
        loads[queue.name] = (queue.depth + queue.in_flight) / max(queue.slots, 1)

    def rank(pool: Pool) -> tuple[bool, float, bool, str]:
        load = sum(loads.get(queue, 0.0) for queue in _queues_of(pool))
        is_warm = any(report.warm for report in pool.find(model))
        is_paused = queue_name(pool.name, kind) in paused
        return is_paused, load, not is_warm, pool.name

    return min(candidates, key=rank)


def _queues_of(pool: Pool) -> list[str]:
    """All queues of a pool: pulls and embeds on a backend delay its chats."""
    return [queue for queue in pool.queues if backend_of(queue) == pool.name]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
