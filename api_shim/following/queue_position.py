"""While a job waits: fresh `queued` events between those of its log, live only, without an id.

A job's position is read once an interval, however many followers it has.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from api_shim.following.background_work import cancelled
from api_shim.submission.roster_cache import RosterCache
from contract.errors import FleetError
from contract.events import (
    Frame,
    Queued,
)
from contract.jobs import JobRecord, QueuePlace
from contract.model_names import is_same, model_of
from contract.roster import QueueReport, WorkerReport
from relay.position import NO_WORKER, Positions, behind
from relay.records import Records


def with_reason(
    place: QueuePlace, queue: str, workers: Sequence[WorkerReport], model: str | None = None
) -> QueuePlace:
    """The place with the reason for the wait: an obstacle for all jobs, then the queue.

    Without a live worker there is no estimate. `model` is the job's: its circuit may be open while
    the worker serves other models.
    """
    if not place.reason or place.is_paused or place.is_scheduled:
        return place
    reports = [q for w in workers if not w.draining for q in w.queues if q.name == queue]
    until = _open_circuit(reports, model)
    obstacle = _obstacle(reports) if until is None else until
    if obstacle is None:
        return place
    eta_s = place.eta_s if reports and until is None else None
    return behind(obstacle, place).model_copy(update={"eta_s": eta_s})


def _obstacle(reports: Sequence[QueueReport]) -> str | None:
    if not reports:
        return NO_WORKER
    loading = sorted({report.loading for report in reports if report.loading})
    return f"loading {', '.join(loading)}" if loading else None


def _open_circuit(reports: Sequence[QueueReport], model: str | None) -> str | None:
    """Which circuit is open at every worker, and until when; None if a worker may claim."""
    at = [report.circuit_open_until for report in reports]
    if reports and None not in at:
        return f"circuit open until {_clock(min(filter(None, at)))}"
    models = [_of_model(report, model) for report in reports]
    if reports and None not in models:
        return f"circuit of model {model} open until {_clock(min(filter(None, models)))}"
    return None


def _of_model(report: QueueReport, model: str | None) -> float | None:
    """Until when the circuit of a model is open at a worker, for any way of loading the model."""
    times = [
        until
        for loaded, until in (report.model_circuits or {}).items()
        if model is not None and is_same(model_of(loaded), model)
    ]
    return report.circuit_open_until or min(times, default=None)


def _clock(unix: float) -> str:
    return f"{datetime.fromtimestamp(unix, UTC):%H:%M:%S} UTC"


Pages = AsyncGenerator[list[Frame], None]

_FIRST_READ_S: Final = 0.25
"""Most jobs have started by then, so their position is never read."""


class QueuePositions:
    """Positions of waiting jobs, each read at most once an interval."""

    def __init__(
        self,
        records: Records,
        positions: Positions,
        roster: RosterCache,
        now: Callable[[], float],
        every_s: float,
    ) -> None:
        """Cache a position for `every_s` seconds; `now` returns unix seconds."""
        self._records = records
        self._positions = positions
        self._roster = roster
        self._now = now
        self.every_s = every_s
        self._reads: dict[str, asyncio.Task[tuple[JobRecord, QueuePlace] | None]] = {}

    async def place(self, record: JobRecord) -> QueuePlace:
        """A job's position now and why it waits; raises RelayUnavailable."""
        place = await self._positions.place(record)
        return with_reason(place, record.queue, (await self._roster.recent()).workers, record.model)

    async def queued(self, job_id: str) -> Queued | None:
        """A fresh event for a waiting job; None if it no longer waits or Redis is unavailable."""
        read = self._reads.get(job_id)
        if read is None:
            read = self._reads[job_id] = asyncio.create_task(self._read(job_id))
            # A little less than an interval, so that a follower's next read is a fresh one.
            asyncio.get_running_loop().call_later(self.every_s * 0.9, self._reads.pop, job_id, None)
        seen = await asyncio.shield(read)
        if seen is None:
            return None
        record, place = seen
        return Queued(
            queue=record.queue, position=place.position, eta_s=place.eta_s, reason=place.reason
        )

    async def reason(self, job_id: str) -> str:
        """Why a job waits, in one line; empty if it does not."""
        queued = await self.queued(job_id)
        return "" if queued is None else " ".join(queued.reason.split())

    async def _read(self, job_id: str) -> tuple[JobRecord, QueuePlace] | None:
        with suppress(FleetError):
            record = await self._records.get(job_id)
            if record.status == "queued":
                place = await self.place(record)
                if place.reason:
                    return record, place
        return None

    async def with_positions(self, job_id: str, pages: Pages, *, waits: bool) -> Pages:
        """The pages, with fresh `queued` frames between them while the job `waits`.

        An empty page (silence) of a waiting job becomes a `queued` frame even if nothing changed.
        """
        last_sent: Queued | None = None
        pause_s = min(_FIRST_READ_S, self.every_s)
        upcoming: asyncio.Task[list[Frame] | None] | None = None
        try:
            while True:
                if waits:
                    upcoming = upcoming or asyncio.create_task(_next(pages))
                    await asyncio.wait({upcoming}, timeout=pause_s)
                    pause_s = self.every_s
                    if not upcoming.done():
                        fresh = await self.queued(job_id)
                        if fresh is not None and _differs(fresh, last_sent):
                            last_sent = fresh
                            yield [self._frame(fresh)]
                        continue
                    frames, upcoming = upcoming.result(), None
                else:
                    frames = await anext(pages, None)
                if frames is None:
                    return
                if frames:
                    last_sent = _queued(frames[-1])
                    waits = last_sent is not None
                    pause_s = min(_FIRST_READ_S, self.every_s)
                yield frames or ([self._frame(last_sent)] if last_sent else [])
        finally:
            if upcoming is not None:
                await cancelled([upcoming])
            await pages.aclose()

    def _frame(self, queued: Queued) -> Frame:
        return Frame.of(None, self._now(), queued)


async def _next(pages: Pages) -> list[Frame] | None:
    return await anext(pages, None)


def _queued(frame: Frame) -> Queued | None:
    """The frame's event if it is `queued`."""
    event = frame.event if frame.type == "queued" else None
    return event if isinstance(event, Queued) else None


def _differs(fresh: Queued, last_sent: Queued | None) -> bool:
    """Whether it is worth sending: an estimate that changed by less than a second is not."""
    if last_sent is None:
        return True
    seconds = [None if q.eta_s is None else round(q.eta_s) for q in (fresh, last_sent)]
    return (fresh.position, fresh.reason, seconds[0]) != (
        last_sent.position,
        last_sent.reason,
        seconds[1],
    )
