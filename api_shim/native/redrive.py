"""Dead letters by how they failed, and many retries at a rate.

A redrive lives as long as its call: it retries one letter after the other, tells its progress as
server-sent events, and stops where it is when the client disconnects. Each retry is the one of
`POST /api/v1/jobs/<id>/retry`, so that a letter is retried once, whoever asks and however often.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Request, Response
from pydantic import Field, StrictBool

from api_shim.dependencies import Dependencies, Injected
from api_shim.following.event_stream import StateStreamResponse
from api_shim.http.authentication import Caller
from api_shim.http.json_body import JsonRoute
from api_shim.http.problems import Refusal, documented
from api_shim.native.dead_letters import Which, check_retry, note_letters, retried
from api_shim.native.jobs import json_response
from contract import sse
from contract.errors import FleetError, RelayUnavailable
from contract.jobs import DeadGroups, DeadLetter
from contract.json_lines import json_line
from contract.redis_keys import JOB_ID
from contract.requests import Kind, Word
from contract.tenants import Tenant
from contract.wire import ClientModel, WireModel
from relay.dead_letters import DeadLetterFilter, fingerprint

_MOST: Final = 10_000
_MOST_IDS: Final = 500
_TOLD_EVERY_S: Final = 0.5

router = APIRouter(prefix="/api/v1/dead", tags=["dead letters"], route_class=JsonRoute)


class Redrive(ClientModel):
    """Which dead letters to retry, and how fast; without a choice, all that the caller sees."""

    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{12}$")] | None = None
    """Of a group in `GET /api/v1/dead/groups`."""
    ids: Annotated[
        tuple[Annotated[str, Field(pattern=JOB_ID.pattern)], ...], Field(max_length=_MOST_IDS)
    ] = ()
    """Only these letters; whole ids."""
    queue: Word | None = None
    kind: Kind | None = None
    tenant: Word | None = None
    """For admins: only letters of this tenant."""
    limit: Annotated[int, Field(ge=1, le=_MOST)] = _MOST
    """The most letters to retry, the last to die first."""
    rate_per_s: Annotated[float, Field(ge=0.01, le=1000)] = 10
    """Letters to retry a second."""
    dry_run: StrictBool = False
    """Only say what would happen."""


class RedriveQueue(WireModel):
    """What a redrive brings to one queue."""

    queue: str
    jobs: int
    workers: int
    """Live workers that consume it."""
    waiting: int
    """Jobs that wait in it now."""


class RedriveRefusal(WireModel):
    """Why letters are not retried."""

    code: str
    message: str
    """Of the first of them."""
    jobs: int


class RedriveReport(WireModel):
    """What a redrive would do, or has done so far."""

    matched: int
    """Letters that are chosen."""
    complete: bool
    """Whether no other letter matches; others are left for the next call."""
    retried: int
    """Of which are queued again; in a dry run, would be."""
    refused: tuple[RedriveRefusal, ...]
    seconds: float
    """How long it takes at the rate."""
    queues: tuple[RedriveQueue, ...]
    done: bool
    """Whether this is the last report."""


_REPORTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Of a dry run, one report. Else `redrive` events with reports until the one "
        "that is `done`; a stream that ends before it was cut off, and the rest is still dead.",
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/RedriveReport"}},
            sse.MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "event": {"const": "redrive"},
                        "data": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": {"$ref": "#/components/schemas/RedriveReport"},
                        },
                    },
                    "required": ["event", "data"],
                }
            },
        },
    }
}
_EXAMPLES: Final[Any] = {
    "try": {"summary": "What would happen", "value": {"queue": "ollama.chat", "dry_run": True}},
    "slowly": {"summary": "Two a second", "value": {"rate_per_s": 2, "limit": 100}},
}


@router.get(
    "/groups",
    operation_id="list_dead_groups",
    response_model=DeadGroups,
    responses=documented(422, 503),
)
async def groups(dependencies: Injected, wanted: Which) -> Response:
    """List dead letters by how they failed, the largest group first; of the newest 2,000."""
    return json_response(await dependencies.dead_letters.groups(wanted))


@router.post(
    "/redrive",
    operation_id="redrive_dead",
    response_model=RedriveReport,
    responses={**_REPORTS, **documented(400, 413, 415, 422, 503)},
)
async def redrive(
    request: Request,
    wanted: Annotated[Redrive, Body(openapi_examples=_EXAMPLES)],
    dependencies: Injected,
    caller: Caller,
) -> Response:
    """Retry many dead letters at a rate, or say what that would do.

    The redrive ends with its call: a client that disconnects stops it.
    """
    chosen = DeadLetterFilter(caller, wanted.queue, wanted.kind, wanted.tenant)
    found, complete = await dependencies.dead_letters.newest(chosen, _MOST)
    letters = [letter for letter in found if _matches(wanted, letter)]
    complete = complete and len(letters) <= wanted.limit
    del found, letters[wanted.limit :]
    run = _Redrive(dependencies, caller, wanted, letters, complete=complete)
    note_letters(request, 0 if wanted.dry_run else len(letters), chosen)
    if wanted.dry_run:
        return json_response(await run.rehearse(letters))
    return StateStreamResponse(run.reports(), dependencies.open_calls)


def _matches(wanted: Redrive, letter: DeadLetter) -> bool:
    if wanted.ids and letter.id not in wanted.ids:
        return False
    return wanted.fingerprint is None or fingerprint(letter) == wanted.fingerprint


class _Redrive:
    """One redrive, and what has become of its letters so far.

    It may take hours, so it keeps the ids of its letters and reads each when its turn comes.
    """

    def __init__(
        self,
        dependencies: Dependencies,
        caller: Tenant,
        wanted: Redrive,
        letters: Sequence[DeadLetter],
        *,
        complete: bool,
    ) -> None:
        self._dependencies = dependencies
        self._caller = caller
        self._wanted = wanted
        self._ids = [letter.id for letter in letters]
        self._by_queue = Counter(letter.queue for letter in letters)
        self._complete = complete
        self._retried = 0
        self._refused: Counter[str] = Counter()
        self._messages: dict[str, str] = {}
        self._queues: tuple[RedriveQueue, ...] = ()

    async def rehearse(self, letters: Sequence[DeadLetter]) -> RedriveReport:
        """What would happen: letters of one queue and model are alike, so one of them is tried.

        Raises RelayUnavailable.
        """
        await self._look()
        alike: dict[tuple[str, str | None], list[DeadLetter]] = {}
        for letter in letters:
            alike.setdefault((letter.queue, letter.model), []).append(letter)
        for group in alike.values():
            try:
                await check_retry(self._dependencies, self._caller, group[0])
            except RelayUnavailable:
                raise
            except (FleetError, Refusal) as error:
                self._refuse(error, len(group))
            else:
                self._retried += len(group)
        return self._report(done=True)

    async def reports(self) -> AsyncGenerator[bytes]:
        """Retry the letters; an event now and then, and one at the end.

        Raises RelayUnavailable.
        """
        loop = asyncio.get_running_loop()
        await self._look()
        yield self._event(done=False)
        began_at = told_at = loop.time()
        for number, id in enumerate(self._ids):
            await asyncio.sleep(began_at + number / self._wanted.rate_per_s - loop.time())
            try:
                letter = await self._dependencies.records.get(id)
                await retried(self._dependencies, self._caller, letter)
                self._retried += 1
            except RelayUnavailable:
                raise
            except (FleetError, Refusal) as error:
                self._refuse(error, 1)
            if loop.time() - told_at >= _TOLD_EVERY_S:
                told_at = loop.time()
                yield self._event(done=False)
        yield self._event(done=True)

    async def _look(self) -> None:
        workers = await self._dependencies.roster.workers()
        views = {v.name: v for v in await self._dependencies.queue.positions.views(workers)}
        serving = Counter(q.name for w in workers if not w.draining for q in w.queues)
        self._queues = tuple(
            RedriveQueue(
                queue=queue,
                jobs=count,
                workers=serving[queue],
                waiting=views[queue].depth if queue in views else 0,
            )
            for queue, count in sorted(self._by_queue.items())
        )

    def _refuse(self, error: FleetError | Refusal, jobs: int) -> None:
        self._refused[error.code] += jobs
        text = error.detail if isinstance(error, Refusal) else error.message
        self._messages.setdefault(error.code, text)

    def _report(self, *, done: bool) -> RedriveReport:
        return RedriveReport(
            matched=len(self._ids),
            complete=self._complete,
            retried=self._retried,
            refused=tuple(
                RedriveRefusal(code=code, message=self._messages[code], jobs=jobs)
                for code, jobs in self._refused.most_common()
            ),
            seconds=round(len(self._ids) / self._wanted.rate_per_s, 1),
            queues=self._queues,
            done=done,
        )

    def _event(self, *, done: bool) -> bytes:
        return sse.encode(json_line(self._report(done=done)), b"redrive", b"")
