"""Scripted turns in the wire formats of Ollama and OpenAI-shaped servers. Pure; cached.

Written from the same sources as the adapters, so that each tests the other.
"""

import base64
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from pydantic_core import from_json, to_json

from workers.scripted.script import Script, Turn

CREATED: Final = 1_750_000_000
CREATED_AT: Final = "2025-06-15T15:06:40Z"
MESSAGE: Final = "scripted error in the middle of the stream"
DONE: Final = b"data: [DONE]\n\n"


def sse(value: Any) -> bytes:
    """A value as an SSE event."""
    return b"data: " + to_json(value) + b"\n\n"


def line(value: Any) -> bytes:
    """A value as a line of NDJSON."""
    return to_json(value) + b"\n"


@lru_cache(maxsize=64)
def openai_packets(script: Script, turn: Turn, *, with_usage: bool) -> tuple[bytes, ...]:
    """The events of POST /v1/chat/completions, without faults."""
    key = "reasoning" if script.style in {"vllm", "lmstudio"} else "reasoning_content"
    first = {"role": "assistant", "content": None if script.style == "llamacpp" else ""}
    deltas: list[dict[str, Any]] = [first]
    deltas += [{key: word} for word in turn.thinking]
    deltas += [{"content": word} for word in turn.content]
    for index, (name, arguments) in enumerate(turn.calls):
        deltas += _call_deltas(script, index, name, arguments)
    chunks = [_chunk(script, {"index": 0, "delta": d, "finish_reason": None}) for d in deltas]
    finish = "content_filter" if script.fail == "refuse" else turn.finish
    last = {"index": 0, "delta": {}, "finish_reason": finish}
    if script.style == "vllm":
        last["stop_reason"] = turn.stop_sequence
    chunks.append(_chunk(script, last))
    if script.usage == "with":
        chunks[-1]["usage"] = usage(turn)
    elif script.usage == "after" and with_usage:
        chunks.append(_chunk(script, None) | {"usage": usage(turn)})
    return (*map(sse, chunks), DONE)


def openai_response(script: Script, turn: Turn) -> dict[str, Any]:
    """The body of POST /v1/chat/completions without streaming."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(turn.content) or None}
    if turn.thinking:
        message["reasoning_content"] = "".join(turn.thinking)
    if turn.calls:
        message["tool_calls"] = [
            {
                "id": f"call_{index}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for index, (name, arguments) in enumerate(turn.calls)
        ]
    choice = {"index": 0, "message": message, "finish_reason": turn.finish, "logprobs": None}
    return _chunk(script, choice) | {"object": "chat.completion", "usage": usage(turn)}


def usage(turn: Turn) -> dict[str, Any]:
    """OpenAI's `usage`."""
    prompt, completion = turn.prompt_tokens, turn.completion_tokens
    counts: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if turn.cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": turn.cached_tokens}
    return counts


def openai_error(status: int, message: str, kind: str) -> bytes:
    """An error body in llama-server's format."""
    return to_json({"error": {"code": status, "message": message, "type": kind}})


def stream_error(style: str) -> tuple[bytes, ...]:
    """An error in the middle of a stream, in the format of the server that `style` names."""
    error = {"code": 500, "message": MESSAGE, "type": "server_error"}
    match style:
        case "old":
            return (b"error: " + to_json(error) + b"\n\n", DONE)
        case "vllm":
            return (sse({"error": error | {"param": None}}), DONE)
        case "lmstudio":
            body = to_json({"error": "internal_error", "message": MESSAGE})
            return (b"event: error\ndata: " + body + b"\n\n",)
        case "openai":
            return (sse({"error": error | {"param": None, "code": None}}),)
        case "ollama":
            empty = {"index": 0, "delta": {"role": "assistant", "content": ""}}
            return (sse({"id": "chatcmpl-0", "choices": [empty | {"finish_reason": None}]}),)
        case "swap":
            return (to_json({"src": "llama-swap", "error": error | {"code": "500"}}),)
        case "proxy":
            return (b"proxy error: " + MESSAGE.encode(),)
        case _:
            return (sse({"error": error}),)


