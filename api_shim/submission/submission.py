"""Taking a request in: the one way from any surface onto a queue.

Every surface (native, OpenAI, Ollama) takes its requests in here, so that backend, headers, tenant
and Idempotency-Key mean the same on all of them.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Query, Request, Response

from api_shim.dependencies import Dependencies, Wired
from api_shim.http.authentication import Caller
from api_shim.http.error_hints import NATIVE, Words, words_of
from api_shim.http.headers import Preferences, Preferred
from api_shim.http.problems import Refusal
from api_shim.submission.roster_cache import pools
from api_shim.submission.selection import fitting, least_loaded, named
from contract.errors import FleetError, RelayUnavailable
from contract.jobs import AnyRequest, JobAccepted, JobRecord, QueuePlace
from contract.redis_keys import backend_of, queue_name
from contract.roster import WorkerReport
from contract.tenants import Tenant
from relay.idempotency import Key


class Submission:
    """Takes one call's request in: finds the queue, enqueues, and says where to follow."""

    def __init__(
        self,
        wiring: Dependencies,
        tenant: Tenant,
        preferences: Preferences,
        *,
        enqueue_anyway: bool = False,
        words: Words = NATIVE,
    ) -> None:
        """Work for one call; `headers` are to be added to its answer.

        `words` are those of its surface.
        """
        self._wiring = wiring
        self._tenant = tenant
        self._preferences = preferences
        self._enqueue_anyway = enqueue_anyway
        self._words = words
        self.headers: dict[str, str] = {}

    async def __call__(self, request: AnyRequest) -> Response:
        """Take it in, and answer 202; raises what `take` raises."""
        record, place = await self.take(request)
        return accepted(record, place, self.headers)

    async def take(self, request: AnyRequest) -> tuple[JobRecord, QueuePlace]:
        """Make a job of the request, or find the one that its Idempotency-Key leads to.

        Raises Refusal, KeyReused, QueueFull, RelayUnavailable.
        """
        request = self._preferences.over(request)
        key = self._preferences.idempotency_key
        if key is None:
            record, place = await self._enqueue(request, await self.queue_for(request))
        else:
            anyway = str(self._enqueue_anyway)
            record, place = await self._take_once(
                request, Key.of(self._tenant.name, key, request, anyway)
            )
        self.headers["X-Fleet-Job"] = record.id
        return record, place

    async def _take_once(self, request: AnyRequest, key: Key) -> tuple[JobRecord, QueuePlace]:
        keys = self._wiring.idempotency
        hold = await keys.find(key)
        if hold is None:
            hold = await keys.hold(key, await self.queue_for(request))
        if not hold.is_new:
            self.headers["Idempotent-Replayed"] = "true"
        try:
            record, place = await self._enqueue(request, hold.queue, hold.job_id)
        except FleetError:
            with suppress(RelayUnavailable):
                await keys.let_go(key, hold)
            raise
        if record.id != hold.job_id:
            await keys.settle(key, hold, record.id)
        return record, place

    async def _enqueue(
        self, request: AnyRequest, queue: str, job_id: str | None = None
    ) -> tuple[JobRecord, QueuePlace]:
        request = request.model_copy(update={"backend": backend_of(queue)})
        record, place = await self._wiring.queue.enqueue(
            request, queue=queue, tenant=self._tenant, job_id=job_id
        )
        if record.on_disconnect != request.on_disconnect:
            # A pull that another caller has begun: nobody may take it from who stays.
            await self._wiring.audience.relax(record, request.on_disconnect)
        return record, place

    async def queue_for(self, request: AnyRequest) -> str:
        """The queue that a request belongs on now; raises Refusal, RelayUnavailable."""
        return queue_name(await self._backend(request), request.kind)

    async def _backend(self, request: AnyRequest) -> str:
        if request.backend is not None and self._enqueue_anyway:
            return request.backend
        census = self._wiring.census
        try:
            return await self._chosen(request, await census.recent())
        except Refusal:
            # Whoever is refused has been judged by the roster of this moment.
            return await self._chosen(request, await census.workers())

    async def _chosen(self, request: AnyRequest, workers: list[WorkerReport]) -> str:
        fleet = pools(workers)
        if request.backend is not None:
            known: set[str] = set()
            if request.backend not in fleet:
                views = await self._wiring.queue.standing.views(workers)
                known = {backend_of(view.name) for view in views}
            named(request.backend, request, fleet, known, self._words)
            return request.backend
        candidates = fitting(request, fleet, self._words)
        if len(candidates) == 1:
            return candidates[0].name
        views = await self._wiring.queue.standing.views(workers)
        return least_loaded(getattr(request, "model", ""), candidates, views).name


def accepted(record: JobRecord, place: QueuePlace, headers: Mapping[str, str]) -> Response:
    """Answer that a job was taken in, and where to follow it."""
    told = JobAccepted(
        id=record.id,
        status=record.status,
        queue=record.queue,
        position=place.position,
        eta_s=place.eta_s,
        events_url=f"/api/v1/jobs/{record.id}/events",
    )
    whole = {"Location": f"/api/v1/jobs/{record.id}", "X-Fleet-Job": record.id, **headers}
    return Response(told.model_dump_json(), 202, whole, media_type="application/json")


async def _drop_in(
    request: Request, wiring: Wired, caller: Caller, preferences: Preferred
) -> Submission:
    return Submission(wiring, caller, preferences, words=words_of(request.url.path))


async def _native(
    wiring: Wired,
    caller: Caller,
    preferences: Preferred,
    *,
    enqueue_anyway: Annotated[
        bool, Query(description="Enqueue for the named backend although no worker serves it.")
    ] = False,
) -> Submission:
    return Submission(wiring, caller, preferences, enqueue_anyway=enqueue_anyway)


Taking = Annotated[Submission, Depends(_native)]
"""A parameter of a native route that makes jobs."""
DropInTaking = Annotated[Submission, Depends(_drop_in)]
"""A parameter of a drop-in route that makes jobs."""
