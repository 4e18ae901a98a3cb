"""The Gemini and Vertex APIs of the scripted server.

`/token` issues access tokens, as Google Cloud does for service accounts.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

from pydantic_core import from_json, to_json

from contract.errors import (
    FleetError,
    ModelMissing,
)
from workers.backends.google.requests import FOREIGN_SIGNATURE
from workers.scripted.catalog import CONTEXT_LENGTH, json_reply
from workers.scripted.http import HttpRequest, Reply, StreamedReply
from workers.scripted.picture import png
from workers.scripted.responses import SSE, ScriptedResponses
from workers.scripted.script import EARLY_FAULTS, FORMS, Prompt, Script, Turn, generate, vector
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
    """The thought signature of a call, or of a text if `name` is empty."""
    return base64.b64encode(hashlib.sha256(f"{name} {text}".encode()).digest()).decode()


@lru_cache(maxsize=64)
def packets(script: Script, turn: Turn) -> tuple[bytes, ...]:
    """The events of `:streamGenerateContent`, without faults."""
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
    """The parts with calls; those of `arguments=null` and `empty` have neither `args` nor ids."""
    parts: list[dict[str, Any]] = []
    for index, (name, text) in enumerate(turn.calls):
        call: dict[str, Any] = {"name": name}
        if script.arguments in {"text", "object"}:
            call |= {"id": f"id-{index}", "args": from_json(text)}
        parts.append({"functionCall": call})
    if parts:
        first = parts[0]["functionCall"]
        parts[0]["thoughtSignature"] = _signature_of(first)
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


def early_error(fault: str | None) -> Reply:
    """The response of a fault of EARLY_FAULTS."""
    if fault not in _EARLY:
        return Reply(_PAGE, content_type="text/html")
    code, status, message = _EARLY[fault]
    return google_error(code, status, message, wait_s=2 if fault == "busy" else None)


def google_error(code: int, status: str, message: str, *, wait_s: int | None = None) -> Reply:
    """An error response; Google indents its JSON."""
    error: dict[str, Any] = {"code": 500 if code == 200 else code, "message": message}  # noqa: PLR2004
    error["status"] = status
    if wait_s is not None:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        error["details"] = [{"@type": kind, "retryDelay": f"{wait_s}s"}]
    return Reply(json.dumps({"error": error}, indent=2).encode(), code)


def stream_error(style: str) -> tuple[bytes, ...]:
    """An error in the middle of a stream: indented JSON, such JSON in an array, or an event."""
    error = {"error": {"code": 500, "message": MESSAGE, "status": "INTERNAL"}}
    match style:
        case "openai":
            return (sse(error),)
        case "vllm":
            return (json.dumps([error], indent=2).encode(),)
        case _:
            return (json.dumps(error, indent=2).encode(),)


def call_without_signature(contents: Sequence[dict[str, Any]]) -> str | None:
    """The name of this turn's first call if its signature is missing, else None."""
    turn: list[dict[str, Any]] = []
    for content in contents:
        is_question = content.get("role") == "user" and any("text" in p for p in content["parts"])
        turn = [] if is_question else [*turn, content]
    for content in turn:
        found = [part for part in content["parts"] if "functionCall" in part]
        if not found:
            continue
        call = found[0]["functionCall"]
        if found[0].get("thoughtSignature") not in {_signature_of(call), FOREIGN_SIGNATURE}:
            return str(call["name"])
    return None


def prompt(body: dict[str, Any]) -> Prompt:
    """The `Prompt` of a request."""
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


def _signature_of(call: dict[str, Any]) -> str:
    return signature(call["name"], to_json(call.get("args") or {}).decode())


def _chunk(script: Script, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0}],
        "modelVersion": script.model,
        "responseId": "scripted",
    }


MAX_TEXTS: Final = 100
OUTPUT_LIMIT: Final = 2048
SIDE: Final = 64
"""Width and height of an image, in pixels."""
_METHODS: Final = {"scripted-embed": ["embedContent", "batchEmbedContents"]}
_NOT_FOUND: Final = 404


