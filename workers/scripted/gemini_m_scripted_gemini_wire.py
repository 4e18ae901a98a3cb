"""Scripted turns in Gemini's wire format: pure, and cached; written from the same facts as it.

It signs like Gemini 3: the first of some calls, and an empty text behind an answer that was
thought about; a call that comes back unsigned is refused.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from pydantic_core import from_json, to_json

from workers.backends.google.requests_m_gemini_parts import NOT_OURS
from workers.scripted.http import Reply
from workers.scripted.script import Prompt, Script, Turn
from workers.scripted.wire import MESSAGE, sse

_FINISH: Final = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS"}
_PAGE: Final = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head></html>"
_EARLY: Final = {
    "body": (200, "INTERNAL", "scripted error with status 200"),
    "busy": (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota"),
    "loading": (503, "UNAVAILABLE", "The model is loading"),
    "missing": (404, "NOT_FOUND", "models/x is not found for API version v1beta"),
    "context": (
        400,
        "INVALID_ARGUMENT",
        "The input token count (9) exceeds the maximum number of tokens allowed (8).",
    ),
    "auth": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "crash": (500, "INTERNAL", "An internal error has occurred."),
}


def signature(name: str, text: str) -> str:
    """What signs a call, or a text if there is no name."""
    return base64.b64encode(hashlib.sha256(f"{name} {text}".encode()).digest()).decode()


@lru_cache(maxsize=64)
def packets(script: Script, turn: Turn) -> tuple[bytes, ...]:
    """The events of `:streamGenerateContent`, before any fault."""
    parts: list[dict[str, Any]] = [{"text": word, "thought": True} for word in turn.thinking]
    parts += [{"text": word} for word in turn.content]
    parts += calls(script, turn)
    chunks = [_chunk(script, [part]) for part in parts]
    last: dict[str, Any] = {"text": ""}
    if turn.thinking:
        last["thoughtSignature"] = signature("", "".join(turn.content))
    end = _chunk(script, [last])
    is_refusal = script.fail == "refuse"
    end["candidates"][0]["finishReason"] = "SAFETY" if is_refusal else _FINISH[turn.finish]
    if script.usage != "none":
        end["usageMetadata"] = usage(turn)
    return tuple(map(sse, (*chunks, end)))


def calls(script: Script, turn: Turn) -> list[dict[str, Any]]:
    """The parts that are calls; `arguments=null` writes no `args`, and only then no ids."""
    parts: list[dict[str, Any]] = []
    for index, (name, text) in enumerate(turn.calls):
        call: dict[str, Any] = {"name": name}
        if script.arguments in {"text", "object"}:
            call |= {"id": f"id-{index}", "args": from_json(text)}
        parts.append({"functionCall": call})
    if parts:
        first = parts[0]["functionCall"]
        parts[0]["thoughtSignature"] = _signed(first)
    return parts


def usage(turn: Turn) -> dict[str, int]:
    """`usageMetadata`."""
    words = len(turn.content) + len(turn.calls)
    return {
        "promptTokenCount": turn.prompt_tokens,
        "candidatesTokenCount": words,
        "thoughtsTokenCount": len(turn.thinking),
        "totalTokenCount": turn.prompt_tokens + words + len(turn.thinking),
    }


def early(fault: str | None) -> Reply:
    """What stands in the place of a stream."""
    if fault not in _EARLY:
        return Reply(_PAGE, content_type="text/html")
    code, status, message = _EARLY[fault]
    return refused(code, status, message, wait_s=2 if fault == "busy" else None)


def refused(code: int, status: str, message: str, *, wait_s: int | None = None) -> Reply:
    """An error; Google breaks its lines."""
    error: dict[str, Any] = {"code": 500 if code == 200 else code, "message": message}  # noqa: PLR2004
    error["status"] = status
    if wait_s is not None:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        error["details"] = [{"@type": kind, "retryDelay": f"{wait_s}s"}]
    return Reply(json.dumps({"error": error}, indent=2).encode(), code)


def stream_error(style: str) -> tuple[bytes, ...]:
    """An error in the middle: bare and over many lines, as an array, or as an event."""
    error = {"error": {"code": 500, "message": MESSAGE, "status": "INTERNAL"}}
    match style:
        case "openai":
            return (sse(error),)
        case "vllm":
            return (json.dumps([error], indent=2).encode(),)
        case _:
            return (json.dumps(error, indent=2).encode(),)


def unsigned(contents: Sequence[dict[str, Any]]) -> str | None:
    """The name of the first call of this turn that lost its signature."""
    turn: list[dict[str, Any]] = []
    for content in contents:
        is_question = content.get("role") == "user" and any("text" in p for p in content["parts"])
        turn = [] if is_question else [*turn, content]
    for content in turn:
        found = [part for part in content["parts"] if "functionCall" in part]
        if not found:
            continue
        call = found[0]["functionCall"]
        if found[0].get("thoughtSignature") not in {_signed(call), NOT_OURS}:
            return str(call["name"])
    return None


def prompt(body: dict[str, Any]) -> Prompt:
    """What of a request a script looks at."""
    users = [
        content["parts"]
        for content in body.get("contents") or ()
        if content.get("role") == "user" and any("text" in part for part in content["parts"])
    ]
    last = users[-1] if users else []
    config = ((body.get("toolConfig") or {}).get("functionCallingConfig")) or {}
    declared = [
        str(function["name"])
        for tool in body.get("tools") or ()
        for function in tool["functionDeclarations"]
    ]
    names = config.get("allowedFunctionNames") or declared
    return Prompt(
        text="".join(part.get("text", "") for part in last),
        tools=() if config.get("mode") == "NONE" else tuple(names),
        max_tokens=(body.get("generationConfig") or {}).get("maxOutputTokens"),
        images=sum("inlineData" in part for part in last),
    )


def _signed(call: dict[str, Any]) -> str:
    return signature(call["name"], to_json(call.get("args") or {}).decode())


def _chunk(script: Script, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0}],
        "modelVersion": script.model,
        "responseId": "scripted",
    }
