"""Request bodies of the Gemini API: chat and embeddings, with thought signatures. Does no I/O.

Gemini signs thoughts and calls, and requires the signatures back in the order of the parts of its
response: `PartOrder` records that order in `provider_meta`, `parts_of` restores it. Fields that
Gemini cannot express are listed in `ignored`. Source: googleapis/python-genai `models.py` and
`types.py`; ai.google.dev on thinking and thought signatures.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from contract.chat import (
    ChatRequest,
    ImagePart,
    JsonFormat,
    Message,
    NamedTool,
    SchemaFormat,
    Tool,
    ToolCall,
)
from contract.embeddings import EmbedRequest, Task
from contract.errors import (
    InvalidRequest,
    NotSupported,
)
from contract.json_texts.arguments import parsed
from workers.backends.call_arguments import hold_much
from workers.backends.inline_images import inline

META: Final = "google"
SIGNATURE: Final = "thoughtSignature"
COMPATIBLE_SIGNATURE: Final = "thought_signature"
"""Its name in `extra_content` of Google's OpenAI-compatible API."""
FOREIGN_SIGNATURE: Final = "skip_thought_signature_validator"
"""The signature for calls of other models (ai.google.dev, thought signatures)."""


class PartOrder:
    """Records the order of the parts of a response, as they arrive."""

    def __init__(self) -> None:
        """No part yet."""
        self._parts: list[dict[str, Any]] = []

    def add_text(self, text: str, signature: str | None) -> None:
        """Add text; text without a signature joins the text part before it."""
        last = self._parts[-1] if self._parts else {}
        if signature is not None:
            self._parts.append({"text": len(text), SIGNATURE: signature})
        elif "text" in last and SIGNATURE not in last:
            last["text"] += len(text)
        elif text:
            self._parts.append({"text": len(text)})

    def add_thought(self, text: str, signature: str) -> None:
        """Add a signed thought; unsigned ones are not sent back."""
        self._parts.append({"thought": text, SIGNATURE: signature})

    def add_call(self, index: int) -> None:
        """Add call number `index`; its signature is kept with the call."""
        self._parts.append({"call": index})

    @property
    def meta(self) -> dict[str, Any] | None:
        """The `provider_meta` of the message; None if it is plain text followed by calls."""
        is_signed = any(SIGNATURE in part for part in self._parts)
        kinds = ["call" in part for part in self._parts]
        return {META: {"parts": self._parts}} if is_signed or kinds != sorted(kinds) else None


def call_meta(id: str | None, signature: str | None) -> dict[str, Any] | None:
    """The `provider_meta` of a call: Gemini's own id and the signature; None without both."""
    given = {"id": id, SIGNATURE: signature}
    meta = {name: value for name, value in given.items() if value is not None}
    return {META: meta} if meta else None


def parts_of(at: int, message: Message, *, needs_signature: bool) -> list[dict[str, Any]]:
    """The parts of the assistant's message `messages[at]`.

    `needs_signature`: the model requires a signature on calls.
    """
    calls = [call_part(at, call) for call in message.tool_calls]
    if needs_signature and calls and SIGNATURE not in calls[0]:
        calls[0][SIGNATURE] = FOREIGN_SIGNATURE
    text = message.text
    thought = [{"text": message.thinking, "thought": True}] if message.thinking else []
    order = _part_order(message)
    if order is None or not _matches(order, len(text), len(calls)):
        return thought + ([{"text": text}] if text else []) + calls
    # Signed thoughts are in the order, with their full text.
    parts, start = [] if any("thought" in item for item in order) else thought, 0
    for item in order:
        if "call" in item:
            parts.append(calls[item["call"]])
            continue
        if "thought" in item:
            part = {"text": item["thought"], "thought": True}
        else:
            part = {"text": text[start : start + item["text"]]}
            start += item["text"]
        parts.append(part | ({SIGNATURE: item[SIGNATURE]} if SIGNATURE in item else {}))
    return parts


def call_part(at: int, call: ToolCall) -> dict[str, Any]:
    """The part of a call; raises InvalidRequest for arguments that are not a JSON object."""
    try:
        arguments = parsed(call.arguments)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest(
            f"messages[{at}].tool_calls: arguments must be a JSON object with numbers in range"
        )
    meta = google_meta(call.provider_meta)
    id = {"id": meta["id"]} if "id" in meta else {}
    part: dict[str, Any] = {"functionCall": {**id, "name": call.name, "args": arguments}}
    signature = meta.get(SIGNATURE, meta.get(COMPATIBLE_SIGNATURE))
    return part | ({SIGNATURE: signature} if signature is not None else {})


