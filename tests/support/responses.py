"""Logs of jobs as responses, read as a client reads them."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from openai.types.responses import response_stream_event as stream_events
from pydantic import TypeAdapter

from api_shim.openai.response_head import ResponseHead
from api_shim.openai.responses.events import ResponseEvents
from api_shim.openai.responses.items import EarlierResponses
from api_shim.openai.responses.request import ResponseBody, to_request
from api_shim.openai.responses.response import ResponseFacts
from contract.events import Delta, Event, EventId, Frame, Queued, Started, ToolCallDelta
from relay.claims import StartedJob
from support.shim import Stage, stage

JOB = "0123456789abcdef0123456789abcdef"
QUEUED = Queued(queue="q.chat")
STARTED = Started(attempt=1, worker="w", backend="b")
ASKED = {"model": "m", "input": "hi"}
STREAM = {**ASKED, "stream": True}
BACKGROUND = {**ASKED, "background": True}
TYPED: TypeAdapter[Any] = TypeAdapter(stream_events.ResponseStreamEvent)
OURS = frozenset({"error"})
"""It has more than the client's type says."""


def about(**fields: Any) -> ResponseFacts:
    body = ResponseBody.model_validate({"model": "m", "input": "hi", **fields})
    return ResponseFacts(
        ResponseHead(JOB, 1767225600, "m", "standard"), to_request(body, EarlierResponses())
    )


def frames(*events: Event, attempt: int = 1) -> list[Frame]:
    return [Frame.of(EventId(attempt, at), 1.5, event) for at, event in enumerate(events)]


def parsed(data: bytes) -> list[dict[str, Any]]:
    """Events as bytes, read as a client does; the client's own types must take them."""
    events = []
    for block in data.removesuffix(b"\n\n").split(b"\n\n") if data else ():
        name, line = block.decode().split("\n")
        event = json.loads(line.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if event["type"] not in OURS:
            TYPED.validate_python(without_code(event))
        events.append(event)
    return events


def without_code(event: dict[str, Any]) -> dict[str, Any]:
    """A failure's code may be one that the original tells, and the client's types do not list."""
    if event["type"] != "response.failed":
        return event
    return {**event, "response": {**event["response"], "error": None}}


def told(log: list[Frame], **fields: Any) -> list[dict[str, Any]]:
    return parsed(ResponseEvents(about(**fields)).render(log))


def words(*texts: str) -> list[Delta]:
    return [Delta(content=text) for text in texts]


def call(index: int, **fields: Any) -> Delta:
    return Delta(tool_calls=(ToolCallDelta(index=index, **fields),))


@asynccontextmanager
async def on_stage(shim: str, redis: str) -> AsyncGenerator[Stage]:
    """A caller of this shim, and a worker that may be asked."""
    async with stage(shim, redis) as at:
        await at.announce()
        yield at


async def claimed(at: Stage) -> StartedJob:
    async with asyncio.timeout(10):
        while (claim := await at.relay.start_next("scripted.chat", "w1")) is None:
            await asyncio.sleep(0.01)
    return claim


async def asked(at: Stage, **fields: Any) -> dict[str, Any]:
    answer = await at.http.post("/v1/responses", json={**BACKGROUND, **fields})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def answered(at: Stage, *events: Any, **fields: Any) -> dict[str, Any]:
    """A response that is done, looked up."""
    told = await asked(at, **fields)
    await at.relay.run(await claimed(at), *events)
    return await seen(at, told["id"])


async def seen(at: Stage, id: str) -> dict[str, Any]:
    told: dict[str, Any] = (await at.http.get(f"/v1/responses/{id}")).json()
    return told


async def followed(http: httpx.AsyncClient, id: str, after: int | None = None) -> list[Any]:
    query = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    async with asyncio.timeout(10):
        return parsed((await http.get(f"/v1/responses/{id}", params=query)).content)


def said(response: dict[str, Any]) -> str:
    parts = [part for item in response["output"] for part in item["content"]]
    return "".join(part["text"] for part in parts)
