"""Why a job waits, in words: what its queue says of it, and what the queue's workers say."""

from collections.abc import Sequence
from datetime import UTC, datetime

from contract.jobs import Place
from contract.model_names import is_same
from contract.model_names_m_variants import model_of
from contract.roster import QueueReport, WorkerReport


def explained(
    place: Place, queue: str, workers: Sequence[WorkerReport], model: str | None = None
) -> Place:
    """The place with its reason: what is in the way of everybody comes before who is.

    An estimate is only kept while somebody works: a rate of the past says nothing otherwise.
    `model` is the one that the job asks for, which may be out of order while others work.
    """
    if not place.reason:
        return place
    reports = [q for w in workers if not w.draining for q in w.queues if q.name == queue]
    until = _broken_until(reports, model)
    obstacle = _obstacle(reports) if until is None else until
    if obstacle is None:
        return place
    told = obstacle if place.position in (None, 1) else f"{obstacle}; {place.reason}"
    eta_s = place.eta_s if reports and until is None else None
    return place.model_copy(update={"reason": told, "eta_s": eta_s})


def _obstacle(reports: Sequence[QueueReport]) -> str | None:
    if not reports:
        return "waiting for a worker"
    loading = sorted({report.loading for report in reports if report.loading})
    return f"loading {', '.join(loading)}" if loading else None


def _broken_until(reports: Sequence[QueueReport], model: str | None) -> str | None:
    """Which circuit is open at every worker, and until when; None if a worker may take the job."""
    at = [report.circuit_open_until for report in reports]
    if reports and None not in at:
        return f"circuit open until {_clock(min(filter(None, at)))}"
    models = [_of_model(report, model) for report in reports]
    if reports and None not in models:
        return f"circuit of model {model} open until {_clock(min(filter(None, models)))}"
    return None


def _of_model(report: QueueReport, model: str | None) -> float | None:
    """Until when the worker takes no job of a model, in whatever way it would load it."""
    times = [
        until
        for loaded, until in (report.model_circuits or {}).items()
        if model is not None and is_same(model_of(loaded), model)
    ]
    return report.circuit_open_until or min(times, default=None)


def _clock(unix: float) -> str:
    return f"{datetime.fromtimestamp(unix, UTC):%H:%M:%S} UTC"
