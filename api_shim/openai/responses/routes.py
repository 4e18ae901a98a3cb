"""Routes for responses: create, retrieve, stream, cancel, delete, list input items."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Body, Path, Query, Request, Response

from api_shim.dependencies import DropIn, Injected
from api_shim.following.answer_stream import AnswerStream
from api_shim.following.job_refusals import restarted
from api_shim.following.long_answer import LOGPROBS
from api_shim.following.token_counts import TokenCount
from api_shim.http.head import is_head
from api_shim.http.json_body import JsonRoute, let_go
from api_shim.http.problems import problem_of
from api_shim.openai import schemas as shapes
from api_shim.openai.logprob_fields import response_logprob
from api_shim.openai.request_fields import invalid_field, unsupported_field
from api_shim.openai.response_head import encoded_response, json_response
from api_shim.openai.responses.events import ResponseBuilder, ResponseEvents, failure
from api_shim.openai.responses.items import input_items
from api_shim.openai.responses.request import (
    ResponseBody,
    ResponsePromptBody,
    to_counted,
    to_request,
)
from api_shim.openai.responses.store import Responses, ResponseStore, StoredResponse
from api_shim.openai.schemas import answers, faults
from contract.errors import JobDamaged
from contract.json_lines import json_line
from contract.sse import MEDIA_TYPE
from relay.batches import BatchJobs

router = APIRouter(prefix="/v1/responses", tags=["openai"], route_class=JsonRoute)

ResponseId = Annotated[str, Path(description="`resp_` and the id of the job.")]

_EVENT: Final = (
    'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
    '"item_id":"msg_1","output_index":0,"content_index":0,"delta":"Hel","logprobs":[],'
    '"sequence_number":4}\n\n'
)
_EXAMPLES: Final[Any] = {
    "question": {
        "summary": "A question",
        "value": {"model": "llama3.2", "input": "Hello!", "instructions": "Be brief."},
    },
    "background": {
        "summary": "In the background",
        "value": {"model": "llama3.2", "input": "Tell me a story.", "background": True},
    },
}


@router.post(
    "",
    operation_id="openai_create_response",
    response_class=Response,
    responses=answers(shapes.Response, streams=_EVENT),
)
async def create(
    body: Annotated[ResponseBody, Body(openapi_examples=_EXAMPLES)], call: DropIn, store: Responses
) -> Response:
    """Create a response: whole, as a stream, or in the background."""
    earlier, left_out = await store.earlier(body), body.left_out
    request = await call.request_of(to_request, body, earlier)
    call.add_ignored(left_out)
    let_go(body, "input")
    record = await call.submit(request)
    response = StoredResponse(record, request)
    if body.stream:
        is_replayed = "Idempotent-Replayed" in call.headers
        known_reset = (await store.replay(response)).last_reset if is_replayed else None
        events = ResponseEvents(response.facts, known_reset=known_reset)
        return call.stream(record, events, events.split_frames)
    if body.background:
        return await _as_it_stands(response, store, call.headers)
    builder = ResponseBuilder(response.facts)
    del request, response
    await call.result(
        record,
        lambda frame: list(builder.add(frame)),
        marks=("content", LOGPROBS),
        entry=response_logprob,
    )
    return call.whole(encoded_response(await _encoded(builder), call.headers))


@router.post(
    "/input_tokens",
    operation_id="openai_count_input_tokens",
    response_model=shapes.InputTokens,
    responses=answers(shapes.InputTokens),
)
async def count_input_tokens(
    body: ResponsePromptBody, call: DropIn, store: Responses, dependencies: Injected
) -> Response:
    """Count the tokens of a response's input: by the model's backend, else as an estimate."""
    earlier, left_out = await store.earlier(body), body.left_out
    chat = await call.request_of(to_counted, body, earlier)
    call.add_ignored(left_out)
    await dependencies.roster.recent()
    fleet = dependencies.listed(call.caller, chat.model)
    found = await TokenCount(chat).of(call, fleet)
    counted = shapes.InputTokens(input_tokens=found.input_tokens)
    return json_response(counted.model_dump(), {**call.headers, **found.headers})


@router.post("/compact", operation_id="openai_compact_response", responses=faults(400))
async def compact() -> Response:
    """Refused: a fleet has no model of its own that could summarize a conversation."""
    raise unsupported_field(
        "compact", "a fleet compacts no conversations: ask a model for a summary as a response"
    )


@router.get(
    "/{id}",
    operation_id="openai_get_response",
    response_class=Response,
    responses={200: {**answers(shapes.Response, streams=_EVENT)[200]}, **faults(400, 404, 503)},
)
async def retrieve(
    id: ResponseId,
    request: Request,
    store: Responses,
    dependencies: Injected,
    *,
    stream: Annotated[bool, Query(description="Stream its events, past ones included.")] = False,
    starting_after: Annotated[
        int | None,
        Query(ge=0, description="With `stream`: the `sequence_number` of the last event received."),
    ] = None,
) -> Response:
    """Retrieve a response as it is now, or stream it from any event on; while it is stored."""
    response = await store.find(id)
    headers = {"X-Fleet-Job": response.record.id}
    if not stream:
        return await _as_it_stands(response, store, headers)
    replay = await store.counted(response)
    if is_head(request.scope):
        # A HEAD is safe: it must not register a follower, whose disconnect may cancel the job.
        return Response(headers={**_FRESH, **headers}, media_type=MEDIA_TYPE)
    taken_back = replay.builder.first - 1
    if starting_after is not None and starting_after < taken_back:
        data = failure(problem_of(restarted(), request.scope), taken_back)
        return Response(data, 200, {**_FRESH, **headers}, media_type=MEDIA_TYPE)
    events = ResponseEvents(response.facts, after=starting_after, known_reset=replay.last_reset)
    return AnswerStream(
        dependencies.log.follow(response.record.id, idle_s=dependencies.settings.keepalive_s),
        events,
        dependencies.open_calls,
        dependencies.followers.follow(response.record),
        headers=headers,
        head_timeout_s=dependencies.settings.keepalive_s,
        split_frames=events.split_frames,
        why_silent=partial(dependencies.positions.reason, response.record.id),
    )


@router.post(
    "/{id}/cancel",
    operation_id="openai_cancel_response",
    response_model=shapes.Response,
    responses=faults(404, 503),
)
async def cancel(id: ResponseId, store: Responses, dependencies: Injected) -> Response:
    """Cancel a response, whatever its status; idempotent, and effective at once."""
    response = await store.find(id)
    await dependencies.queue.cancel(response.record.id, by="caller")
    return await _as_it_stands(response, store, {"X-Fleet-Job": response.record.id})


@router.delete(
    "/{id}",
    operation_id="openai_delete_response",
    response_model=shapes.ResponseDeleted,
    responses=faults(404, 503),
)
async def delete(id: ResponseId, store: Responses, dependencies: Injected) -> Response:
    """Delete a response; one that has not ended is cancelled first."""
    try:
        record = (await store.find(id)).record
    except JobDamaged:
        await store.remove_damaged(id)
        return json_response(shapes.ResponseDeleted(id=id).model_dump(), {})
    await dependencies.queue.cancel(record.id, by="caller", reason="its response was deleted")
    await BatchJobs(dependencies.connection).forget([record.id], record.tenant)
    return json_response(shapes.ResponseDeleted(id=id).model_dump(), {})


@router.get(
    "/{id}/input_items",
    operation_id="openai_list_input_items",
    response_model=shapes.ItemList,
    responses=faults(400, 404, 503),
)
async def list_input_items(
    id: ResponseId,
    store: Responses,
    *,
    after: Annotated[
        str | None, Query(description="Id of the last item of the previous page.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> Response:
    """List the input items of a response, and the items of the conversation before it."""
    response = await store.find(id)
    items = [item for _, item in input_items(response.record.id, response.conversation)]
    if order == "desc":
        items.reverse()
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise invalid_field(
                "after", "not an item of this response", remedy="use `last_id` unchanged"
            )
        items = items[ids.index(after) + 1 :]
    page = items[:limit]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else _NOTHING
    has_more = len(items) > limit
    return json_response({"object": "list", "data": page, **ends, "has_more": has_more}, {})


async def _as_it_stands(
    response: StoredResponse, store: ResponseStore, headers: Mapping[str, str]
) -> Response:
    long = store.long_answer(response)
    replay = await store.replay(response, long)
    body = await _encoded(replay.builder)
    return long.whole(encoded_response(body, headers))


async def _encoded(builder: ResponseBuilder) -> bytes:
    """The response as JSON: of many items in a thread, a model may think between any two words."""
    if len(builder.output) < _MANY_ITEMS:
        return json_line(builder.response)
    return await asyncio.to_thread(lambda: json_line(builder.response))


_FRESH: Final = {"Cache-Control": "no-store"}
_MANY_ITEMS: Final = 1000
_NOTHING: Final = {"first_id": None, "last_id": None}
