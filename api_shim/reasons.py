"""Why a job waits, in words: what its queue says of it, and what the queue's workers say."""

from collections.abc import Sequence
from datetime import UTC, datetime

from contract.jobs import Place
from contract.roster import QueueReport, WorkerReport


def explained(place: Place, queue: str, workers: Sequence[WorkerReport]) -> Place:
    """The place with its reason: what is in the way of everybody comes before who is.

    An estimate is only kept while somebody works: a rate of the past says nothing otherwise.
    """
    if not place.reason:
        return place
    reports = [q for w in workers if not w.draining for q in w.queues if q.name == queue]
    obstacle = _obstacle(reports)
    if obstacle is None:
        return place
    told = obstacle if place.position in (None, 1) else f"{obstacle}; {place.reason}"
    eta_s = place.eta_s if reports and not _is_broken(reports) else None
    return place.model_copy(update={"reason": told, "eta_s": eta_s})


def _obstacle(reports: Sequence[QueueReport]) -> str | None:
    if not reports:
        return "waiting for a worker"
    if _is_broken(reports):
        until = min(report.circuit_open_until or 0.0 for report in reports)
        return f"circuit open until {datetime.fromtimestamp(until, UTC):%H:%M:%S} UTC"
    loading = sorted({report.loading for report in reports if report.loading})
    return f"loading {', '.join(loading)}" if loading else None


def _is_broken(reports: Sequence[QueueReport]) -> bool:
    return bool(reports) and all(report.circuit_open_until is not None for report in reports)
