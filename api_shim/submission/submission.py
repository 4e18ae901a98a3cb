"""Submission of a request: the one way from any surface onto a queue.

Every surface (native, OpenAI, Ollama, batches) submits here, so that backend, headers, tenant and
Idempotency-Key mean the same on all of them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import quote
from uuid import uuid4

from fastapi import Response

from api_shim.http.error_hints import NATIVE, ErrorHints
from api_shim.http.headers import Preferences
from api_shim.http.problems import Refusal
from api_shim.submission.alias_cache import AliasCache
from api_shim.submission.alias_targets import Placed, TargetChoice, at_backend
from api_shim.submission.caller_rights import (
    allowed_route,
    check_models,
    check_rights,
    without_lease,
)
from api_shim.submission.roster_cache import Pool, RosterCache
from api_shim.submission.selection import choose, depends_on_loads
from contract.aliases.parameters import ALIASED, with_target
from contract.cost import cost_of
from contract.errors import (
    BudgetSpent,
    FleetError,
    InvalidRequest,
    OverLimit,
    QueueFull,
    RateLimited,
    RelayUnavailable,
    UnknownModel,
)
from contract.jobs import AnyRequest, JobAccepted, JobRecord, QueuePlace
from contract.models import EVERY_MODEL, PullRequest
from contract.redis_keys import backend_of, queue_name
from contract.requests import LONGEST_DEADLINE_S, OnNoWorker, Route
from contract.roster import QueueView
from contract.tenants import Tenant
from relay.admission.new_job import may_be_large
from relay.admission.retention import check_retention
from relay.followers import Followers
from relay.idempotency import Hold, Idempotency, Key, hold_of
from relay.position import NO_WORKER
from relay.queue import Once, Queue
from relay.roster import Roster
from relay.scripts.jobs import HeldKey
from relay.settings import RelaySettings
from relay.subscriber import Subscriber, UpcomingJob
from relay.webhooks.webhook_store import WebhookStore
from telemetry.tracing import Tracing

REASON_HEADER: Final = "X-Fleet-Queue-Reason"
"""Response header that says why a job waits, if it waits for a worker to start, or its queue is
paused."""
MODEL_HEADER: Final = "X-Fleet-Model"
"""Response header with the model that answers, if the client has named an alias."""
BACKEND_HEADER: Final = "X-Fleet-Backend"
"""The same with its backend."""
_PLAIN: Final = "!#$&'()*+,/:;=?@[]~ "
"""Characters of a model's name that a header holds as they are; others are percent-encoded."""


class SubmissionServices(NamedTuple):
    """Services of the process that submission needs; built once, in `api_shim.dependencies`."""

    queue: Queue
    roster: RosterCache
    idempotency: Idempotency
    followers: Followers
    subscriber: Subscriber
    """Made with `expects_jobs`."""
    on_no_worker: OnNoWorker
    """For requests that do not say it."""
    busy_wait_s: float
    """The same, of jobs that end with their client's connection."""
    tracing: Tracing
    aliases: AliasCache
    demand_room: Callable[[], None]
    """Raises RelayFull while the disk of Redis has no room for new jobs."""
    webhooks: WebhookStore
    on_pull: Callable[[Tenant, JobRecord], Awaitable[None]]
    """Told of a job that will pull its model."""
    settings: RelaySettings


