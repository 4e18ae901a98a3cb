"""Ollama's messages and tools as the contract's, and tool calls back. Pure.

Ollama's client drops the ids of tool calls, and most backends need them. New ids are assigned here,
and a tool's result goes to the open call of that name, or else to the first open call.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from api_shim.bodies.joined_texts import json_text, taken
from api_shim.http.problems import Refusal
from api_shim.ollama.request_fields import OllamaRequestBody
from api_shim.submission.ignored_fields import IgnoredField
from contract.chat import (
    CalledName,
    CallId,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    Tool,
    ToolCall,
)
from contract.errors import InvalidRequest, ServerFault
from contract.json_texts.arguments import demand_small, parsed
from contract.json_texts.json_scan import TooMuch
from contract.requests import Word


class OllamaFunctionCall(OllamaRequestBody):
    """A function's name and arguments."""

    name: CalledName
    arguments: dict[str, Any] | str | None = None


class OllamaToolCall(OllamaRequestBody):
    """A tool call of the assistant."""

    id: CallId | None = None
    function: OllamaFunctionCall


class OllamaMessage(OllamaRequestBody):
    """A message."""

    role: Role
    content: str | None = None
    thinking: str | None = None
    images: tuple[str, ...] | None = None
    """Base64; a `data:` prefix is accepted too."""
    tool_calls: tuple[OllamaToolCall, ...] | None = None
    tool_name: CalledName | None = None
    """Of a tool's result: the function's name."""
    tool_call_id: CallId | None = None


class OllamaFunction(OllamaRequestBody):
    """A function's description and parameters."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class OllamaTool(OllamaRequestBody):
    """A tool that the model may call."""

    type: Annotated[Word | None, IgnoredField(unless=("function",))] = "function"
    function: OllamaFunction


def tools(given: Sequence[OllamaTool] | None) -> tuple[Tool, ...]:
    """The contract's tools; an empty list means none."""
    return tuple(
        Tool(
            name=each.function.name,
            description=each.function.description or "",
            parameters=each.function.parameters or {},
        )
        for each in given or ()
    )


def messages(given: list[OllamaMessage]) -> tuple[Message, ...]:
    """The contract's messages; the list is emptied. Raises InvalidRequest."""
    waiting: list[ToolCall] = []
    found: list[Message] = []
    numbered = 0
    for at, message in enumerate(taken(given)):
        calls: tuple[ToolCall, ...] = ()
        if message.tool_calls:
            calls = tuple(
                _call(f"messages.{at}.tool_calls", call, numbered + nth)
                for nth, call in enumerate(message.tool_calls)
            )
            numbered += len(calls)
            waiting = list(calls)
        found.append(
            Message(
                role=message.role,
                content=content(message.content, message.images, f"messages.{at}.images"),
                thinking=message.thinking or None,
                tool_calls=calls,
                tool_call_id=_answered(message, waiting) if message.role == "tool" else None,
                tool_name=message.tool_name,
            )
        )
    return tuple(found)


def content(
    text: str | None, images: Sequence[str] | None, where: str = "images"
) -> str | tuple[Part, ...]:
    """Text and images of a message; Ollama has the images beside the text.

    `where` names them in an error; raises InvalidRequest.
    """
    sent = [image for image in images or () if image]
    if not sent:
        return text or ""
    parts: list[Part] = [TextPart(text=text)] if text else []
    for at, image in enumerate(sent):
        try:
            parts.append(ImagePart.of(image))
        except ValueError as error:
            raise InvalidRequest(f"{where}.{at}: {error}") from None
    return tuple(parts)


def _call(where: str, given: OllamaToolCall, number: int) -> ToolCall:
    is_text = isinstance(given.function.arguments, str)
    arguments = given.function.arguments if is_text else _json(where, given.function)
    return ToolCall(
        id=given.id or f"call_{number}", name=given.function.name, arguments=arguments or "{}"
    )


def _json(where: str, function: OllamaFunctionCall) -> str:
    try:
        return json_text(function, "arguments")
    except ValueError as error:
        raise InvalidRequest(f"{where}: the arguments cannot be encoded as JSON: {error}") from None


def _answered(message: OllamaMessage, waiting: list[ToolCall]) -> str | None:
    """The id of the call that a tool's result answers; removes the call from `waiting`."""
    if message.tool_call_id:
        waiting[:] = [call for call in waiting if call.id != message.tool_call_id]
        return message.tool_call_id
    named = [call for call in waiting if call.name == message.tool_name]
    found = next(iter(named or waiting), None)
    if found is None:
        return None
    waiting.remove(found)
    return found.id


class _CallFragments:
    """What has come of one call."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id: str | None = None
        self.name = ""
        self.arguments: list[str] = []


class ToolCallBuilder:
    """Builds the tool calls of a response from their fragments."""

    def __init__(self) -> None:
        """No call is added yet."""
        self._calls: dict[int, _CallFragments] = {}

    @classmethod
    def of(cls, calls: Sequence[ToolCall]) -> "ToolCallBuilder":
        """A builder with these whole calls."""
        made = cls()
        made.add({"index": at, **call.model_dump()} for at, call in enumerate(calls))
        return made

    def __len__(self) -> int:
        """The number of calls so far."""
        return len(self._calls)

    def add(self, fragments: Iterable[Mapping[str, Any]]) -> None:
        """Add the fragments of a delta's JSON; those of one index form one call."""
        for fragment in fragments:
            call = self._calls.setdefault(fragment["index"], _CallFragments())
            call.id = fragment.get("id") or call.id
            call.name = fragment.get("name") or call.name
            call.arguments.append(fragment.get("arguments") or "")

    @property
    def whole(self) -> list[dict[str, Any]]:
        """The calls as a message has them; raises Refusal if one is incomplete or they are much."""
        calls = [call for _, call in sorted(self._calls.items())]
        texts = ["".join(call.arguments) for call in calls]
        try:
            demand_small(texts)
        except TooMuch as error:
            raise _refusal(
                f"The arguments of the model's calls are too large for this API: {error}."
            ) from None
        return [
            {
                **({"id": call.id} if call.id else {}),
                "function": {
                    "index": index,
                    "name": call.name,
                    "arguments": _object(call.name, text),
                },
            }
            for index, (call, text) in enumerate(zip(calls, texts, strict=True))
        ]


def _object(name: str, text: str) -> dict[str, Any]:
    """Arguments as an object; some models encode the object as a string."""
    try:
        found = parsed(text)
        if isinstance(found, str):
            demand_small([found])
            found = parsed(found)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _refusal(
            f"The model called {name[:64]!r} with arguments that are not a JSON object, "
            "which this API cannot return; num_predict may have cut them off."
        )
    return found


def _refusal(why: str) -> Refusal:
    return Refusal(ServerFault, why, status=502)
