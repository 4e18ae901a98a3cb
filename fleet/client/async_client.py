"""The asynchronous client: enqueue a job, follow it through any shim, get its result.

async with AsyncClient() as fleet:
    job = await fleet.enqueue("chat", model="llama3.2", messages=[...])
    async for event in job.events():
        ...
"""

import base64
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import date
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote
from uuid import uuid4

import httpx

from contract.events import AnyEvent
from contract.jobs import (
    DeadMessages,
    DeadPage,
    DeadPurged,
    DeadView,
    JobAccepted,
    JobPage,
    ScheduledPage,
)
from contract.models import PullRequest, RunningRequest
from contract.redis_keys import JOB_ID_BEGINNING
from contract.redis_keys import job_id as named
from contract.requests import Kind, Request
from contract.rerank import Ranked, ranked
from contract.result import Result, Status
from contract.roster import FleetLimit, FleetLimits
from contract.tenants import AuditPage, IssuedKey, KeyFacts, TenantReceipt
from contract.usage import GroupBy, LimitsPage, TenantUsage, UsagePage
from contract.wire import encode
from fleet.client.answers import answer_of
from fleet.client.batches import AsyncBatches
from fleet.client.job import AsyncJob
from fleet.client.map import REQUESTS_IN_FLIGHT, KeyFactory, MappedJobs, MapResult, RequestLike
from fleet.client.requests import (
    ChatInput,
    batches,
    body_of,
    chat_of,
    key_change,
    new_key,
    request_of,
    rotation,
)
from fleet.client.results import images_of, rows_of, scores_of
from fleet.client.roster import RosterClient
from fleet.client.settings import ClientSettings, api_key_option
from fleet.client.transport import Shims
from fleet.client.webhooks import AsyncWebhooks

if TYPE_CHECKING:
    import numpy as np

TEXTS_A_JOB = 256
JOBS_IN_FLIGHT = 4
_DEAD = "/api/v1/dead"
_USAGE = "/api/v1/usage"


