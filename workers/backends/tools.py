"""Tools in the JSON of Ollama and OpenAI-shaped servers: definitions out, calls in."""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from contract.chat import LONGEST_CALL_ID, LONGEST_CALLED, Tool
from contract.errors import BadAnswer
from contract.events import Delta, Event
from contract.json_lines import json_line
from contract.json_texts.arguments import MOST_CHARS


def tool_definition(tool: Tool, *, strict: bool = False) -> dict[str, Any]:
    """A tool definition, `{"type": "function", "function": {...}}`.

    A tool without parameters gets the schema of an empty object, which chat templates expect.
    `strict`: whether the server accepts the field `strict`.
    """
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
    }
    if strict and tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def arguments_text(arguments: Any) -> str:
    """The arguments of a call as JSON text; they may be text, an object or null.

    Ollama always sends an object, llama-server did for a while (llama.cpp #20198).
    """
    if arguments is None or arguments == "":
        return "{}"
    return arguments if isinstance(arguments, str) else json_line(arguments).decode()


Call = TypeVar("Call")
MOST_CALLS: Final = 1024
"""Of one answer, and fragments in one chunk: as many as a request may have tools."""


def few_calls(calls: Sequence[Call] | None) -> Sequence[Call]:
    """The calls of a chunk, none for null; raises BadAnswer if they are too many."""
    if len(calls or ()) > MOST_CALLS:
        raise BadAnswer(f"the backend's answer has more than {MOST_CALLS} tool calls in a chunk")
    return calls or ()


class CallBounds:
    """What the calls of one answer may hold: no more than can be sent back and parsed."""

    def __init__(self) -> None:
        """No call yet."""
        self._chars = 0

    def demand(self, event: Event) -> None:
        """Raise BadAnswer for an event with which there are too many calls, or too large ones.

        Calls are numbered from 0.
        """
        calls = event.tool_calls if isinstance(event, Delta) else None
        for call in calls or ():
            self._chars += len(call.arguments or "")
            if not 0 <= call.index < MOST_CALLS:
                raise BadAnswer(f"the backend's answer has more than {MOST_CALLS} tool calls")
            for what, length, most in (
                ("name", len(call.name or ""), LONGEST_CALLED),
                ("id", len(call.id or ""), LONGEST_CALL_ID),
                ("arguments", self._chars, MOST_CHARS),
            ):
                if length > most:
                    raise BadAnswer(
                        f"the backend's answer has tool calls with more than {most} characters"
                        f" of {what}"
                    )