class Submission:
    """Submits the request of one call: chooses the queue and enqueues a job."""

    def __init__(
        self,
        services: SubmissionServices,
        tenant: Tenant,
        preferences: Preferences,
        *,
        enqueue_anyway: bool = False,
        hints: ErrorHints = NATIVE,
        is_followed: bool = False,
    ) -> None:
        """For one call of `tenant`; `headers` are to be added to its response.

        `enqueue_anyway`: enqueue for a named backend although no worker serves it. `hints` are
        those of its surface.
        `is_followed`: the call follows its job to the end.
        """
        self._services = services
        self.tenant = tenant
        self._preferences = preferences
        self._enqueue_anyway = enqueue_anyway
        self._hints = hints
        self._is_followed = is_followed
        self.expected: UpcomingJob | None = None
        """The job's events, where this process has followed it since it was enqueued."""
        self.headers: dict[str, str] = {}

    @property
    def has_key(self) -> bool:
        """Whether the call has an Idempotency-Key, so that its client may come back to its job."""
        return self._preferences.idempotency_key is not None

    def named(self, fields: Iterable[str]) -> list[str]:
        """Fields of the contract by the names that the client knows."""
        return self._hints.named(fields)

    async def __call__(self, request: AnyRequest) -> Response:
        """Accept the request and respond 202; raises what `accept` raises."""
        record, place = await self.accept(request)
        return accepted(record, place, self.headers)

    async def accept(self, request: AnyRequest) -> tuple[JobRecord, QueuePlace]:
        """A new job for the request and its place, or the job of the same Idempotency-Key.

        Raises Refusal (what `choose` refuses), KeyReused (409), QueueFull, RateLimited, BudgetSpent
        (429), OverLimit (400), RelayUnavailable (503).
        """
        self._services.demand_room()
        with self._services.tracing.submitting(request.kind) as span:
            record, place = await self._accept(request)
            span.set({"llmfleet.job.id": record.id, "llmfleet.queue": record.queue})
        if request.on_missing == "pull" and self._is_missing(record):
            await self._services.on_pull(self.tenant, record)
        self.headers["X-Fleet-Job"] = record.id
        if record.alias is not None:
            self.headers |= speaker(record.model, record.backend)
        return record, place

    def _is_missing(self, record: JobRecord) -> bool:
        """Whether the backend of a job does not have its model, as far as is known."""
        pool = self._services.roster.recent_pools.get(record.backend)
        return pool is not None and not pool.find(record.model or "")

    async def _accept(self, request: AnyRequest) -> tuple[JobRecord, QueuePlace]:
        request, key = self._preferences.over(request), None
        check_retention(request, self.tenant, self._services.settings)
        if request.callback_url is not None:
            await self._services.webhooks.demand_callbacks(self.tenant.name, request.callback_url)
        if (idempotency_key := self._preferences.idempotency_key) is not None:
            anyway = str(self._enqueue_anyway)
            made = partial(Key.of, self.tenant.name, idempotency_key, request, anyway)
            is_large = may_be_large(request, cost_of(request))
            key = await asyncio.to_thread(made) if is_large else made()
        try:
            placed = await self.place(request)
        except Refusal:
            # A repeated request needs no backend that would take it now.
            found = None if key is None else await self._services.idempotency.find(key)
            if key is None or found is None:
                raise
            return await self._enqueue_held(Placed(request, found.queue), key, found)
        while True:
            try:
                return await self._accept_placed(placed, key)
            except QueueFull:
                if (further := placed.next) is None:
                    raise
                placed = further

    async def _accept_placed(self, placed: Placed, key: Key | None) -> tuple[JobRecord, QueuePlace]:
        if key is None:
            return await self._enqueue(placed)
        request = placed.request
        if isinstance(request, PullRequest) or request.after or request.after_any:
            # Found by its key before its parents, which may have expired, are looked for.
            hold = await self._services.idempotency.hold(key, placed.queue)
        else:
            job = await self._enqueue_once(placed, key)
            if not isinstance(job, HeldKey):
                return job
            hold = hold_of(job.job_id, job.queue, job.state)
        return await self._enqueue_held(placed, key, hold)

    async def _enqueue_once(
        self, placed: Placed, key: Key
    ) -> tuple[JobRecord, QueuePlace] | HeldKey:
        """A new job for a key that has none, in one round trip; else the job of the key.

        A repeated request is no new one: a tenant at its limit gets the job that it has.
        """
        keys = self._services.idempotency
        once = Once(uuid4().hex, key, keys.times)
        try:
            job = await self._services.queue.enqueue_once(
                self._stored(placed), once, queue=placed.queue, tenant=self.tenant,
                obstacle=placed.obstacle,
            )  # fmt: skip
        except (RateLimited, BudgetSpent, OverLimit):
            if (found := await keys.find(key)) is None:
                raise
            return HeldKey(found.job_id, found.queue, 0)
        except FleetError:
            with suppress(RelayUnavailable):
                await keys.release(key, Hold(once.job_id, placed.queue, is_new=True))
            raise
        if not isinstance(job, HeldKey):
            self._tell_reason(job[1])
        return job

    async def _enqueue_held(
        self, placed: Placed, key: Key, hold: Hold
    ) -> tuple[JobRecord, QueuePlace]:
        """The job of a key, which is enqueued now if the request that bound it has not."""
        keys = self._services.idempotency
        if not hold.is_new:
            self.headers["Idempotent-Replayed"] = "true"
        try:
            placed = placed.at(hold.queue, backend_of(hold.queue))
            return await self._enqueue(placed, hold.job_id, key.name)
        except FleetError:
            with suppress(RelayUnavailable):
                await keys.release(key, hold)
            raise

    async def _enqueue(
        self, placed: Placed, job_id: str | None = None, bound_key: str = ""
    ) -> tuple[JobRecord, QueuePlace]:
        request = self._stored(placed)
        # Only of these it is certain that the job is a new one.
        is_new = job_id is None and not isinstance(request, PullRequest)
        expected = self._services.subscriber.expect() if is_new and self._is_followed else None
        record, place = await self._services.queue.enqueue(
            request, queue=placed.queue, tenant=self.tenant, job_id=job_id, expects_follower=True,
            new_job_id=None if expected is None else expected.job_id,
            first_follower=None if expected is None else self._services.followers.process,
            obstacle=placed.obstacle, bound_key=bound_key,
        )  # fmt: skip
        self.expected = expected
        self._tell_reason(place)
        if record.on_disconnect != request.on_disconnect:
            # A pull that another client began: it must not end with one of its clients.
            await self._services.followers.merge_policy(record, request.on_disconnect)
        return record, place

    def _stored(self, placed: Placed) -> AnyRequest:
        """The request as it is enqueued; a client that waits for the response has its bound.

        The bound is not a part of what an Idempotency-Key is compared with.
        """
        request = stored(placed)
        waits = self._is_followed and request.on_disconnect != "continue"
        if not waits or request.busy_wait_s is not None:
            return request
        return request.model_copy(update={"busy_wait_s": self._services.busy_wait_s})

    def _tell_reason(self, place: QueuePlace) -> None:
        if place.is_paused or place.reason.startswith(NO_WORKER):
            # Only ASCII is safe in a header; the response has the text.
            self.headers[REASON_HEADER] = place.reason.encode("ascii", "replace").decode()

    async def place(self, request: AnyRequest) -> Placed:
        """The queue for a request now, by its alias if its model is one.

        Raises NotAllowed, Refusal, InvalidRequest, RelayUnavailable.
        """
        if request.route is not None:
            raise InvalidRequest(
                "route: the fleet sets it; name the alias as the model", field="route"
            )
        check_rights(self.tenant, request)
        request = without_lease(self.tenant, request)
        route = await self._route(request)
        if route is None:
            check_models(self.tenant, request)
            try:
                return await self._fresh_if_refused(partial(self._place, request))
            except Refusal as refusal:
                raise self._not_of_alias(request, refusal) from None
        return await self._fresh_if_refused(
            partial(self._place_by, request, route), every_model=True
        )

    def _not_of_alias(self, request: AnyRequest, refusal: Refusal) -> Refusal:
        """The refusal, which says so if the request may not name an alias, and does."""
        model = getattr(request, "model", "")
        if refusal.code == UnknownModel.code and model in self._services.aliases.table.aliases:
            refusal.detail += f" {model} is an alias, and a {request.kind} is of a model itself."
        return refusal

    async def queue_for(self, request: AnyRequest, alias: str | None) -> str:
        """The queue for a request, whose model is no alias; the client has named `alias`, if any.

        Raises NotAllowed, Refusal, RelayUnavailable.
        """
        check_rights(self.tenant, request)
        is_named = alias is not None and alias in (self.tenant.models or ())
        if not is_named:
            check_models(self.tenant, request)
        placed = await self._fresh_if_refused(partial(self._place, request), every_model=is_named)
        return placed.queue

    async def _route(self, request: AnyRequest) -> Route | None:
        """The route of a request whose model is an alias; raises NotAllowed, InvalidRequest."""
        table, roster = self._services.aliases.table, self._services.roster
        if not table.aliases or not isinstance(request, ALIASED) or request.model == EVERY_MODEL:
            return None
        await roster.recent()
        found = roster.recent_pools
        name = table.find(request.model, lambda model: any(p.find(model) for p in found.values()))
        if name is None:
            return None
        route = table.route(request.model, name, self.tenant.weight)
        return allowed_route(self.tenant, name, at_backend(route, request.backend))

    async def _fresh_if_refused(self, place: "_Place", *, every_model: bool = False) -> Placed:
        """Place by the fleet that the key sees; `every_model`: the model is one that it may use."""
        roster = self._services.roster
        try:
            await roster.recent()
            return await place(*roster.seen_by(self.tenant, every_model=every_model))
        except Refusal:
            # The cached roster may be old: only a fresh one may refuse a client.
            await roster.read()
            return await place(*roster.seen_by(self.tenant, every_model=every_model))

    async def _place(
        self, request: AnyRequest, roster: Roster, found: Mapping[str, Pool]
    ) -> Placed:
        if request.backend is not None and self._enqueue_anyway:
            queue, pool = queue_name(request.backend, request.kind), found.get(request.backend)
            return Placed(request, queue, pool is None or queue not in pool.queues)
        loads: list[QueueView] = []
        if depends_on_loads(request, found):
            loads = await self._services.queue.positions.views(roster.workers)
        may_wait = (request.on_no_worker or self._services.on_no_worker) == "wait"
        backend = choose(request, found, loads, self._hints, may_wait=may_wait)
        queue = queue_name(backend, request.kind)
        return Placed(request, queue, queue not in found[backend].queues)

    async def _place_by(
        self, request: AnyRequest, route: Route, roster: Roster, found: Mapping[str, Pool]
    ) -> Placed:
        choice = TargetChoice(request, route, roster.workers, self._services.aliases.prices)
        for target in route.targets:
            try:
                placed = await self._place(with_target(request, target), roster, found)
            except Refusal as refusal:
                choice.refuse(target, refusal)
            else:
                backend = backend_of(placed.queue)
                choice.add(target, backend, awaits_worker=placed.awaits_worker)
        return choice.placed()


