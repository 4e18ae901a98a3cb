"""Routes for messages: create one, count a prompt's tokens, read or follow one by its id."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, NamedTuple, Self

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request, Response
from starlette.types import Scope

from api_shim.anthropic import schemas
from api_shim.anthropic.errors import error_event
from api_shim.anthropic.events import MessageBuilder, MessageEvents, MessageFacts
from api_shim.anthropic.message_body import MessagesBody, PromptBody
from api_shim.anthropic.message_request import to_counted, to_request
from api_shim.anthropic.schemas import anthropic_answers, anthropic_faults
from api_shim.anthropic.stored_messages import Messages, MessageStore, StoredMessage, cursor_of
from api_shim.dependencies import Dependencies, DropIn, Injected
from api_shim.following.answer_stream import AnswerStream
from api_shim.following.drop_in import DropInCall
from api_shim.following.job_refusals import restarted
from api_shim.following.long_answer import LongAnswer
from api_shim.following.token_counts import TokenCount
from api_shim.http.head import is_head
from api_shim.http.json_body import JsonRoute, let_go
from api_shim.http.problems import problem_of
from api_shim.submission.selection import without_effort
from contract.events import BEGINNING, Cursor, EventId
from contract.json_lines import json_line
from contract.sse import MEDIA_TYPE

router = APIRouter(prefix="/v1/messages", tags=["anthropic"], route_class=JsonRoute)

Betas = Annotated[
    list[str] | None,
    Header(alias="anthropic-beta", description="Values that nothing is done with are named."),
]
_BETA: Final = b"anthropic-beta"
MessageId = Annotated[str, Path(description="`msg_` and the id of the job.")]

_EVENT: Final = (
    'id: 1-2\nevent: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    '"delta":{"type":"text_delta","text":"Hel"}}\n\n'
)
_EXAMPLE: Final[Any] = {
    "question": {
        "summary": "A question",
        "value": {
            "model": "llama3.2",
            "max_tokens": 1024,
            "messages": [{"role": "user", "content": "Hello!"}],
        },
    }
}

_PROMPT_EXAMPLE: Final[Any] = {
    "question": {
        "summary": "A question",
        "value": {"model": "llama3.2", "messages": [{"role": "user", "content": "Hello!"}]},
    }
}


class MessageCall(NamedTuple):
    """What creating a message needs of its call besides the body."""

    call: DropInCall
    store: MessageStore
    betas: tuple[str, ...]
    """The values of `anthropic-beta`."""

    @classmethod
    def of(cls, call: DropInCall, store: MessageStore, lines: Iterable[str]) -> Self:
        """With the values in the lines of the header."""
        values = [value.strip() for line in lines for value in line.split(",")]
        return cls(call, store, tuple(filter(None, values)))


def betas_in(scope: Scope) -> list[str]:
    """The lines of `anthropic-beta`."""
    return [value.decode("latin-1") for name, value in scope["headers"] if name == _BETA]


async def _message_call(call: DropIn, store: Messages, betas: Betas = None) -> MessageCall:
    return MessageCall.of(call, store, betas or ())


@router.post(
    "",
    operation_id="anthropic_create_message",
    response_class=Response,
    responses=anthropic_answers(schemas.AnthropicMessage, streams=_EVENT),
)
async def create(
    body: Annotated[MessagesBody, Body(openapi_examples=_EXAMPLE)],
    message: Annotated[MessageCall, Depends(_message_call)],
) -> Response:
    """Continue a conversation: as a whole, or as a stream of events."""
    call, store, betas = message
    earlier = await store.earlier(body.thread)
    translated = await call.translated(to_request, body, betas, earlier)
    let_go(body, "messages", "system")
    chat = translated.request
    call.add_ignored(translated.left_out)
    if translated.may_not_think:
        chat = without_effort(chat, await store.listed(chat.model))
    if chat.think != translated.request.think:
        call.add_ignored(["thinking"])
    record = await call.submit(chat)
    facts = MessageFacts.of(record, chat)
    if body.stream:
        known_reset: EventId | None = None
        if "Idempotent-Replayed" in call.headers:
            known_reset = (await store.replay(StoredMessage(record, chat))).last_reset
        events = MessageEvents(facts, last_reset=known_reset)
        return call.stream(record, events, events.split_frames, shows_position=True)
    del chat, translated, earlier
    builder = MessageBuilder(facts)
    await call.result(record, builder.add, marks=("content",))
    return call.whole(_json(builder.message, call.headers))


@router.post(
    "/count_tokens",
    operation_id="anthropic_count_tokens",
    response_model=schemas.TokensCount,
    responses=anthropic_answers(schemas.TokensCount),
)
async def count_tokens(
    body: Annotated[PromptBody, Body(openapi_examples=_PROMPT_EXAMPLE)],
    call: DropIn,
    dependencies: Injected,
) -> Response:
    """Count the tokens of a prompt: by the model's backend, else as an estimate."""
    chat, left_out = await call.translated(to_counted, body)
    call.add_ignored(left_out)
    await dependencies.roster.recent()
    fleet = dependencies.listed(call.caller, chat.model)
    found = await TokenCount(chat).of(call, fleet)
    return _json({"input_tokens": found.input_tokens}, {**call.headers, **found.headers})