def google_meta(meta: dict[str, Any] | None) -> dict[str, Any]:
    """Google's object in the `provider_meta` of a message or call; {} without one."""
    found = (meta or {}).get(META)
    return found if isinstance(found, dict) else {}


def _part_order(message: Message) -> list[dict[str, Any]] | None:
    parts = google_meta(message.provider_meta).get("parts")
    return parts if isinstance(parts, list) else None


def _matches(order: list[Any], characters: int, calls: int) -> bool:
    """Whether the recorded order matches the message; an edited message is sent without it."""
    if not all(isinstance(item, dict) for item in order):
        return False
    indexes = [item["call"] for item in order if "call" in item]
    sizes = [item["text"] for item in order if "text" in item]
    if not all(isinstance(number, int) for number in (*indexes, *sizes)):
        return False
    return sorted(indexes) == list(range(calls)) and sum(sizes) == characters


_BUDGETED: Final = re.compile(r"\bgemini-[12]\.")
"""Models with a thinking budget in tokens; later ones have a thinking level."""
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576}
"""Tokens, as in Google's OpenAI-compatible API."""
_LEVELS: Final = {"off": "MINIMAL", "xhigh": "HIGH"}
"""Gemini 3 and later cannot disable thinking; MINIMAL is the least."""
_MODES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


class GeminiBody(NamedTuple):
    """The JSON of a request, and the fields of ours that it cannot express."""

    fields: dict[str, Any]
    ignored: tuple[str, ...]


def to_chat(request: ChatRequest) -> GeminiBody:
    """The body of `:streamGenerateContent`.

    Raises NotSupported for an unknown named tool, a tool result without a name or an image URL,
    InvalidRequest for tool arguments that are not a JSON object.
    """
    system = "\n\n".join(m.text for m in request.messages if m.role == "system" and m.text)
    fields: dict[str, Any] = {"contents": contents(request)}
    if system:
        fields["systemInstruction"] = {"parts": [{"text": system}]}
    if request.tools:
        fields |= _tools(request.tools, request.tool_choice)
    if config := _config(request):
        fields["generationConfig"] = config
    ignored = [name for name in ("min_p", "keep_alive_s") if getattr(request, name) is not None]
    # Gemini never truncates a prompt or shifts its context, so false needs no field.
    ignored += [name for name in ("truncate", "shift") if getattr(request, name)]
    return GeminiBody(fields, tuple(ignored))


def contents(request: ChatRequest) -> list[dict[str, Any]]:
    """The turns of a chat; consecutive tool results are one turn."""
    turns: list[dict[str, Any]] = []
    results: list[tuple[int, Message]] = []
    calls: tuple[ToolCall, ...] = ()
    needs_signature = _requires_signatures(request.model)
    is_much = hold_much([each.text for each in request.messages if each.role == "tool"])
    for at, message in enumerate(request.messages):
        if message.role == "tool":
            results.append((at, message))
            continue
        if results:
            turns.append({"role": "user", "parts": _responses(results, calls, is_much=is_much)})
            results = []
        if message.role == "assistant":
            parts = parts_of(at, message, needs_signature=needs_signature)
            calls = message.tool_calls
            turns += [{"role": "model", "parts": parts}] if parts else []
        elif message.role == "user":
            turns.append({"role": "user", "parts": _user_parts(at, message)})
    if results:
        turns.append({"role": "user", "parts": _responses(results, calls, is_much=is_much)})
    return turns


_TASK_TYPES: Final[Mapping[Task, str]] = {
    "query": "RETRIEVAL_QUERY",
    "document": "RETRIEVAL_DOCUMENT",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
    "similarity": "SEMANTIC_SIMILARITY",
}


def to_embed(request: EmbedRequest, model: str, texts: Sequence[str]) -> dict[str, Any]:
    """The body of `:batchEmbedContents`; `model` includes `models/`."""
    width = {} if request.dimensions is None else {"outputDimensionality": request.dimensions}
    task = {} if request.task is None else {"taskType": _TASK_TYPES[request.task]}
    return {
        "requests": [
            {"model": model, "content": {"parts": [{"text": text}]}, **width, **task}
            for text in texts
        ]
    }