_Place = Callable[[Roster, Mapping[str, Pool]], Awaitable[Placed]]


def stored(placed: Placed) -> AnyRequest:
    """The request as it is enqueued: what is decided now need not be stored.

    Who waits for a worker that may never start has a deadline.
    """
    request, fields = placed.request, dict[str, Any]()
    if request.route is None and request.backend != (backend := backend_of(placed.queue)):
        fields["backend"] = backend
    if request.on_no_worker is not None:
        fields["on_no_worker"] = None
    if placed.awaits_worker and request.effective_deadline_s is None:
        fields["deadline_s"] = LONGEST_DEADLINE_S
    return request.model_copy(update=fields) if fields else request


def speaker(model: str | None, backend: str) -> dict[str, str]:
    """Headers that tell which model of which backend answers for an alias."""
    return {MODEL_HEADER: quote(model or "", safe=_PLAIN), BACKEND_HEADER: backend}


def accepted(record: JobRecord, place: QueuePlace, headers: Mapping[str, str]) -> Response:
    """Status 202 with the job, its place and where to follow it."""
    body = JobAccepted(
        id=record.id,
        status="scheduled" if place.is_scheduled else record.status,
        queue=record.queue,
        position=place.position,
        eta_s=place.eta_s,
        reason=place.reason,
        events_url=f"/api/v1/jobs/{record.id}/events",
    )
    whole = {"Location": f"/api/v1/jobs/{record.id}", "X-Fleet-Job": record.id, **headers}
    return Response(body.model_dump_json(), 202, whole, media_type="application/json")
