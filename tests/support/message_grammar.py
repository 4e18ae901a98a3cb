"""The grammar of a stream of Anthropic's events, checked line by line as it was sent.

`checked` is applied to every stream of a test of the surface: one `message_start`, blocks that are
started and stopped once in order of their index, deltas that fit their block, arguments that are
whole JSON, one `message_delta` with cumulative counts, one last event, and a cursor that grows.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

_DELTAS = {
    "text": {"text_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
    "redacted_thinking": set[str](),
}
_ERRORS = {
    "invalid_request_error", "authentication_error", "billing_error", "permission_error",
    "not_found_error", "request_too_large", "rate_limit_error", "timeout_error", "api_error",
    "overloaded_error",
}  # fmt: skip
_REASONS = {"end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"}


@dataclass
class Told:
    """What a stream told."""

    events: list[dict[str, Any]] = field(default_factory=list)
    """Without pings."""
    ids: list[str] = field(default_factory=list)
    """The cursors, in order."""
    comments: list[str] = field(default_factory=list)
    pings: int = 0
    blocks: list[dict[str, Any]] = field(default_factory=list)
    """The content, put together."""
    error: dict[str, Any] | None = None
    ending: dict[str, Any] = field(default_factory=dict)
    """The `delta` of `message_delta`."""
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "".join(block.get("text", "") for block in self.blocks)


def checked(raw: bytes, *, resumed: bool = False, cut: bool = False) -> Told:
    """What the bytes of a stream tell; fails if they break the grammar.

    `resumed`: they begin after a cursor. `cut`: the client has left before the end.
    """
    told = Told()
    assert b"\r" not in raw
    for part in raw.decode().split("\n\n"):
        name, data = _fields(part, told)
        if data is None:
            continue
        assert name == data["type"]
        if name == "ping":
            assert data == {"type": "ping"}
            told.pings += 1
        else:
            told.events.append(data)
    _check(told, resumed=resumed, cut=cut)
    return told


def _fields(part: str, told: Told) -> tuple[str, dict[str, Any] | None]:
    name, data = "", None
    for line in part.splitlines():
        kind, _, value = line.partition(": ")
        if line.startswith(":"):
            told.comments.append(line[1:].strip())
        elif kind == "event":
            name = value
        elif kind == "id":
            assert re.fullmatch(r"\d+-\d+", value)
            told.ids.append(value)
        else:
            assert kind == "data"
            assert data is None
            data = json.loads(value)
    return name, data


def _check(told: Told, *, resumed: bool, cut: bool) -> None:
    places = [tuple(map(int, each.split("-"))) for each in told.ids]
    assert places == sorted(set(places))
    events = list(told.events)
    if events and events[-1]["type"] == "error":
        told.error = _checked_error(events.pop())
    if events and not resumed:
        _check_start(events.pop(0))
    if not (cut or told.error):
        assert events[-1] == {"type": "message_stop"}
        last = events[-2]
        events = events[:-2]
        assert last["type"] == "message_delta"
        told.ending, told.usage = last["delta"], last["usage"]
        assert told.ending["stop_reason"] in _REASONS
        assert told.usage["output_tokens"] >= 0
    if not resumed:
        _check_blocks(told, events, is_whole=not (cut or told.error))


def _check_start(event: dict[str, Any]) -> None:
    assert event["type"] == "message_start"
    message = event["message"]
    assert re.fullmatch(r"msg_[0-9a-f]{32}", message["id"])
    assert (message["type"], message["role"]) == ("message", "assistant")
    assert message["content"] == []
    assert message["stop_reason"] is None
    assert message["usage"]["input_tokens"] >= 0


def _checked_error(event: dict[str, Any]) -> dict[str, Any]:
    assert event["request_id"]
    assert event["error"]["type"] in _ERRORS
    assert event["error"]["message"]
    error: dict[str, Any] = event["error"]
    return error


def _check_blocks(told: Told, events: list[dict[str, Any]], *, is_whole: bool) -> None:
    is_open = False
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(told.blocks)
                told.blocks.append(dict(event["content_block"], arguments=""))
                is_open = True
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(told.blocks) - 1
                _add(told.blocks[-1], event["delta"])
            case "content_block_stop":
                assert is_open
                assert event["index"] == len(told.blocks) - 1
                is_open = False
                _close(told.blocks[-1])
            case other:
                raise AssertionError(other)
    assert not (is_open and is_whole)


def _add(block: dict[str, Any], delta: dict[str, Any]) -> None:
    assert delta["type"] in _DELTAS[block["type"]]
    match delta["type"]:
        case "text_delta":
            assert delta["text"]
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            assert not block["signature"]
            block["signature"] = delta["signature"]
        case _:
            block["arguments"] += delta["partial_json"]


def _close(block: dict[str, Any]) -> None:
    arguments = block.pop("arguments")
    if block["type"] == "thinking":
        assert block["signature"]
    if block["type"] == "tool_use":
        assert block["input"] == {}
        block["input"] = json.loads(arguments)