def _requires_signatures(model: str) -> bool:
    """Whether the model returns 400 for a call of this turn without a signature (Gemini 3)."""
    return "gemini-" in model and not _BUDGETED.search(model)


def _user_parts(at: int, message: Message) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        return [{"text": message.content}]
    parts: list[dict[str, Any]] = []
    for part in message.content:
        if isinstance(part, ImagePart):
            image = inline(part.image, f"messages[{at}].content")
            parts.append({"inlineData": {"mimeType": image.mime_type, "data": image.data}})
        else:
            parts.append({"text": part.text})
    return parts


def _responses(
    results: Sequence[tuple[int, Message]], calls: Sequence[ToolCall], *, is_much: bool
) -> list[dict[str, Any]]:
    """Tool results in the order of the calls: without ids only the order identifies them.

    `is_much`: all results of the request hold so much that they remain text.
    """
    found: list[tuple[int, dict[str, Any]]] = []
    for number, (at, message) in enumerate(results):
        place = _place(message, number, calls)
        call = calls[place] if place < len(calls) else None
        name = message.tool_name or (call.name if call else None)
        if name is None:
            raise NotSupported(f"messages[{at}]: Gemini needs the tool name of a result")
        id = google_meta(call.provider_meta).get("id") if call else None
        response = {
            "name": name,
            "response": {"result": message.text} if is_much else _struct(message.text),
        }
        found.append((place, {"functionResponse": ({"id": id} if id else {}) | response}))
    return [part for _, part in sorted(found, key=_first)]


def _place(message: Message, number: int, calls: Sequence[ToolCall]) -> int:
    """The index of the call of a result: by id, by a unique name, else by position."""
    for place, call in enumerate(calls):
        if message.tool_call_id is not None and call.id == message.tool_call_id:
            return place
    named = [place for place, call in enumerate(calls) if call.name == message.tool_name]
    return named[0] if len(named) == 1 else number


def _struct(text: str) -> dict[str, Any]:
    """A tool result as an object, which Gemini requires."""
    try:
        value = parsed(text) if text else text
    except ValueError:
        value = text
    return value if isinstance(value, dict) else {"result": value}


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _tools(tools: Sequence[Tool], choice: str | NamedTool) -> dict[str, Any]:
    config: dict[str, Any]
    if isinstance(choice, NamedTool):
        if choice.name not in {tool.name for tool in tools}:
            raise NotSupported(f"tool_choice: no tool is called {choice.name!r}")
        config = {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    else:
        config = {"mode": _MODES[choice]}
    declared = [_declared(tool) for tool in tools]
    return {
        "tools": [{"functionDeclarations": declared}],
        "toolConfig": {"functionCallingConfig": config},
    }


def _declared(tool: Tool) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": tool.name}
    if tool.description:
        fields["description"] = tool.description
    if tool.parameters:
        fields["parametersJsonSchema"] = tool.parameters
    return fields


def _config(request: ChatRequest) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "topK": request.top_k,
        "maxOutputTokens": request.max_tokens,
        "stopSequences": list(request.stop) or None,
        "seed": request.seed,
        "frequencyPenalty": request.frequency_penalty,
        "presencePenalty": request.presence_penalty,
        "thinkingConfig": _thinking(request),
    }
    match request.response_format:
        case JsonFormat():
            fields["responseMimeType"] = "application/json"
        case SchemaFormat(schema_=schema):
            fields |= {"responseMimeType": "application/json", "responseJsonSchema": schema}
        case _:
            pass
    return {name: value for name, value in fields.items() if value is not None}


def _thinking(request: ChatRequest) -> dict[str, Any] | None:
    """The thinking config; a budget and a level together are a 400."""
    think = request.think
    if think == "auto":
        return None
    if think == "on":
        is_budgeted = bool(_BUDGETED.search(request.model))
        return ({"thinkingBudget": -1} if is_budgeted else {}) | {"includeThoughts": True}
    if _requires_signatures(request.model):
        return {
            "thinkingLevel": _LEVELS.get(think, think.upper()),
            "includeThoughts": think != "off",
        }
    if think == "off":
        return {"thinkingBudget": 0}
    if _BUDGETED.search(request.model):
        return {"thinkingBudget": _BUDGETS[think], "includeThoughts": True}
    return {"thinkingLevel": _LEVELS.get(think, think.upper()), "includeThoughts": True}