@router.get(
    "/{id}",
    operation_id="anthropic_get_message",
    response_class=Response,
    responses={
        200: {**anthropic_answers(schemas.AnthropicMessage, streams=_EVENT)[200]},
        204: {"description": "The client has received the last event; there are no more."},
        **anthropic_faults(400, 404, 529),
    },
)
async def retrieve(
    id: MessageId,
    request: Request,
    store: Messages,
    dependencies: Injected,
    *,
    stream: Annotated[bool, Query(description="Stream its events, past ones included.")] = False,
    after: Annotated[
        str | None, Query(description="With `stream`: the `id` of the last event received.")
    ] = None,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="The same as `after`, and newer.")
    ] = None,
) -> Response:
    """Get a message as it is now, or follow its stream from any event on: an addition of ours."""
    stored = await store.find(id)
    headers = {**_FRESH, "X-Fleet-Job": stored.record.id}
    if not stream:
        long = LongAnswer(dependencies.log, stored.record.id)
        replay = await store.replay(stored, long=long)
        return long.whole(_json(replay.builder.message, headers))
    if is_head(request.scope):
        # A HEAD is safe: it must not register a follower, whose disconnect may cancel the job.
        return Response(headers=headers, media_type=MEDIA_TYPE)
    cursor = cursor_of(last_event_id, "Last-Event-ID") or cursor_of(after, "after")
    at = Cursor(cursor or BEGINNING)
    if cursor and await dependencies.log.is_at_its_end(stored.record.id, at):
        return Response(status_code=204, headers=headers)
    replay = await store.replay(stored, cursor)
    if replay.is_invalid:
        data = error_event(problem_of(restarted(), request.scope))
        return Response(data, 200, headers, media_type=MEDIA_TYPE)
    return _followed(stored, dependencies, cursor, replay.last_reset)


def _followed(
    stored: StoredMessage,
    dependencies: Dependencies,
    cursor: EventId | None,
    last_reset: EventId | None,
) -> Response:
    job_id, keepalive_s = stored.record.id, dependencies.settings.keepalive_s
    events = MessageEvents(stored.facts, after=cursor, last_reset=last_reset)
    pages = dependencies.log.follow(job_id, idle_s=keepalive_s)
    waits = stored.record.status == "queued"
    return AnswerStream(
        dependencies.positions.with_positions(job_id, pages, waits=waits),
        events,
        dependencies.open_calls,
        dependencies.followers.follow(stored.record),
        headers={"X-Fleet-Job": job_id},
        head_timeout_s=keepalive_s,
        split_frames=events.split_frames,
    )


def _json(value: Any, headers: Mapping[str, str]) -> Response:
    return Response(json_line(value), 200, {**_FRESH, **headers}, media_type="application/json")


_FRESH: Final = {"Cache-Control": "no-store"}
