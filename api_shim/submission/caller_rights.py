"""What a caller's key allows of a request, and of the fleet: permissions, models, backends. Pure.

Every job passes `check_rights` where it is submitted, whatever surface, batch line or retry it
comes from. A model is judged by its name before the roster is looked at, so that a refusal says
nothing about models that a key may not use. An alias is judged by what it stands for, unless the
key's list names the alias itself.

Hosts, processes and addresses are for admins (docs/adr/0060). Others get labels of addresses, as in
`box/2`, which events name, too; in what a worker says of an error, the backend's name is in place
of its address.
"""

from typing import Final

from contract.chat import ChatRequest
from contract.embeddings import EmbedRequest
from contract.errors import NotAllowed
from contract.jobs import AnyRequest
from contract.model_names import model_of
from contract.models import CopyRequest, CreateRequest, ListRequest, RunningRequest
from contract.redis_keys import backend_of
from contract.requests import Route
from contract.roster import BackendReport, KnownBackend, QueueReport, WorkerReport
from contract.tenants import OF_KIND, Tenant
from relay.roster import Roster
from telemetry.plain_text import without_addresses

_HOW: Final = "an admin can change that (`fleet keys update ID {option} ...`)"


def check_rights(tenant: Tenant, request: AnyRequest) -> None:
    """Check all of a request but its model; raises NotAllowed."""
    tenant.require(OF_KIND[request.kind])
    if request.on_missing == "pull":
        tenant.require("models:write")
    check_backend(tenant, request.backend)


def without_lease(tenant: Tenant, request: AnyRequest) -> AnyRequest:
    """The request as its key may send it: how long a model stays in memory, others decide.

    `keep_alive: 0` would unload a model that all use, and -1 keep one in memory for ever.
    """
    if not isinstance(request, ChatRequest | EmbedRequest) or request.keep_alive_s is None:
        return request
    if tenant.may("models:write"):
        return request
    return request.model_copy(update={"keep_alive_s": None})


def check_backend(tenant: Tenant, backend: str | None) -> None:
    """Check the backend that a request names, if it names one; raises NotAllowed."""
    if backend is not None and not tenant.may_use_backend(backend):
        raise _not_of_key("backend", backend, tenant.backends)


def check_models(tenant: Tenant, request: AnyRequest) -> None:
    """Check the models that a request names, none of them an alias; raises NotAllowed."""
    if tenant.models is None:
        return
    for model in _named(request):
        if not tenant.may_use_model(model):
            raise _not_of_key("model", model, tenant.models)


def _named(request: AnyRequest) -> tuple[str, ...]:
    match request:
        case RunningRequest() | ListRequest():
            raise NotAllowed(
                f"{request.kind}: it lists every model of a backend, and this key may use only "
                "some: GET /api/ps and GET /api/v1/models list those"
            )
        case CopyRequest():
            return request.model, request.destination
        case CreateRequest():
            return request.model, request.source
        case _:
            return (request.model,)


def allowed_route(tenant: Tenant, alias: str, route: Route) -> Route:
    """The route without targets that the key may not use; `alias` is the name in the table.

    Raises NotAllowed if none is left.
    """
    if not tenant.is_limited:
        return route
    targets = tuple(
        target
        for target in route.targets
        if tenant.may_use_alias(alias, route.alias, target.model)
        and (target.backend is None or tenant.may_use_backend(target.backend))
    )
    if targets:
        return route.model_copy(update={"targets": targets})
    allowed = [t for t in route.targets if tenant.may_use_alias(alias, route.alias, t.model)]
    if allowed:
        where = ", ".join(sorted({target.backend or "" for target in allowed}))
        raise _not_of_key("backend", where, tenant.backends)
    raise _not_of_key("model", route.alias, tenant.models)


def _not_of_key(what: str, name: str, allowed: tuple[str, ...] | None) -> NotAllowed:
    names = ", ".join(allowed or ())
    return NotAllowed(
        f"{what}: this key may not use {name[:80]}, only {names[:300]}: "
        f"{_HOW.format(option=f'--{what}s')}"
    )


def visible(
    roster: Roster, models: tuple[str, ...] | None, backends: tuple[str, ...] | None
) -> Roster:
    """The roster as a key with these limits sees it."""
    if models is None and backends is None:
        return roster
    key = Tenant(name="key", models=models, backends=backends)
    workers = [_worker(worker, key) for worker in roster.workers]
    return Roster(
        [worker for worker in workers if worker.backends],
        [
            known.model_copy(update={"backend": _backend(known.backend, key)})
            for known in roster.known
            if key.may_use_backend(known.backend.name)
        ],
    )


def _worker(worker: WorkerReport, key: Tenant) -> WorkerReport:
    backends = [_backend(each, key) for each in worker.backends if key.may_use_backend(each.name)]
    queues = [
        _queue(each, key) for each in worker.queues if key.may_use_backend(backend_of(each.name))
    ]
    return worker.model_copy(update={"backends": tuple(backends), "queues": tuple(queues)})


def _backend(report: BackendReport, key: Tenant) -> BackendReport:
    if key.models is None:
        return report
    models = tuple(model for model in report.models if key.may_use_model(model.name))
    return report.model_copy(update={"models": models})


def _queue(report: QueueReport, key: Tenant) -> QueueReport:
    if key.models is None:
        return report
    circuits = report.model_circuits and {
        model: until for model, until in report.model_circuits.items() if _may_see(key, model)
    }
    loading = report.loading if report.loading and _may_see(key, report.loading) else None
    return report.model_copy(update={"loading": loading, "model_circuits": circuits or None})


def _may_see(key: Tenant, variant: str) -> bool:
    return key.may_use_model(model_of(variant))


def without_hosts(roster: Roster, tenant: Tenant) -> Roster:
    """The roster as a tenant may see it; an admin sees it as it is."""
    if tenant.admin:
        return roster
    return Roster(
        [_without_host(each) for each in roster.workers],
        [_without_place(each) for each in roster.known],
    )


def _without_host(worker: WorkerReport) -> WorkerReport:
    backends = tuple(_labelled(report) for report in worker.backends)
    hidden = {"host": None, "pid": None, "metrics_url": None}
    return worker.model_copy(update={**hidden, "backends": backends})


def _without_place(known: KnownBackend) -> KnownBackend:
    return known.model_copy(update={"backend": _labelled(known.backend)})


def _labelled(report: BackendReport) -> BackendReport:
    addresses = [report.endpoint, *(each.address for each in report.endpoints)]

    def public(error: str | None) -> str | None:
        return None if error is None else without_addresses(error, addresses, report.name)

    labels = [
        each.label or f"{report.name}/{number}"
        for number, each in enumerate(report.endpoints, start=1)
    ]
    endpoints = tuple(
        each.model_copy(update={"address": label, "error": public(each.error)})
        for each, label in zip(report.endpoints, labels, strict=True)
    )
    first = labels[0] if labels else f"{report.name}/1"
    changed = {"endpoint": first, "endpoints": endpoints, "error": public(report.error)}
    return report.model_copy(update=changed)