class ScriptedGemini:
    """Answers below `/v1beta`, `/v1beta1` and `/token`."""

    def __init__(self, responses: ScriptedResponses) -> None:
        """`responses` builds the responses."""
        self._responses = responses
        self._tokens = 0
        self.handlers: dict[str, Callable[[HttpRequest], Reply | StreamedReply | None]] = {
            "/v1beta": self._answer,
            "/token": self._token,
        }
        self._methods: dict[
            str, Callable[[Script, dict[str, Any]], Reply | StreamedReply | None]
        ] = {
            "streamGenerateContent": self._chat,
            "generateContent": self._picture,
            "batchEmbedContents": self._embed,
            "embedContent": self._embed_one,
            "predict": self._predict,
        }

    def _answer(self, request: HttpRequest) -> Reply | StreamedReply | None:
        path, _, method = unquote(request.path).rpartition(":")
        if request.method == "GET":
            return _model_list(request)
        if method not in self._methods or "/models/" not in path:
            return google_error(_NOT_FOUND, "NOT_FOUND", f"no {request.method} {request.path}")
        try:
            script = self._responses.catalog.script(path.partition("/models/")[2])
            fault = script.fail
            if fault in EARLY_FAULTS and self._responses.fault(script):
                return early_error(fault)
            return self._methods[method](script, from_json(request.body))
        except ModelMissing:
            message = f"models/{path} is not found for API version v1beta"
            return google_error(_NOT_FOUND, "NOT_FOUND", message)
        except (FleetError, ValueError) as error:
            return google_error(400, "INVALID_ARGUMENT", str(error))

    def _chat(self, script: Script, body: dict[str, Any]) -> Reply | StreamedReply | None:
        fault = self._responses.fault(script)
        if name := call_without_signature(body["contents"]):
            raise ValueError(f"Function call {name} is missing a thought_signature.")
        turn = generate(script, prompt(body))
        error = stream_error(script.style)
        return self._responses.flow(script, packets(script, turn), fault, 0, SSE, error=error)

    def _picture(self, script: Script, body: dict[str, Any]) -> Reply | StreamedReply | None:
        picture = png(prompt(body).text, SIDE, SIDE)
        data = {"mimeType": "image/png", "data": base64.b64encode(picture).decode()}
        content = {"role": "model", "parts": [{"inlineData": data}]}
        if script.fail == "refuse":
            candidate: dict[str, Any] = {"finishReason": "IMAGE_SAFETY", "index": 0}
        else:
            candidate = {"content": content, "finishReason": "STOP", "index": 0}
        usage = {"promptTokenCount": 3, "candidatesTokenCount": 1290}
        return json_reply({"candidates": [candidate], "usageMetadata": usage})

    def _embed(self, script: Script, body: dict[str, Any]) -> Reply | StreamedReply | None:
        requests = body["requests"]
        if len(requests) > MAX_TEXTS:
            raise ValueError("at most 100 requests can be in one batch")
        texts = [each["content"]["parts"][0]["text"] for each in requests]
        width = requests[0].get("outputDimensionality")
        rows = [{"values": values} for values in self._rows(script, texts, width)]
        tokens = sum(len(text.split()) for text in texts)
        return json_reply({"embeddings": rows, "usageMetadata": {"promptTokenCount": tokens}})

    def _embed_one(self, script: Script, body: dict[str, Any]) -> Reply | StreamedReply | None:
        text = body["content"]["parts"][0]["text"]
        config = body.get("embedContentConfig") or {}
        rows = self._rows(script, [text], config.get("outputDimensionality"))
        usage = {"promptTokenCount": len(text.split())}
        return json_reply({"embedding": {"values": rows[0]}, "usageMetadata": usage})

    def _predict(self, script: Script, body: dict[str, Any]) -> Reply | StreamedReply | None:
        texts = [each["content"] for each in body["instances"]]
        rows = self._rows(script, texts, body["parameters"].get("outputDimensionality"))
        predictions = [
            {"embeddings": {"values": row, "statistics": {"token_count": len(text.split())}}}
            for row, text in zip(rows, texts, strict=False)
        ]
        return json_reply({"predictions": predictions})

    def _rows(self, script: Script, texts: list[str], width: int | None) -> list[list[float]]:
        """Vectors; with a `width` they have length 2: Gemini does not normalise shortened ones."""
        rows = [vector(text, width or script.dim) for text in texts]
        rows = rows if width is None else [[2 * value for value in row] for row in rows]
        return rows[:-1] if "short" in script.wire else rows

    def _token(self, _: HttpRequest) -> Reply:
        self._tokens += 1
        token = f"ya29.scripted-{self._tokens}"
        return json_reply({"access_token": token, "expires_in": 3600, "token_type": "Bearer"})


def _model_list(request: HttpRequest) -> Reply:
    """A page of the model list; its token is the index of the next page."""
    start, size = int(request.query.get("pageToken", "0")), int(request.query.get("pageSize", "50"))
    end = start + min(size, 3)
    more = {"nextPageToken": str(end)} if end < len(FORMS) else {}
    if "publishers" in request.path:
        names = [{"name": f"publishers/google/models/{form}"} for form in FORMS[start:end]]
        return json_reply({"publisherModels": names, **more})
    return json_reply({"models": [_item(form) for form in FORMS[start:end]], **more})


def _item(form: str) -> dict[str, Any]:
    return {
        "name": f"models/{form}",
        "version": "1",
        "inputTokenLimit": CONTEXT_LENGTH,
        "outputTokenLimit": OUTPUT_LIMIT,
        "supportedGenerationMethods": _METHODS.get(form, ["generateContent", "countTokens"]),
        "thinking": form == "scripted-think",
    }
