"""The grammars of all streaming surfaces: what a stream must look like, byte for byte.

Each function reads the bytes of one stream as a client of that surface does, fails if they break
its grammar, and returns the same `Heard` for all of them: the text, the last event, the cursors.
"""

import base64
import json
import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from support import message_grammar

TERMINAL = ("done", "failed", "cancelled")
_CURSOR = re.compile(r"\d+-\d+")
_RESPONSE_ENDS = {
    "response.completed": "done",
    "response.incomplete": "done",
    "response.failed": "failed",
}


@dataclass
class Heard:
    """What a client has read of a stream."""

    text: str = ""
    end: str | None = None
    """`done`, `failed`, `cancelled`, or `error`; None while there was no last event."""
    code: str | None = None
    """Of the error that ended it."""
    waits: list[str] = field(default_factory=list)
    """What said that the job waits: comments, pings, positions, or lines without text."""
    cursors: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)

    def _end(self, end: str, code: str | None = None) -> None:
        assert self.end is None, f"a second last event: {end}"
        self.end, self.code = end, code


class Sent(NamedTuple):
    """One event of SSE."""

    name: str
    id: str
    data: str


def whole_part(raw: bytes, end: bytes) -> bytes:
    """The bytes up to the last whole event or line: a client acts on nothing else."""
    return raw[: raw.rfind(end) + len(end)] if end in raw else b""


def sse_events(raw: bytes, heard: Heard) -> list[Sent]:
    """The events of a stream; comments are what says that the job waits."""
    assert b"\r" not in raw
    events = []
    for block in whole_part(raw, b"\n\n").decode().split("\n\n")[:-1]:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, separator, value = line.partition(": ")
            assert separator, line
            if not name:
                heard.waits.append(value)
            else:
                assert name in {"event", "id", "data", "retry"}, line
                assert name not in fields, block
                fields[name] = value
        if "data" in fields:
            events.append(Sent(fields.get("event", ""), fields.get("id", ""), fields["data"]))
        elif fields:
            assert set(fields) == {"retry"}, block
    return events


def _lines(raw: bytes) -> list[str]:
    lines = whole_part(raw, b"\n").decode().split("\n")[:-1]
    assert all(lines), "an empty line"
    return lines


def native_sse(raw: bytes, *, resumed: bool = False) -> Heard:
    """`GET /api/v1/jobs/<id>/events`."""
    heard, events = Heard(), []
    for sent in sse_events(raw, heard):
        event = json.loads(sent.data)
        assert (sent.name, sent.id) == (event["type"], event.get("id", ""))
        events.append(event)
    return _native(heard, events, resumed=resumed)


def native_lines(raw: bytes, *, resumed: bool = False) -> Heard:
    """The same as NDJSON, or as messages of a WebSocket."""
    return _native(Heard(), [json.loads(line) for line in _lines(raw)], resumed=resumed)


def _native(heard: Heard, events: list[dict[str, Any]], *, resumed: bool) -> Heard:
    for event in events:
        assert heard.end is None, "something after the terminal event"
        assert event["at"] > 0
        heard.types.append(event["type"])
        if "id" in event:
            heard.cursors.append(event["id"])
        if event["type"] in TERMINAL:
            heard._end(event["type"], event.get("code"))
        elif event["type"] == "queued":
            heard.waits += filter(None, [event.get("reason")])
        elif event["type"] in {"reset", "log_reset"}:
            heard.text = ""
        else:
            heard.text += event.get("content", "")
    places = [_place(cursor) for cursor in heard.cursors]
    assert places == sorted(set(places))
    if events and not resumed:
        assert (events[0]["type"], events[0]["id"]) == ("queued", "1-0")
    return heard


def _place(cursor: str) -> tuple[int, ...]:
    assert _CURSOR.fullmatch(cursor)
    return tuple(map(int, cursor.split("-")))


def openai_chunks(raw: bytes, *, resumed: bool = False) -> Heard:
    """Chunks of `/v1/chat/completions` and `/v1/completions`."""
    assert not resumed
    heard = Heard()
    head: dict[str, Any] | None = None
    has_finished = False
    for sent in sse_events(raw, heard):
        assert heard.end is None, "something after the last event"
        assert (sent.name, sent.id) == ("", "")
        if sent.data == "[DONE]":
            assert has_finished, "[DONE] before the finish_reason"
            heard._end("done")
            continue
        chunk = json.loads(sent.data)
        if "error" in chunk:
            heard._end("error", _error_code(chunk["error"]))
            continue
        assert not has_finished or chunk["choices"] == [], "a choice after its finish_reason"
        same = {name: chunk[name] for name in ("id", "object", "created", "model")}
        head = head or _checked_chunk_head(same, chunk)
        assert same == head
        for choice in chunk["choices"]:
            assert choice["index"] == 0
            heard.text += _chunk_text(choice)
            has_finished = choice["finish_reason"] is not None
    return heard


