"""The roster as tenants may see it: names, capabilities and health, but not where anything runs.

Hosts, processes and addresses are for admins. A backend's address has a label, as in `box/2`, which
events name, too; in what a worker says of an error, the backend's name stands in its place.
"""

from contract.roster import BackendReport, KnownBackend, WorkerReport
from contract.tenants import Tenant
from relay.roster import Roster
from telemetry.plain_text import without_addresses


def without_hosts(roster: Roster, tenant: Tenant) -> Roster:
    """The roster as a tenant may see it; an admin sees it as it is."""
    if tenant.admin:
        return roster
    return Roster([_worker(each) for each in roster.workers], [_known(k) for k in roster.known])


def _worker(worker: WorkerReport) -> WorkerReport:
    backends = tuple(_backend(report) for report in worker.backends)
    hidden = {"host": None, "pid": None, "metrics_url": None}
    return worker.model_copy(update={**hidden, "backends": backends})


def _known(known: KnownBackend) -> KnownBackend:
    return known.model_copy(update={"backend": _backend(known.backend)})


def _backend(report: BackendReport) -> BackendReport:
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
