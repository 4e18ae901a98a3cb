"""Stored responses: the jobs behind their ids, and what a later request takes from them.

Nothing is stored beside the job: a response is a view of the job's record (its request) and log
(its output), so it exists for as long as they do, on every shim.
"""

from contextlib import aclosing
from typing import Annotated, Final, NamedTuple

from fastapi import Depends
from pydantic import ValidationError
from pydantic_core import from_json

from api_shim.dependencies import Dependencies, Injected
from api_shim.following.long_answer import LOGPROBS, LongAnswer
from api_shim.http.authentication import Caller
from api_shim.http.problems import Refusal
from api_shim.openai.logprob_fields import response_logprob
from api_shim.openai.request_fields import invalid_field
from api_shim.openai.response_head import ResponseHead
from api_shim.openai.responses.events import ResponseBuilder
from api_shim.openai.responses.items import (
    EarlierResponses,
    ItemMessage,
    input_items,
    merge_messages,
)
from api_shim.openai.responses.request import ResponsePromptBody, job_of_response, no_previous
from api_shim.openai.responses.response import ResponseFacts
from contract.chat import ChatRequest, Message, ResponseNotes
from contract.errors import JobNotFound
from contract.events import EventId, Frame
from contract.jobs import JobRecord
from contract.json_lines import json_line
from contract.result import Status
from contract.tenants import Tenant

_MOST_NAMED: Final = 100
"""Responses whose items one request may reference; each costs reads of Redis."""
_SHORT_BYTES: Final = 1024
_TEXTS: Final = ("content", "thinking", "refusal", "logprobs")
"""Fields of a delta that may be long."""
_UNDER_WAY: Final[frozenset[Status]] = frozenset({"queued", "running"})