def _checked_chunk_head(head: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    assert re.fullmatch(r"(chatcmpl|cmpl)-[0-9a-f]{32}", head["id"])
    assert head["object"] in {"chat.completion.chunk", "text_completion"}
    if head["object"] == "chat.completion.chunk":
        assert first["choices"][0]["delta"]["role"] == "assistant"
    return head


def _chunk_text(choice: dict[str, Any]) -> str:
    if "text" in choice:
        return str(choice["text"])
    delta = choice["delta"]
    assert choice["finish_reason"] is None or delta == {}
    return str(delta.get("content") or "")


def _error_code(error: dict[str, Any]) -> str:
    assert error["message"]
    assert error["type"]
    return str(error["code"])


def responses(raw: bytes, *, resumed: bool = False) -> Heard:
    """Events of `/v1/responses`."""
    heard, events = Heard(), []
    for sent in sse_events(raw, heard):
        event = json.loads(sent.data)
        assert (sent.name, sent.id) == (event["type"], "")
        assert heard.end is None, "something after the last event"
        events.append(event)
        heard.types.append(event["type"])
        match event["type"]:
            case "response.output_text.delta":
                heard.text += event["delta"]
            case "error":
                assert event["error"]["message"] == event["message"]
                heard._end("error", event["code"])
            case type if type in _RESPONSE_ENDS:
                _check_response(heard, event["response"], resumed=resumed)
                told = event["response"]
                end = "cancelled" if told["status"] == "cancelled" else _RESPONSE_ENDS[type]
                heard._end(end, (told["error"] or {}).get("code"))
    heard.cursors = [str(event["sequence_number"]) for event in events]
    _check_numbers(events, resumed=resumed)
    return heard


def _check_response(heard: Heard, response: dict[str, Any], *, resumed: bool) -> None:
    parts = [part for item in response["output"] for part in item.get("content", ())]
    text = "".join(part["text"] for part in parts if part["type"] == "output_text")
    assert text.endswith(heard.text) if resumed else text == heard.text


def _check_numbers(events: list[dict[str, Any]], *, resumed: bool) -> None:
    counted = [event for event in events if event["type"] != "error"]
    numbers = [event["sequence_number"] for event in counted]
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))
    if counted and not resumed:
        assert counted[0]["type"] == "response.created"
    is_open = 0
    for event in counted:
        is_open += event["type"] == "response.output_item.added"
        is_open -= event["type"] == "response.output_item.done"
    if not resumed and counted and counted[-1]["type"] == "response.completed":
        assert is_open == 0, "an output item without its end"


def messages(raw: bytes, *, resumed: bool = False) -> Heard:
    """Events of `/v1/messages`."""
    part = whole_part(raw, b"\n\n")
    is_cut = b"event: message_stop\n" not in part
    told = message_grammar.checked(part, resumed=resumed, cut=is_cut)
    heard = Heard(cursors=told.ids, waits=[*told.comments, *["ping"] * told.pings])
    heard.types = [event["type"] for event in told.events]
    for event in told.events:
        assert heard.end is None, "something after the last event"
        if event["type"] == "content_block_delta":
            heard.text += event["delta"].get("text", "")
        elif event["type"] == "message_stop":
            heard._end("done")
        elif event["type"] == "error":
            heard._end("error", event["error"]["code"])
    return heard


def ollama_lines(raw: bytes, *, resumed: bool = False) -> Heard:
    """Lines of `/api/chat` and `/api/generate`."""
    assert not resumed
    heard = Heard()
    for line in _lines(raw):
        assert heard.end is None, "something after the last line"
        value = json.loads(line)
        if "error" in value:
            heard._end("error", _code_of_ollama(value))
            continue
        assert value["model"]
        assert value["created_at"].endswith("Z")
        text = value["message"]["content"] if "message" in value else value["response"]
        heard.text += text
        if value["done"]:
            assert {"done_reason", "total_duration"} <= set(value)
            heard._end("done")
        elif not text:
            heard.waits.append(line)
    return heard


def _code_of_ollama(value: dict[str, Any]) -> str:
    assert value["error"]
    return str(value.get("code"))


def image_events(raw: bytes, *, resumed: bool = False) -> Heard:
    """Events of `/v1/images/generations`: previews, then the images."""
    assert not resumed
    heard = Heard()
    previews, completed = "", 0
    events = sse_events(raw, heard)
    for sent in events:
        assert heard.end is None, "something after the last event"
        event = json.loads(sent.data)
        if sent.name == "error":
            heard._end("error", _error_code(event["error"]))
            continue
        assert sent.name == event["type"]
        heard.types.append(sent.name)
        text = base64.b64decode(event["b64_json"]).decode("latin-1")
        if sent.name == "image_generation.partial_image":
            assert event["partial_image_index"] == heard.types.count(sent.name) - 1
            previews += text
            heard.text = previews
        else:
            assert sent.name == "image_generation.completed"
            assert "usage" in event
            completed += 1
            heard.text = text
            heard._end("done")
    assert completed <= 1, "more images than were requested"
    return heard
