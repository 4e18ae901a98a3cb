"""While a job waits: fresh `queued` events between what its log says, live only, without an id.

One look a job and interval serves all of its followers, however many they are.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from api_shim.submission.roster_cache import RosterCache
from contract.errors import FleetError
from contract.events import (
    Frame,
    Queued,
)
from contract.jobs import JobRecord, QueuePlace
from contract.model_names import is_same, model_of
from contract.roster import QueueReport, WorkerReport
from relay.position import Positions
from relay.records import Records


def explained(
    place: QueuePlace, queue: str, workers: Sequence[WorkerReport], model: str | None = None
) -> QueuePlace:
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


Pages = AsyncGenerator[list[Frame], None]

_FIRST_LOOK_S: Final = 0.25
"""Most jobs have started by then, and nobody needs to look."""


class QueuePositions:
    """Where waiting jobs stand, looked up at most once an interval for each."""

    def __init__(
        self,
        records: Records,
        standing: Positions,
        roster: RosterCache,
        now: Callable[[], float],
        every_s: float,
    ) -> None:
        """Trust a look for `every_s` seconds; `now` is unix seconds."""
        self._records = records
        self._standing = standing
        self._roster = roster
        self._now = now
        self.every_s = every_s
        self._looks: dict[str, asyncio.Task[tuple[JobRecord, QueuePlace] | None]] = {}

    async def place(self, record: JobRecord) -> QueuePlace:
        """Where a job stands now and why it waits; raises RelayUnavailable."""
        place = await self._standing.place(record)
        return explained(place, record.queue, await self._roster.recent(), record.model)

    async def queued(self, job_id: str) -> Queued | None:
        """What there is to say of a waiting job; None if it waits no more or Redis is away."""
        look = self._looks.get(job_id)
        if look is None:
            look = self._looks[job_id] = asyncio.create_task(self._look(job_id))
            # A little less than an interval: the follower who looked must look again next time.
            asyncio.get_running_loop().call_later(self.every_s * 0.9, self._looks.pop, job_id, None)
        seen = await asyncio.shield(look)
        if seen is None:
            return None
        record, place = seen
        return Queued(
            queue=record.queue, position=place.position, eta_s=place.eta_s, reason=place.reason
        )

    async def _look(self, job_id: str) -> tuple[JobRecord, QueuePlace] | None:
        with suppress(FleetError):
            record = await self._records.get(job_id)
            if record.status == "queued":
                place = await self.place(record)
                if place.reason:
                    return record, place
        return None

    async def between(self, job_id: str, pages: Pages, *, waits: bool) -> Pages:
        """The pages, and fresh `queued` frames between them while the job `waits`.

        An empty page (silence) of a waiting job becomes a fresh frame even if nothing changed.
        """
        told: Queued | None = None
        pause_s = min(_FIRST_LOOK_S, self.every_s)
        upcoming: asyncio.Task[list[Frame] | None] | None = None
        try:
            while True:
                if waits:
                    upcoming = upcoming or asyncio.create_task(_next(pages))
                    await asyncio.wait({upcoming}, timeout=pause_s)
                    pause_s = self.every_s
                    if not upcoming.done():
                        fresh = await self.queued(job_id)
                        if fresh is not None and _differs(fresh, told):
                            told = fresh
                            yield [self._frame(fresh)]
                        continue
                    frames, upcoming = upcoming.result(), None
                else:
                    frames = await anext(pages, None)
                if frames is None:
                    return
                if frames:
                    told = _queued(frames[-1])
                    waits = told is not None
                    pause_s = min(_FIRST_LOOK_S, self.every_s)
                yield frames or ([self._frame(told)] if told else [])
        finally:
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.wait({upcoming})
            await pages.aclose()

    def _frame(self, queued: Queued) -> Frame:
        return Frame.of(None, self._now(), queued)


async def _next(pages: Pages) -> list[Frame] | None:
    return await anext(pages, None)


def _queued(frame: Frame) -> Queued | None:
    """What a frame says of a job that waits; None if the job does something else."""
    event = frame.event if frame.type == "queued" else None
    return event if isinstance(event, Queued) else None


def _differs(fresh: Queued, told: Queued | None) -> bool:
    """Whether it is worth saying: an estimate that moves within a second is not."""
    if told is None:
        return True
    seconds = [None if q.eta_s is None else round(q.eta_s) for q in (fresh, told)]
    return (fresh.position, fresh.reason, seconds[0]) != (told.position, told.reason, seconds[1])