class StoredResponse(NamedTuple):
    """A response that can be retrieved."""

    record: JobRecord
    request: ChatRequest

    @property
    def notes(self) -> ResponseNotes:
        """Notes of its request that no backend needs."""
        return self.request.response_notes or ResponseNotes()

    @property
    def facts(self) -> ResponseFacts:
        """The fields that do not depend on its status."""
        return ResponseFacts(ResponseHead.of(self.record), self.request)

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The messages of its request, without instructions."""
        return self.request.messages[1 if self.notes.has_instructions else 0 :]


class Replay(NamedTuple):
    """A log that was read to its current end."""

    builder: ResponseBuilder
    last_reset: EventId | None


class ResponseStore:
    """Reads a tenant's responses; those of other tenants do not exist for it."""

    def __init__(self, dependencies: Dependencies, tenant: Tenant) -> None:
        """For one call of `tenant`."""
        self._dependencies = dependencies
        self._tenant = tenant

    async def find(self, response_id: str) -> StoredResponse:
        """A response by its id; raises Refusal if it does not exist, RelayUnavailable."""
        job_id = job_of_response(response_id)
        found = None if job_id is None else await self._found(job_id)
        if found is None:
            raise Refusal(
                "response_not_found",
                f"Response with id '{response_id[:64]}' not found: it was never stored, was "
                "deleted, or ended so long ago that its log has expired, or its retention is none.",
                status=404,
            )
        return found

    async def remove_damaged(self, response_id: str) -> None:
        """Delete a response whose job cannot be read; raises RelayUnavailable."""
        job_id = job_of_response(response_id)
        if job_id is not None:
            await self._dependencies.queue.remove_unread(job_id, self._tenant.name)

    def long_answer(self, stored: StoredResponse) -> LongAnswer:
        """What makes the HTTP response of a response whose text may be long."""
        return LongAnswer(
            self._dependencies.log, stored.record.id, ("content", LOGPROBS), entry=response_logprob
        )

    async def replay(self, stored: StoredResponse, long: LongAnswer | None = None) -> Replay:
        """The response built from its log so far, for `long` if given; raises RelayUnavailable."""
        builder, last_reset = ResponseBuilder(stored.facts), None
        log = self._dependencies.log.read(stored.record.id)
        async with aclosing(log if long is None else long.of(log)) as pages:
            async for frames in pages:
                for frame in frames:
                    for _ in builder.add(frame):
                        pass
                    if frame.type == "reset":
                        last_reset = frame.id
        return Replay(builder, last_reset)

    async def counted(self, stored: StoredResponse) -> Replay:
        """The same without its texts, for the numbers of its events; raises RelayUnavailable."""
        builder, last_reset = ResponseBuilder(stored.facts), None
        async with aclosing(self._dependencies.log.read(stored.record.id)) as pages:
            async for frames in pages:
                for frame in frames:
                    for _ in builder.add(_without_texts(frame)):
                        pass
                    if frame.type == "reset":
                        last_reset = frame.id
        return Replay(builder, last_reset)

    async def earlier(self, body: ResponsePromptBody) -> EarlierResponses:
        """What a request takes from earlier responses; raises Refusal, RelayUnavailable."""
        past: tuple[Message, ...] = ()
        chain: tuple[str, ...] = ()
        if (previous := body.previous_job) is not None:
            stored = await self._previous(previous, body.previous_response_id or "")
            answer = await self._answer(stored)
            past = (
                *stored.conversation,
                *merge_messages(item_message.message for item_message in answer),
            )
            chain = (*stored.notes.chain, previous)
        named = body.named_jobs.difference(chain)
        if len(named) > _MOST_NAMED:
            raise invalid_field(
                "input", f"references items of more than {_MOST_NAMED} responses: send the items"
            )
        item_messages = {
            item_message.id: item_message.message
            for job in named
            for item_message in await self._item_messages(job)
        }
        return EarlierResponses(past, chain, item_messages)

    async def _found(self, job_id: str) -> StoredResponse | None:
        try:
            record = await self._dependencies.records.get_for_tenant(job_id, self._tenant)
            request = await self._dependencies.records.request(job_id)
        except JobNotFound:
            return None
        if not isinstance(request, ChatRequest) or request.response_notes is None:
            return None
        return StoredResponse(record, request) if request.response_notes.stored else None

    async def _previous(self, job_id: str, response_id: str) -> StoredResponse:
        stored = await self._found(job_id)
        if stored is None:
            raise no_previous(response_id)
        if stored.record.status in _UNDER_WAY:
            raise invalid_field(
                "previous_response_id",
                "the response has not ended",
                remedy="wait until it has ended",
            )
        return stored

    async def _answer(self, stored: StoredResponse) -> list[ItemMessage]:
        """The messages of a response's output; raises Refusal, RelayUnavailable."""
        output = (await self.replay(stored)).builder.output
        try:
            return output.item_messages
        except ValidationError:
            # A backend's own call has no bound, and a message of a request has.
            raise invalid_field(
                "previous_response_id",
                "its output calls a tool by a name or an id that is too long to be sent again",
                remedy="send the conversation as items",
            ) from None

    async def _item_messages(self, job_id: str) -> list[ItemMessage]:
        stored = await self._found(job_id)
        if stored is None:
            return []
        inputs = [item_message for item_message, _ in input_items(job_id, stored.conversation)]
        return [*inputs, *await self._answer(stored)]


def _without_texts(frame: Frame) -> Frame:
    """A frame that adds as many events, with one character for each text."""
    if frame.type != "delta" or len(frame.body) <= _SHORT_BYTES:
        return frame
    fields = from_json(frame.body)
    return Frame(
        frame.id,
        frame.type,
        json_line(fields | {name: fields[name][:1] for name in _TEXTS if fields.get(name)}),
    )


async def _response_store(dependencies: Injected, caller: Caller) -> ResponseStore:
    return ResponseStore(dependencies, caller)


Responses = Annotated[ResponseStore, Depends(_response_store)]
"""A route's parameter: reads responses of the tenant."""
