"""Our requests in Gemini's words: pure. What it cannot express is named in `ignored`.

Source: googleapis/python-genai `models.py` and `types.py`; ai.google.dev on thinking.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

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
from contract.embeddings import EmbedRequest
from contract.errors import (
    InvalidRequest,
    NotSupported,
)
from workers.backends.inline_images import inline

META: Final = "google"
SIGNATURE: Final = "thoughtSignature"
FOREIGN_SIGNATURE: Final = "skip_thought_signature_validator"
"""What Google's page on thought signatures says to write on calls that another model made."""


class PartOrder:
    """The order of an answer's parts, as it grows."""

    def __init__(self) -> None:
        """No part yet."""
        self._parts: list[dict[str, Any]] = []

    def add_text(self, text: str, signature: str | None) -> None:
        """Words; those without a signature join the ones before them."""
        last = self._parts[-1] if self._parts else {}
        if signature is not None:
            self._parts.append({"text": len(text), SIGNATURE: signature})
        elif "text" in last and SIGNATURE not in last:
            last["text"] += len(text)
        elif text:
            self._parts.append({"text": len(text)})

    def add_thought(self, text: str, signature: str) -> None:
        """A thought that was signed; the others are never sent back."""
        self._parts.append({"thought": text, SIGNATURE: signature})

    def add_call(self, index: int) -> None:
        """A call; its signature is its own."""
        self._parts.append({"call": index})

    @property
    def meta(self) -> dict[str, Any] | None:
        """What the message must carry; None if text before calls says it all."""
        is_signed = any(SIGNATURE in part for part in self._parts)
        kinds = ["call" in part for part in self._parts]
        return {META: {"parts": self._parts}} if is_signed or kinds != sorted(kinds) else None


def call_meta(id: str | None, signature: str | None) -> dict[str, Any] | None:
    """What a call must carry: the id that Gemini gave it (not one of ours), and its signature."""
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
    # Thoughts that were signed stand in the order, and hold all that there was of them.
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
    """A call as a part; raises InvalidRequest for arguments that are no object."""
    try:
        arguments = from_json(call.arguments or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest(f"messages[{at}].tool_calls: arguments must be a JSON object")
    meta = google_meta(call.provider_meta)
    id = {"id": meta["id"]} if "id" in meta else {}
    part: dict[str, Any] = {"functionCall": {**id, "name": call.name, "args": arguments}}
    return part | ({SIGNATURE: meta[SIGNATURE]} if SIGNATURE in meta else {})


def google_meta(meta: dict[str, Any] | None) -> dict[str, Any]:
    """Our share of what a message or a call carries."""
    found = (meta or {}).get(META)
    return found if isinstance(found, dict) else {}


def _part_order(message: Message) -> list[dict[str, Any]] | None:
    parts = google_meta(message.provider_meta).get("parts")
    return parts if isinstance(parts, list) else None


def _matches(order: list[Any], characters: int, calls: int) -> bool:
    """Whether nobody has changed the message since; an edited one goes without its order."""
    if not all(isinstance(item, dict) for item in order):
        return False
    indexes = [item["call"] for item in order if "call" in item]
    sizes = [item["text"] for item in order if "text" in item]
    if not all(isinstance(number, int) for number in (*indexes, *sizes)):
        return False
    return sorted(indexes) == list(range(calls)) and sum(sizes) == characters


_BUDGETED: Final = re.compile(r"\bgemini-[12]\.")
"""Models that take a budget of tokens; the later ones take a level."""
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576}
"""As Google's own OpenAI-shaped surface translates them."""
_LEVELS: Final = {"off": "MINIMAL", "xhigh": "HIGH"}
"""Gemini 3 and later cannot be kept from thinking, only from thinking much."""
_MODES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


class GeminiBody(NamedTuple):
    """A request's JSON, and the fields of ours that are not in it."""

    fields: dict[str, Any]
    ignored: tuple[str, ...]


