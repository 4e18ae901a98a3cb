"""Tools in the JSON of Ollama and OpenAI-shaped servers: definitions out, call arguments in."""

from typing import Any

from contract.chat import Tool
from contract.json_lines import json_line


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
