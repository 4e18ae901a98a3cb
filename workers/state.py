"""What the parts of one worker share: the backend's endpoints, the slots, the jobs it holds."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from relay.claims import Claim, StartedJob
from relay.publisher import AttemptLog
from workers.endpoints.endpoints import EndpointPool
from workers.model_affinity import ModelAffinity
from workers.request_fitting import RequestFitting
from workers.sessions import Sessions
from workers.slots import IdleSlots, Slots

_ENDED_JOBS: Final = 256
"""Ids of ended jobs that are remembered."""


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job that runs here; losing its `log` cancels the run, `over` is set when it has ended."""

    job: StartedJob
    log: AttemptLog
    over: asyncio.Event = field(default_factory=asyncio.Event)


class HeldJobs:
    """The jobs that a worker runs, by id."""

    def __init__(self) -> None:
        """Start with none."""
        self._by_id: dict[str, HeldJob] = {}
        self._leased: dict[str, Claim] = {}
        self._ended: deque[str] = deque(maxlen=_ENDED_JOBS)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_id)

    @property
    def all(self) -> list[HeldJob]:
        """A copy of the list of all of them."""
        return list(self._by_id.values())

    def lease(self, claim: Claim) -> None:
        """Keep the lease of a job that is to start here: in a crowded worker that takes seconds."""
        self._leased[claim.job_id] = claim

    def leave(self, job_id: str) -> None:
        """Keep its lease no longer, unless the job runs; an unknown id is ignored."""
        self._leased.pop(job_id, None)

    def add(self, held: HeldJob) -> None:
        """Hold a job; if `end` was called for it before, its log is lost at once."""
        job_id = held.job.record.id
        self._by_id[job_id] = held
        self.leave(job_id)
        if job_id in self._ended:
            held.log.mark_lost()

    def remove(self, held: HeldJob) -> None:
        """Forget a job whose run has ended."""
        del self._by_id[held.job.record.id]
        held.over.set()

    def in_flight(self, queue: str) -> int:
        """Return how many of them came from `queue`."""
        return sum(held.job.record.queue == queue for held in self._by_id.values())

    def attempts(self) -> dict[str, list[tuple[str, int]]]:
        """Return id and attempt of each job, by queue: what a lease is renewed with.

        Also of those that are about to start.
        """
        found: dict[str, list[tuple[str, int]]] = {}
        for job_id, claim in self._leased.items():
            found.setdefault(claim.queue, []).append((job_id, claim.attempt))
        for job_id, held in self._by_id.items():
            found.setdefault(held.job.record.queue, []).append((job_id, held.job.attempt))
        return found

    def lose(self, job_id: str) -> None:
        """Cancel the run of a job whose lease is gone; an unknown id is ignored."""
        held = self._by_id.get(job_id)
        if held is not None:
            held.log.mark_lost()

    def end(self, job_id: str) -> None:
        """Cancel the run of a job that was cancelled or failed elsewhere.

        The message may arrive before the answer to the claim, so the id is remembered for `add`.
        """
        self._ended.append(job_id)
        self.lose(job_id)

    def was_ended(self, job_id: str) -> bool:
        """Whether the job was lately cancelled, or failed elsewhere."""
        return job_id in self._ended

    async def end_attempt_of(self, job_id: str) -> None:
        """Cancel an earlier attempt of the job that still runs here, and wait for its end.

        A worker that was cut off or suspended may claim a job again before it has noticed that
        its lease had expired.
        """
        while (earlier := self._by_id.get(job_id)) is not None:
            earlier.log.mark_lost()
            await earlier.over.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """One worker: built in lifetime.py, read by the worker, its reporter and its maintenance."""

    name: str
    endpoints: EndpointPool
    slots: Slots
    idle_slots: IdleSlots
    sessions: Sessions
    affinity: ModelAffinity
    fitting: RequestFitting
    draining: asyncio.Event
    """Set when the worker is about to stop: no job is claimed after that."""
    held: HeldJobs = field(default_factory=HeldJobs)

    @property
    def is_draining(self) -> bool:
        """Whether the worker is about to stop."""
        return self.draining.is_set()

    def may_go_on(self, queue: str) -> bool:
        """Whether a slot of a queue whose job has ended may take the next one."""
        return not self.draining.is_set() and self.slots.is_served(queue)