class AsyncClient(RosterClient):
    """A client of the fleet. `url` may hold several shims, separated by commas.

    Every method that sends a request raises FleetUnreachable, NotAuthorised, or the FleetError that
    the shim responds with.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        give_up_s: float | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Defaults are FLEET_URL, FLEET_API_KEY and FLEET_GIVE_UP_S; raises InvalidSetting."""
        given = {"url": url, "api_key": api_key or api_key_option.get(), "give_up_s": give_up_s}
        known = {name: value for name, value in given.items() if value is not None}
        super().__init__(Shims(ClientSettings(**known), transport))  # type: ignore[arg-type]

    async def __aenter__(self) -> Self:
        """Return the client; it connects on first use."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection; jobs continue."""
        await self.aclose()

    @property
    def batches(self) -> AsyncBatches:
        """Files of requests, and the batches that run them."""
        return AsyncBatches(self._shims)

    @property
    def webhooks(self) -> AsyncWebhooks:
        """Addresses to which the ends of jobs and batches are posted."""
        return AsyncWebhooks(self._shims)

    async def aclose(self) -> None:
        """Close every connection; jobs continue."""
        await self._shims.aclose()

    async def enqueue(
        self, /, request: Request | Kind, *, idempotency_key: str | None = None, **fields: Any
    ) -> AsyncJob:
        """Enqueue a job, from a request or from a kind and its fields.

        Raises InvalidRequest, UnknownModel, UnknownBackend, NoWorker, QueueFull, FleetUnreachable.
        """
        job_request = request_of(request, fields)
        answer = await self._shims.request(
            "POST",
            f"/api/v1/jobs/{job_request.kind}",
            body=body_of(job_request),
            headers={"idempotency-key": idempotency_key or uuid4().hex},
        )
        accepted = answer_of(JobAccepted, answer)
        return AsyncJob(self._shims, accepted.id, accepted)

    def map(
        self,
        /,
        requests: Iterable[RequestLike],
        *,
        in_flight: int = REQUESTS_IN_FLIGHT,
        ordered: bool = True,
        kind: Kind | None = None,
        idempotency_key: KeyFactory | None = None,
        **fields: Any,
    ) -> AsyncGenerator[MapResult, None]:
        """Yield results of many requests, `in_flight` at a time, in order or as they complete.

        Items are requests, or the fields of requests of `kind` (`fields` are those of all). They
        may be larger than memory. One that fails has an `error` in its result and does not affect
        the others; a full queue is retried. A run with an `idempotency_key`, made from index
        and request, finds the jobs of an earlier one. Raises FleetUnreachable, NotAuthorised,
        RelayUnavailable.
        """
        many = self.many(kind=kind, idempotency_key=idempotency_key, **fields)
        return many.results(requests, in_flight, ordered=ordered)

    def many(
        self,
        /,
        *,
        kind: Kind | None = None,
        idempotency_key: KeyFactory | None = None,
        **fields: Any,
    ) -> MappedJobs:
        """A run over many requests, with its running jobs in `under_way`; see `map`."""
        return MappedJobs(self.enqueue, self._shims.retry_timer, kind, fields, idempotency_key)

    def job(self, job_id: str) -> AsyncJob:
        """A handle on a job, or on a Celery task, by its id; sends no request.

        A unique prefix of a job id, of four digits or more, is enough.
        """
        is_ours = JOB_ID_BEGINNING.match(job_id)
        return AsyncJob(self._shims, job_id if is_ours else named(job_id), given_as=job_id)

    async def chat(
        self, /, words: ChatInput, *, model: str, **fields: Any
    ) -> AsyncGenerator[str, None]:
        """Yield the text of an answer in pieces; closing the generator early cancels the job.

        Raises the error that the job failed with, and AnswerRestarted if a later attempt began
        the answer again: follow `enqueue("chat", ...).events()` to handle that yourself.
        """
        job = await self.enqueue(chat_of(words, {**fields, "model": model}))
        async with aclosing(job.words()) as pieces:
            async for piece in pieces:
                yield piece

    async def embed(
        self,
        /,
        texts: Sequence[str],
        *,
        model: str,
        texts_a_job: int = TEXTS_A_JOB,
        jobs_in_flight: int = JOBS_IN_FLIGHT,
        **fields: Any,
    ) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
        """Vectors as a float32 array of shape (texts, dimension), in the order of the texts.

        Sends jobs of `texts_a_job` texts, `jobs_in_flight` at a time. Raises the error of the first
        job that failed, and WrongCount.
        """
        import numpy as np  # noqa: PLC0415 - imported only for vectors

        requests = ({"input": batch} for batch in batches(texts, texts_a_job))
        many = self.many(kind="embed", model=model, **fields)
        async with aclosing(many.results(requests, jobs_in_flight)) as answers:
            found = [rows_of(answer) async for answer in answers]
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    async def rerank(
        self,
        /,
        query: str,
        documents: Iterable[str],
        *,
        model: str,
        top_n: int | None = None,
        documents_a_job: int = TEXTS_A_JOB,
        jobs_in_flight: int = JOBS_IN_FLIGHT,
        **fields: Any,
    ) -> tuple[Ranked, ...]:
        """The `top_n` most relevant documents, or all: their numbers and scores, best first.

        Sends jobs of `documents_a_job` documents, `jobs_in_flight` at a time. Raises the error of
        the first job that failed, and WrongCount.
        """
        requests = ({"documents": batch} for batch in batches(documents, documents_a_job))
        many = self.many(kind="rerank", model=model, query=query, **fields)
        scores: list[float] = []
        async with aclosing(many.results(requests, jobs_in_flight)) as answers:
            async for answer in answers:
                scores += scores_of(answer)
        return ranked(scores, top_n)

    async def image(self, /, prompt: str, *, model: str, **fields: Any) -> list[bytes]:
        """Generate `count` images, from the bytes `image` if given; returns their encoded bytes.

        Raises the error that the job failed with.
        """
        if isinstance(start := fields.get("image"), bytes):
            fields["image"] = base64.b64encode(start).decode()
        job = await self.enqueue("image", model=model, prompt=prompt, **fields)
        return images_of(await job.result())

    async def pull(
        self, /, model: str, *, backend: str | None = None, **fields: Any
    ) -> AsyncGenerator[AnyEvent, None]:
        """Download a model to a backend; yields its events. Closing it does not cancel the job."""
        job = await self.enqueue(PullRequest(model=model, backend=backend, **fields))
        async with aclosing(job.events()) as events:
            async for event in events:
                yield event

    async def show(self, /, model: str, **fields: Any) -> dict[str, Any]:
        """The details of a model as its backend reports them."""
        return (await self._result_of("show", model=model, **fields)).details or {}

    async def load(self, /, model: str, **fields: Any) -> Result:
        """Load a model into memory, for `keep_alive_s` seconds where the backend can."""
        return await self._result_of("load", model=model, **fields)

    async def unload(self, /, model: str, **fields: Any) -> Result:
        """Unload a model from memory."""
        return await self._result_of("unload", model=model, **fields)

    async def delete(self, /, model: str, **fields: Any) -> Result:
        """Delete a model from a backend."""
        return await self._result_of("delete", model=model, **fields)

    async def copy(self, /, model: str, destination: str, **fields: Any) -> Result:
        """Copy a model to the name `destination`."""
        return await self._result_of("copy", model=model, destination=destination, **fields)

    async def create(self, /, model: str, source: str, **fields: Any) -> Result:
        """Create a model from `source`, with `system`, `template` and `parameters`."""
        return await self._result_of("create", model=model, source=source, **fields)

    async def running(self, backend: str | None = None) -> dict[str, Any]:
        """The models that a backend has in memory, as it reports them, under `models`."""
        job = await self.enqueue(RunningRequest(backend=backend))
        return (await job.result()).details or {}

    async def _result_of(self, kind: Kind, **fields: Any) -> Result:
        return await (await self.enqueue(kind, **fields)).result()

    async def jobs(
        self,
        *,
        status: Status | None = None,
        kind: Kind | None = None,
        queue: str | None = None,
        backend: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> JobPage:
        """A page of records, newest first; `before` is the `next` of the previous page."""
        given = {
            "status": status,
            "kind": kind,
            "queue": queue,
            "backend": backend,
            "limit": limit,
            "before": before,
        }
        return answer_of(
            JobPage, await self._shims.request("GET", "/api/v1/jobs", params=_present(given))
        )

    async def scheduled(self, limit: int = 50) -> ScheduledPage:
        """Up to `limit` (at most 200) jobs that may not start yet, the next first."""
        params = {"limit": limit}
        answer = await self._shims.request("GET", "/api/v1/jobs/scheduled", params=params)
        return answer_of(ScheduledPage, answer)

    async def dead(
        self,
        *,
        queue: str | None = None,
        kind: Kind | None = None,
        tenant: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> DeadPage:
        """A page of dead letters, newest first; `before` is the `next` of the previous page."""
        given = {"queue": queue, "kind": kind, "tenant": tenant, "limit": limit, "before": before}
        return answer_of(DeadPage, await self._shims.request("GET", _DEAD, params=_present(given)))

    async def dead_letter(self, job_id: str) -> DeadView:
        """One dead letter with its request; raises JobNotFound."""
        return answer_of(
            DeadView, await self._shims.request("GET", f"{_DEAD}/{quote(job_id, safe='')}")
        )

    async def dead_messages(self, *, limit: int = 50) -> DeadMessages:
        """Messages that no worker could read, newest first. Needs an admin's API key."""
        path = f"{_DEAD}/messages"
        return answer_of(
            DeadMessages, await self._shims.request("GET", path, params={"limit": limit})
        )

    async def purge_dead_messages(self) -> int:
        """Delete all unreadable messages; returns how many. Needs an admin's API key."""
        return answer_of(
            DeadPurged, await self._shims.request("DELETE", f"{_DEAD}/messages")
        ).purged

    async def purge_dead(self, /, job_id: str | None = None, **which: str | None) -> int:
        """Delete one dead letter, or all of a `queue`, `kind` or `tenant`.

        Returns how many; raises JobNotFound.
        """
        path = _DEAD if job_id is None else f"{_DEAD}/{quote(job_id, safe='')}"
        purged, before = 0, None
        while True:
            params = _present({**which, "before": before})
            gone = answer_of(DeadPurged, await self._shims.request("DELETE", path, params=params))
            purged, before = purged + gone.purged, gone.next
            if before is None:
                return purged

    async def create_key(self, /, tenant: str, **fields: Any) -> IssuedKey:
        """Create an API key for a tenant; only this response has `.key`.

        The first key must be an admin's.

        `fields` are those of `contract.tenants.NewKey`. Raises InvalidRequest, NotAuthorised.
        """
        body = encode(new_key(tenant, fields))
        return answer_of(IssuedKey, await self._shims.request("POST", "/api/v1/keys", body=body))

    async def keys(self) -> tuple[KeyFacts, ...]:
        """Every API key without its secret. Needs an admin's API key."""
        return await self._listed("keys", KeyFacts)

    async def update_key(self, /, key_id: str, **fields: Any) -> KeyFacts:
        """Change what an API key gives; what is left out stays, and None is the default.

        `fields` are those of `contract.tenants.KeyChange`. Raises InvalidRequest, UnknownKey,
        LastAdmin, NotAuthorised.
        """
        path = f"/api/v1/keys/{quote(key_id, safe='')}"
        body = key_change(fields)
        return answer_of(KeyFacts, await self._shims.request("PATCH", path, body=body))

    async def rotate_key(
        self, /, key_id: str, *, overlap_s: float = 86400.0, expires_in_s: float | None = None
    ) -> IssuedKey:
        """A new API key with the rights of another one, which expires after `overlap_s`.

        The new one lasts as long as the old one was made for, or `expires_in_s`. Raises
        InvalidRequest, UnknownKey, NotAuthorised.
        """
        path = f"/api/v1/keys/{quote(key_id, safe='')}/rotate"
        body = rotation(overlap_s, expires_in_s)
        return answer_of(IssuedKey, await self._shims.request("POST", path, body=body))

    async def revoke_key(self, key_id: str) -> KeyFacts:
        """Revoke a key; the shims reject it within seconds. Raises UnknownKey, LastAdmin."""
        path = f"/api/v1/keys/{quote(key_id, safe='')}"
        return answer_of(KeyFacts, await self._shims.request("DELETE", path))

    async def delete_tenant(
        self, /, name: str, *, confirm: str, usage: Literal["keep", "delete"] = "keep"
    ) -> TenantReceipt:
        """Delete everything of a tenant for good, in the background; `confirm` is its name again.

        `usage`: whether what it has used is kept. Raises LastAdmin, NotAuthorised.
        """
        path, params = f"/api/v1/tenants/{quote(name, safe='')}", {"confirm": confirm}
        answer = await self._shims.request("DELETE", path, params={**params, "usage": usage})
        return answer_of(TenantReceipt, answer)

    async def tenant_receipt(self, name: str) -> TenantReceipt:
        """What the last deletion of a tenant has deleted so far; raises UnknownTenant."""
        path = f"/api/v1/tenants/{quote(name, safe='')}/deletion"
        return answer_of(TenantReceipt, await self._shims.request("GET", path))

    async def audit(
        self, *, refused: bool = False, limit: int = 100, before: str | None = None
    ) -> AuditPage:
        """A page of what admins did, newest first; or of what was refused to other keys.

        `before` is the `next` of the previous page. Needs an admin's API key.
        """
        given = {"refused": str(refused).lower(), "limit": limit, "before": before}
        path = "/api/v1/audit"
        return answer_of(AuditPage, await self._shims.request("GET", path, params=_present(given)))

    async def usage(
        self,
        /,
        *,
        group_by: Sequence[GroupBy] = ("day", "tenant", "model"),
        limit: int = 100,
        after: str | None = None,
        **which: str | date | None,
    ) -> UsagePage:
        """A page of what tenants used; `after` is the `next` of the previous page.

        `which`: `first_day` and `last_day` (dates, UTC; default: 30 days up to today), `tenant`
        (for admins), `backend`, `model`, `kind`. Raises InvalidRequest.
        """
        params = _usage_params(group_by, which) | _present({"limit": limit, "after": after})
        return answer_of(UsagePage, await self._shims.request("GET", _USAGE, params=params))

    async def usage_limits(self, tenant: str | None = None) -> tuple[TenantUsage, ...]:
        """The limits of tokens and money, and how full they are; an admin sees all tenants'."""
        params = _present({"tenant": tenant})
        body = await self._shims.request("GET", f"{_USAGE}/limits", params=params)
        return answer_of(LimitsPage, body).tenants

    async def limits(self) -> tuple[FleetLimit, ...]:
        """How full the limits of the fleet are; needs an admin's key. Raises NotAuthorised."""
        body = await self._shims.request("GET", "/api/v1/limits")
        return answer_of(FleetLimits, body).limits

    async def usage_file(
        self,
        format: Literal["csv", "parquet"],
        /,
        *,
        group_by: Sequence[GroupBy] = ("day", "tenant", "model"),
        **which: str | date | None,
    ) -> bytes:
        """All usage as CSV or Parquet; `which` as in `usage`. Raises InvalidRequest, NotSupported.

        NotSupported: the shim has no pyarrow.
        """
        params = _usage_params(group_by, which) | {"format": format}
        return await self._shims.request("GET", _USAGE, params=params)


def _usage_params(group_by: Sequence[str], which: Mapping[str, Any]) -> dict[str, Any]:
    days = {"from": which.get("first_day"), "to": which.get("last_day")}
    others = {name: value for name, value in which.items() if not name.endswith("_day")}
    return _present({"group_by": ",".join(group_by), **days, **others})


def _present(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