def to_chat(request: ChatRequest) -> GeminiBody:
    """The body of `:streamGenerateContent`; raises NotSupported and InvalidRequest."""
    system = "\n\n".join(m.text for m in request.messages if m.role == "system" and m.text)
    fields: dict[str, Any] = {"contents": contents(request)}
    if system:
        fields["systemInstruction"] = {"parts": [{"text": system}]}
    if request.tools:
        fields |= _tools(request.tools, request.tool_choice)
    if config := _config(request):
        fields["generationConfig"] = config
    ignored = [name for name in ("min_p", "keep_alive_s") if getattr(request, name) is not None]
    # It never cuts a prompt and never slides its context: false is what it does.
    ignored += [name for name in ("truncate", "shift") if getattr(request, name)]
    return GeminiBody(fields, tuple(ignored))


def contents(request: ChatRequest) -> list[dict[str, Any]]:
    """The turns; neighbouring results of tools belong into one."""
    turns: list[dict[str, Any]] = []
    results: list[tuple[int, Message]] = []
    calls: tuple[ToolCall, ...] = ()
    needs_signature = _wants_signatures(request.model)
    for at, message in enumerate(request.messages):
        if message.role == "tool":
            results.append((at, message))
            continue
        if results:
            turns.append({"role": "user", "parts": _responses(results, calls)})
            results = []
        if message.role == "assistant":
            parts = parts_of(at, message, needs_signature=needs_signature)
            calls = message.tool_calls
            turns += [{"role": "model", "parts": parts}] if parts else []
        elif message.role == "user":
            turns.append({"role": "user", "parts": _user_parts(at, message)})
    if results:
        turns.append({"role": "user", "parts": _responses(results, calls)})
    return turns


def to_embed(request: EmbedRequest, model: str, texts: Sequence[str]) -> dict[str, Any]:
    """The body of `:batchEmbedContents`; `model` has its `models/`."""
    wish = {} if request.dimensions is None else {"outputDimensionality": request.dimensions}
    return {
        "requests": [
            {"model": model, "content": {"parts": [{"text": text}]}, **wish} for text in texts
        ]
    }


def _wants_signatures(model: str) -> bool:
    """Whether the model answers 400 to a call of this turn that has no signature: Gemini 3 does."""
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
    results: Sequence[tuple[int, Message]], calls: Sequence[ToolCall]
) -> list[dict[str, Any]]:
    """Results of tools, in the order of the calls: without ids only the order tells them apart."""
    found: list[tuple[int, dict[str, Any]]] = []
    for number, (at, message) in enumerate(results):
        place = _place(message, number, calls)
        call = calls[place] if place < len(calls) else None
        name = message.tool_name or (call.name if call else None)
        if name is None:
            raise NotSupported(f"messages[{at}]: Gemini wants to know of a result which tool's")
        id = google_meta(call.provider_meta).get("id") if call else None
        response = {"name": name, "response": _struct(message.text)}
        found.append((place, {"functionResponse": ({"id": id} if id else {}) | response}))
    return [part for _, part in sorted(found, key=_first)]


def _place(message: Message, number: int, calls: Sequence[ToolCall]) -> int:
    """Which call a result answers: by its id, by its name if there is one such, by its place."""
    for place, call in enumerate(calls):
        if message.tool_call_id is not None and call.id == message.tool_call_id:
            return place
    named = [place for place, call in enumerate(calls) if call.name == message.tool_name]
    return named[0] if len(named) == 1 else number


def _struct(text: str) -> dict[str, Any]:
    """A result must be an object."""
    try:
        value = from_json(text)
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
    """Never a budget and a level together: that is a 400."""
    think = request.think
    if think == "auto":
        return None
    if think == "on":
        is_budgeted = bool(_BUDGETED.search(request.model))
        return ({"thinkingBudget": -1} if is_budgeted else {}) | {"includeThoughts": True}
    if _wants_signatures(request.model):
        return {
            "thinkingLevel": _LEVELS.get(think, think.upper()),
            "includeThoughts": think != "off",
        }
    if think == "off":
        return {"thinkingBudget": 0}
    if _BUDGETED.search(request.model):
        return {"thinkingBudget": _BUDGETS[think], "includeThoughts": True}
    return {"thinkingLevel": _LEVELS.get(think, think.upper()), "includeThoughts": True}
