"""Responses that are there: the jobs behind their ids, and what a later one wants of them.

There is no store of responses. A response is a view of a job, of its record (what was asked) and
its log (what was answered), so it is there for as long as they are, on every shim.
"""

from contextlib import aclosing
from typing import Annotated, Final, NamedTuple

from fastapi import Depends

from api_shim.dependencies import Dependencies, Injected
from api_shim.http.authentication import Caller
from api_shim.http.problems import Refusal
from api_shim.openai.request_fields import wrong
from api_shim.openai.response_head import ResponseHead
from api_shim.openai.responses.events import ResponseBuilder
from api_shim.openai.responses.items import Known, Piece, asked, joined
from api_shim.openai.responses.request import ResponseBody, job_of_response, no_previous
from api_shim.openai.responses.response import ResponseFacts
from contract.chat import ChatRequest, Message, ResponseNotes
from contract.errors import JobNotFound
from contract.events import EventId
from contract.jobs import JobRecord
from contract.result import Status
from contract.tenants import Tenant

_MOST_NAMED: Final = 100
"""Responses whose items one request may name: each is looked up."""
_UNDER_WAY: Final[frozenset[Status]] = frozenset({"queued", "running"})


class KeptResponse(NamedTuple):
    """A response that can be looked up."""

    record: JobRecord
    request: ChatRequest

    @property
    def notes(self) -> ResponseNotes:
        """What its request said that is no business of a backend."""
        return self.request.response_notes or ResponseNotes()

    @property
    def about(self) -> ResponseFacts:
        """What it says of itself."""
        return ResponseFacts(ResponseHead.of(self.record), self.request)

    @property
    def conversation(self) -> tuple[Message, ...]:
        """What was asked, without instructions."""
        return self.request.messages[1 if self.notes.has_instructions else 0 :]


class ReadEvents(NamedTuple):
    """A log that was read to where it ends now."""

    builder: ResponseBuilder
    last_reset: EventId | None


class ResponseStore:
    """Looks up a caller's responses; whatever is somebody else's is not there."""

    def __init__(self, dependencies: Dependencies, tenant: Tenant) -> None:
        """For one call."""
        self._dependencies = dependencies
        self._tenant = tenant

    async def find(self, response_id: str) -> KeptResponse:
        """A response by its id; raises Refusal if there is none, RelayUnavailable."""
        job_id = job_of_response(response_id)
        found = None if job_id is None else await self._found(job_id)
        if found is None:
            raise Refusal(
                "response_not_found",
                f"Response with id '{response_id[:64]}' not found: it was never stored, was "
                "deleted, or ended so long ago that its log has expired.",
                status=404,
            )
        return found

    async def heard(self, kept: KeptResponse) -> ReadEvents:
        """All that it has said until now; raises RelayUnavailable."""
        builder, last_reset = ResponseBuilder(kept.about), None
        async with aclosing(self._dependencies.log.read(kept.record.id)) as pages:
            async for frames in pages:
                for frame in frames:
                    for _ in builder.hear(frame):
                        pass
                    if frame.type == "reset":
                        last_reset = frame.id
        return ReadEvents(builder, last_reset)

    async def known(self, body: ResponseBody) -> Known:
        """What a request wants of earlier responses; raises Refusal, RelayUnavailable."""
        past: tuple[Message, ...] = ()
        chain: tuple[str, ...] = ()
        if (previous := body.previous_job) is not None:
            kept = await self._previous(previous, body.previous_response_id or "")
            answer = await self._answer(kept)
            past = (*kept.conversation, *joined(piece.message for piece in answer))
            chain = (*kept.notes.chain, previous)
        named = body.named_jobs.difference(chain)
        if len(named) > _MOST_NAMED:
            raise wrong("input", f"it names items of more than {_MOST_NAMED} responses: send them")
        pieces = {piece.id: piece.message for job in named for piece in await self._pieces(job)}
        return Known(past, chain, pieces)

    async def _found(self, job_id: str) -> KeptResponse | None:
        try:
            record = await self._dependencies.records.seen(job_id, self._tenant)
            request = await self._dependencies.records.request(job_id)
        except JobNotFound:
            return None
        if not isinstance(request, ChatRequest) or request.response_notes is None:
            return None
        return KeptResponse(record, request) if request.response_notes.stored else None

    async def _previous(self, job_id: str, response_id: str) -> KeptResponse:
        kept = await self._found(job_id)
        if kept is None:
            raise no_previous(response_id)
        if kept.record.status in _UNDER_WAY:
            raise wrong(
                "previous_response_id", "it is still under way", remedy="wait until it has ended"
            )
        return kept

    async def _answer(self, kept: KeptResponse) -> list[Piece]:
        return (await self.heard(kept)).builder.output.pieces

    async def _pieces(self, job_id: str) -> list[Piece]:
        kept = await self._found(job_id)
        if kept is None:
            return []
        said = [piece for piece, _ in asked(job_id, kept.conversation)]
        return [*said, *await self._answer(kept)]


async def _kept(dependencies: Injected, caller: Caller) -> ResponseStore:
    return ResponseStore(dependencies, caller)


Responses = Annotated[ResponseStore, Depends(_kept)]
"""A parameter of a route that looks responses up."""
