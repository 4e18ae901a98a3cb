"""Follow routes: a job's events from any cursor on, over HTTP or a WebSocket."""

from contextlib import aclosing, suppress
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response, WebSocket, WebSocketDisconnect

from api_shim.dependencies import Dependencies, Injected
from api_shim.following.event_stream import NDJSON, SSE, EventStreamResponse, Format
from api_shim.following.queue_position import Pages
from api_shim.following.shutdown import CallEnding
from api_shim.http.authentication import Caller
from api_shim.http.head import is_head
from api_shim.http.problems import Refusal, documented
from api_shim.http.query_fields import demand_known_fields
from api_shim.http.websockets import close, refuse
from api_shim.native.jobs import JobId, checked_id
from contract.errors import FleetError
from contract.events import LAST_WORDS, Cursor
from contract.jobs import JobRecord
from relay.compaction.follower_turns import in_turn

router = APIRouter(prefix="/api/v1/jobs", tags=["events"])

After = Annotated[
    str | None,
    Query(
        description="Id of the last event that the client has received, as in `1-17`. With the "
        "`nonce` of `started` appended (`1-17.c0ffee42`) it is exact even if Redis lost seconds."
    ),
]
LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        description="Overrides `after`: a browser's EventSource sends the newer id.",
    ),
]
_MESSAGES: Final = 64
"""Of a WebSocket at once: that many take a millisecond."""
_LARGE_BYTES: Final = 2**14
"""Of a message that waits for its turn."""
_EVENT: Final = {"$ref": "#/components/schemas/Event"}
_SENT: Final = {
    "type": "object",
    "description": "Each event of the stream; one that is live only has no `id`.",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": _EVENT,
        },
    },
    "required": ["event", "data"],
}
_TOLD: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Events as they come, ended by one `done`, `failed` or `cancelled`.",
        "content": {
            SSE.media_type: {
                "schema": _SENT,
                "example": 'id: 1-2\nevent: delta\ndata: {"id":"1-2","at":1767225600.25,'
                '"type":"delta","content":"Hel"}\n\n',
            },
            NDJSON.media_type: {
                "schema": _EVENT,
                "example": '{"id":"1-2","at":1767225600.25,"type":"delta","content":"Hel"}\n',
            },
        },
    },
    204: {"description": "The client has received the terminal event; there are no more."},
}


@router.get(
    "/{id}/events",
    operation_id="follow_job",
    response_class=Response,
    responses={**_TOLD, **documented(400, 404, 406, 409, 410, 503)},
)
async def follow(
    id: JobId,
    request: Request,
    dependencies: Injected,
    caller: Caller,
    *,
    after: After = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Follow a job: all of its events after the cursor, then live ones, until its terminal event.

    Server-Sent Events, or NDJSON with `Accept: application/x-ndjson`. A WebSocket on the same path
    gets one text message an event. While the job waits, fresh `queued` events come without an id. A
    stream that ends without a terminal event was cut off: reconnect with the cursor.
    """
    format = _accepted(request.headers.get("accept", "*/*"))
    # An EventSource sends both when it reconnects: its URL unchanged, and the newer header.
    cursor = _cursor(last_event_id, "Last-Event-ID") or _cursor(after, "after") or Cursor()
    record = await dependencies.records.get_for_tenant(checked_id(id), caller)
    if is_head(request.scope):
        # A HEAD is safe: it must not register a follower, whose disconnect may cancel the job.
        return Response(media_type=format.media_type, headers={"X-Fleet-Job": id})
    pages = await _opened(dependencies, record, cursor)
    if pages is None:
        return Response(
            status_code=204, headers={"X-Fleet-Job": record.id, "Cache-Control": "no-store"}
        )
    preamble = b"retry: %d\n\n" % dependencies.settings.reconnect_ms if format is SSE else b""
    follower = dependencies.followers.follow(record)
    return EventStreamResponse(
        record.id, pages, format, dependencies.open_calls, follower, preamble=preamble
    )


def _accepted(accept: str) -> Format:
    """The first format that the client accepts; a browser's `*/*` means Server-Sent Events."""
    for offer in accept.lower().split(","):
        match offer.partition(";")[0].strip():
            case "application/x-ndjson" | "application/ndjson" | "application/jsonl":
                return NDJSON
            case "text/event-stream" | "text/*" | "*/*" | "":
                return SSE
            case _:
                pass
    raise Refusal(
        "not_acceptable",
        f"Events are sent as {SSE.media_type} or {NDJSON.media_type}: accept one of them.",
        status=406,
    )


def _cursor(text: str | None, name: str) -> Cursor | None:
    if not text:
        return None
    try:
        return Cursor.parse(text)
    except ValueError as error:
        raise Refusal("invalid_cursor", f"{name} is not a cursor: {error}.", status=400) from None


async def _opened(dependencies: Dependencies, record: JobRecord, cursor: Cursor) -> Pages | None:
    """The events after the cursor; None if there are none and never will be.

    Raises RelayUnavailable.
    """
    if record.status in LAST_WORDS and await dependencies.log.is_at_its_end(record.id, cursor):
        return None
    logged = dependencies.log.follow(record.id, cursor, idle_s=dependencies.settings.keepalive_s)
    return dependencies.positions.with_positions(record.id, logged, waits=record.status == "queued")


@router.websocket("/{id}/events")
async def watch(
    id: str,
    socket: WebSocket,
    dependencies: Injected,
    caller: Caller,
    *,
    after: After = None,
    last_event_id: LastEventId = None,
) -> None:
    """Follow a job over a WebSocket; messages of the client are ignored.

    A browser cannot send headers here, so it offers its key as a subprotocol, beside another one:
    `new WebSocket(url, ["fleet", "flk_..."])`.
    """
    # Accepted first: a refused handshake cannot carry a close code.
    await socket.accept()
    try:
        demand_known_fields(socket)
        cursor = _cursor(last_event_id, "Last-Event-ID") or _cursor(after, "after") or Cursor()
        following = _follow(socket, dependencies, checked_id(id), caller, cursor)
        ending = await dependencies.open_calls.run(following, socket.receive)
    except (FleetError, Refusal) as error:
        await refuse(socket, error)
        return
    if ending is CallEnding.SHUTDOWN:
        await close(socket, 1012, "the shim restarts: reconnect with your cursor")
    elif ending is CallEnding.FINISHED:
        await close(socket, 1000, "the job has ended")


async def _follow(
    socket: WebSocket, dependencies: Dependencies, id: str, caller: Caller, cursor: Cursor
) -> None:
    """Send the job's events. All waits for Redis are in here, so that a shutdown ends them.

    Raises JobNotFound, RelayUnavailable.
    """
    record = await dependencies.records.get_for_tenant(id, caller)
    pages = await _opened(dependencies, record, cursor)
    if pages is not None:
        async with dependencies.followers.follow(record):
            await _tell(socket, pages)


async def _tell(socket: WebSocket, pages: Pages) -> None:
    with suppress(WebSocketDisconnect):
        async with aclosing(pages):
            async for frames in pages:
                for at, frame in enumerate(frames, 1):
                    if at % _MESSAGES == 0 or len(frame.body) > _LARGE_BYTES:
                        await in_turn()
                    await socket.send_text(frame.body.decode())