@lru_cache(maxsize=64)
def ollama_packets(script: Script, turn: Turn) -> tuple[bytes, ...]:
    """The lines of POST /api/chat, without faults."""
    messages: list[dict[str, Any]] = [{"content": "", "thinking": word} for word in turn.thinking]
    messages += [{"content": word} for word in turn.content]
    messages += [_ollama_calls(index, *call) for index, call in enumerate(turn.calls)]
    lines = [_ollama_line(script, message) | {"done": False} for message in messages]
    return (*map(line, lines), line(ollama_last(script, turn)))


def ollama_response(script: Script, turn: Turn) -> dict[str, Any]:
    """The body of POST /api/chat without streaming."""
    message: dict[str, Any] = {"content": "".join(turn.content)}
    if turn.thinking:
        message["thinking"] = "".join(turn.thinking)
    calls = [_ollama_calls(index, *call) for index, call in enumerate(turn.calls)]
    if calls:
        message["tool_calls"] = [call["tool_calls"][0] for call in calls]
    return ollama_last(script, turn) | _ollama_line(script, message)


def ollama_last(script: Script, turn: Turn) -> dict[str, Any]:
    """The last line; no counts with `usage=none`, and Ollama has no done_reason for tool calls."""
    counts = {"prompt_eval_count": turn.prompt_tokens, "eval_count": turn.completion_tokens}
    return _ollama_line(script, {"content": ""}) | {
        "done": True,
        "done_reason": "length" if turn.finish == "length" else "stop",
        "total_duration": 5_000_000,
        "load_duration": 2_000_000,
        **({} if script.usage == "none" else counts),
    }


def split_packets(script: Script, packets: Iterable[bytes]) -> Sequence[bytes]:
    """The packets with the newlines and boundaries of the script's `wire`."""
    wire = script.wire
    if "multiline" in wire:
        for key in (b'"created"', b'"modelVersion"'):
            packets = [packet.replace(b"," + key, b",\ndata: " + key) for packet in packets]
    if "crlf" in wire:
        packets = [packet.replace(b"\n", b"\r\n") for packet in packets]
    if not wire & {"trickle", "split"}:
        return list(packets)
    size = 1 if "trickle" in wire else 7
    whole = b"".join(packets)
    return [whole[at : at + size] for at in range(0, len(whole), size)]


def embedding(vector: list[float], *, as_base64: bool) -> str | list[float]:
    """A vector in OpenAI's format: floats, or base64 of float32."""
    if not as_base64:
        return vector
    return base64.b64encode(array("f", vector).tobytes()).decode()


def _chunk(script: Script, choice: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "choices": [] if choice is None else [choice],
        "created": CREATED,
        "id": "chatcmpl-scripted",
        "model": script.model,
        "object": "chat.completion.chunk",
    }


def _call_deltas(script: Script, index: int, name: str, text: str) -> list[dict[str, Any]]:
    """Text arguments are sent in two parts after the name, the other types in one."""
    whole: dict[str, Any] = {"object": from_json(text), "null": None, "empty": ""}
    head = {"index": index, "id": f"call_{index}", "type": "function"}
    if script.arguments in whole:
        function = {"name": name, "arguments": whole[script.arguments]}
        return [{"tool_calls": [head | {"function": function}]}]
    middle = len(text) // 2
    return [
        {"tool_calls": [head | {"function": {"name": name, "arguments": ""}}]},
        {"tool_calls": [{"index": index, "function": {"arguments": text[:middle]}}]},
        {"tool_calls": [{"index": index, "function": {"arguments": text[middle:]}}]},
    ]


def _ollama_line(script: Script, message: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": script.model,
        "created_at": CREATED_AT,
        "message": {"role": "assistant", **message},
    }


def _ollama_calls(index: int, name: str, text: str) -> dict[str, Any]:
    """A complete call with an object of arguments; some versions repeat index 0."""
    function = {"index": 0, "name": name, "arguments": from_json(text)}
    return {"content": "", "tool_calls": [{"id": f"call_{index}", "function": function}]}
