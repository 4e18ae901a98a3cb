"""Fields that nothing is done with are named to their sender, and nulls are nothing at all."""

import asyncio
import json
from typing import Any

import pytest
from support.shim import Stage, stage

from api_shim.openai.chat_request import ChatBody, to_chat
from api_shim.openai.embeddings import EmbeddingBody
from api_shim.openai.responses.request import ResponseBody
from api_shim.submission.ignored_fields import header_value, ignored
from contract.events import Delta, Done

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
IMAGE = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"},
}


async def answered(at: Stage, path: str, body: Any, *events: Any, kind: str = "chat") -> Any:
    """The response to a request whose job has these events; a worker serves the model."""
    asking = asyncio.create_task(at.http.post(path, json=body))
    async with asyncio.timeout(5):
        while (claim := await at.relay.start_next(f"scripted.{kind}", "w1")) is None:
            await asyncio.sleep(0.01)
    attempt_log = at.relay.attempt_log(claim)
    for event in events or (Delta(content="a"), Done()):
        attempt_log.append(event)
    await attempt_log.flush()
    return await asking


def test_every_level_of_a_body_names_what_it_does_not_know_once() -> None:
    turn = {"role": "user", "content": [{"type": "text", "text": "a", "note": 1}, IMAGE]}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"odd": None}, "note": 1}}
    body = ChatBody.model_validate(
        {**CHAT, "messages": [turn, turn], "tools": [tool], "verbosity": "low", "store": True}
    )

    assert set(ignored(body)) == {
        "messages[].content[].note", "messages[].content[].image_url.detail",
        "tools[].function.note", "verbosity", "store",
    }  # fmt: skip
    assert to_chat(body).tools[0].parameters == {"odd": None}


def test_empty_fields_and_defaults_are_not_named() -> None:
    body = ChatBody.model_validate(
        {**CHAT, "store": False, "audio": None, "annotations": [], "whatever": {}, "note": ""}
    )

    assert ignored(body) == ()


def test_what_a_message_of_its_role_has_no_place_for_is_named() -> None:
    turns = [
        {"role": "user", "content": "a", "name": "Ann", "reasoning_content": "hm"},
        {"role": "assistant", "content": "b", "reasoning_content": "hm", "refusal": "no"},
        {"role": "tool", "content": "c", "tool_call_id": "1", "name": "f", "reasoning": "hm"},
    ]
    body = ChatBody.model_validate({**CHAT, "messages": turns})

    assert sorted(ignored(body)) == [
        "messages[].name", "messages[].reasoning", "messages[].reasoning_content",
        "messages[].refusal",
    ]  # fmt: skip
    assert [message.thinking for message in to_chat(body).messages] == [None, "hm", None]


def test_a_null_is_as_if_left_out_on_every_level() -> None:
    nulls = {"encoding_format": None, "dimensions": None, "user": None, "extra": None}
    embed = EmbeddingBody.model_validate({"model": "m", "input": "a", **nulls})
    turn = {"role": "user", "content": "hi", "tool_calls": None, "name": None}
    tool = {"type": None, "function": {"name": "f", "description": None, "strict": None}}
    chat = {"messages": [turn], "tools": [tool], "stream_options": {"include_usage": None}}
    response = {"model": "m", "input": [{"type": None, "role": "user", "content": "a"}]}

    assert (embed.encoding_format, ignored(embed)) == ("float", ())
    assert ChatBody.model_validate({**CHAT, **chat}).with_usage is False
    assert ResponseBody.model_validate({**response, "text": {"format": None}}).input is not None


def test_a_header_holds_no_more_than_a_line_and_nothing_that_ends_it() -> None:
    names = ["a\r\nSet-Cookie: x", "ü" * 500, *(f"field{n}" for n in range(100))]
    told = header_value([*names, *names])

    assert told.isascii()
    assert "\n" not in told
    assert ":" not in told
    assert len(told) < 2000
    assert told.endswith(", and 78 more")


@pytest.mark.parametrize("streams", [True, False])
async def test_the_head_of_an_answer_names_what_surface_and_backend_leave_alone(
    streams: bool,  # noqa: FBT001
    shim: str,
    redis_url: str,
) -> None:
    turn = {"role": "assistant", "content": "b", "reasoning_content": "hm"}
    body = {**CHAT, "messages": [*CHAT["messages"], turn], "verbosity": "low", "stream": streams}
    done = Done(ignored=("seed", "messages[].thinking"))
    async with stage(shim, redis_url) as at:
        report = await at.announce()
        backend = report.backends[0].model_copy(update={"grants": ()})
        await at.relay.roster.report(report.model_copy(update={"backends": (backend,)}))
        answer = await answered(at, "/v1/chat/completions", body, Delta(content="a"), done)

    told = answer.headers["x-fleet-ignored"].split(", ")
    assert told == ["verbosity", "messages[].thinking", *([] if streams else ["seed"])]


@pytest.mark.parametrize("streams", [True, False])
async def test_ollamas_words_name_it_as_well(streams: bool, shim: str, redis_url: str) -> None:  # noqa: FBT001
    body = {**CHAT, "options": {"mirostat": 2, "top_k": None}, "format": None, "stream": streams}
    async with stage(shim, redis_url) as at:
        await at.announce()
        answer = await answered(at, "/api/chat", body)

    assert (answer.status_code, answer.headers["x-fleet-ignored"]) == (200, "options.mirostat")


async def test_a_file_and_a_batch_name_it_as_well(shim: str, redis_url: str) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {}}
    async with stage(shim, redis_url) as at:
        file = await at.http.post(
            "/v1/files",
            data={"purpose": "batch", "odd": "1"},
            files={"file": ("a.jsonl", json.dumps(line).encode())},
        )
        wanted = {"input_file_id": file.json()["id"], "endpoint": "/v1/embeddings"}
        nulls = {"metadata": None, "completion_window": None}
        batch = await at.http.post("/v1/batches", json={**wanted, **nulls, "odd": 1})

    assert (file.headers["x-fleet-ignored"], batch.headers["x-fleet-ignored"]) == ("odd", "odd")
    assert batch.json()["completion_window"] == "24h"
