"""Messages by their ids: the jobs behind them, and where a client's cursor stands in the log.

Nothing is stored beside the job: a message is a view of the job's record and log, so it can be read
and followed for as long as they exist, on every shim.
"""

from collections.abc import Mapping
from contextlib import aclosing
from typing import Annotated, Final, NamedTuple

from fastapi import Depends

from api_shim.anthropic.events import MESSAGE_ID, MessageBuilder, MessageFacts
from api_shim.anthropic.message_body import ThreadBody, TurnBody
from api_shim.anthropic.message_request import EarlierTurns
from api_shim.anthropic.turns import TurnReader
from api_shim.dependencies import Dependencies, Injected
from api_shim.following.long_answer import LongAnswer
from api_shim.http.authentication import Caller
from api_shim.http.problems import Refusal
from api_shim.submission.roster_cache import Pool
from contract.chat import ChatRequest
from contract.errors import JobNotFound
from contract.events import BEGINNING, LAST_WORDS, Cursor, EventId
from contract.jobs import JobRecord
from contract.tenants import Tenant

_ID_LENGTH: Final = 32
_IN_FLIGHT: Final = "thread_continue_in_flight"


class StoredMessage(NamedTuple):
    """A message that can be read."""

    record: JobRecord
    request: ChatRequest

    @property
    def facts(self) -> MessageFacts:
        """What the message depends on besides the log."""
        return MessageFacts.of(self.record, self.request)


class MessageReplay(NamedTuple):
    """A log that was read to its current end."""

    builder: MessageBuilder
    last_reset: EventId | None
    is_invalid: bool
    """Whether the client has received what the log does not hold (any more): blocks that a reset
    has taken back since, or the end of a log that Redis has lost."""


class MessageStore:
    """Reads a tenant's messages; those of other tenants do not exist for it."""

    def __init__(self, dependencies: Dependencies, tenant: Tenant) -> None:
        """For one call of `tenant`."""
        self._dependencies = dependencies
        self._tenant = tenant

    async def listed(self, model: str) -> Mapping[str, Pool]:
        """The backends that may serve a model of this name; raises RelayUnavailable."""
        await self._dependencies.roster.recent()
        return self._dependencies.listed(self._tenant, model)

    async def find(self, message_id: str) -> StoredMessage:
        """A message by its id; raises Refusal if it does not exist, RelayUnavailable."""
        job_id = message_id.removeprefix(MESSAGE_ID)
        is_id = len(job_id) == _ID_LENGTH and set(job_id) <= set("0123456789abcdef")
        if not (is_id and message_id.startswith(MESSAGE_ID)):
            raise _no_message(message_id)
        try:
            record = await self._dependencies.records.get_for_tenant(job_id, self._tenant)
            request = await self._dependencies.records.request(job_id)
        except JobNotFound:
            raise _no_message(message_id) from None
        if isinstance(request, ChatRequest) and request.message_notes is not None:
            return StoredMessage(record, request)
        raise _no_message(message_id)

    async def earlier(self, thread: ThreadBody | None) -> EarlierTurns:
        """What a request of a thread takes from the message that it continues.

        Raises Refusal with the codes that clients know: they send the whole conversation then.
        """
        if thread is None or thread.type == "create":
            return EarlierTurns()
        previous = thread.previous_message_id or ""
        try:
            stored = await self.find(previous)
        except Refusal:
            raise Refusal(
                "thread_not_found",
                f"thread.previous_message_id: there is no message {previous[:64]!r} (any more): "
                "send the whole conversation",
                status=404,
            ) from None
        if stored.record.status != "done":
            raise Refusal(
                "thread_not_found" if stored.record.status in LAST_WORDS else _IN_FLIGHT,
                f"thread.previous_message_id: the message {previous} is {stored.record.status}",
                status=400,
            )
        answer = (await self.replay(stored)).builder.message
        turn = TurnBody(role="assistant", content=answer["content"])
        messages = TurnReader(stored.request.messages).read(None, [turn]).messages
        return EarlierTurns(messages, stored.request.tools)

    async def replay(
        self,
        stored: StoredMessage,
        after: EventId | None = None,
        long: LongAnswer | None = None,
    ) -> MessageReplay:
        """The message built from its log so far, for a client with this cursor.

        `long` makes the response of it. Raises RelayUnavailable.
        """
        builder, last_reset, end = MessageBuilder(stored.facts), None, BEGINNING
        has_blocks = is_invalid = False
        log = self._dependencies.log.read(stored.record.id)
        async with aclosing(log if long is None else long.of(log)) as pages:
            async for frames in pages:
                for frame in frames:
                    is_received = after is not None and frame.id is not None and frame.id <= after
                    has_blocks |= bool(builder.add(frame)) and is_received
                    end = frame.id or end
                    if frame.type == "reset":
                        is_invalid |= has_blocks and not is_received
                        last_reset, has_blocks = frame.id, False
        is_beyond = after is not None and after > end
        return MessageReplay(builder, last_reset, is_invalid or is_beyond)


def cursor_of(text: str | None, name: str) -> EventId | None:
    """The id of a client's cursor; None without one. Raises Refusal."""
    if not text:
        return None
    try:
        return Cursor.parse(text).id
    except ValueError as error:
        raise Refusal("invalid_cursor", f"{name} is not a cursor: {error}.", status=400) from None


async def _message_store(dependencies: Injected, caller: Caller) -> MessageStore:
    return MessageStore(dependencies, caller)


Messages = Annotated[MessageStore, Depends(_message_store)]
"""A route's parameter: reads messages of the tenant."""


def _no_message(message_id: str) -> Refusal:
    return Refusal(
        "message_not_found",
        f"There is no message {message_id[:64]!r}: it never was, or ended so long ago that its "
        "log has expired.",
        status=404,
    )
