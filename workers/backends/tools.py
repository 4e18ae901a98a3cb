"""Tools on the wire: how one is described to a model, and how the arguments of a call come back."""

from typing import Any

from contract.chat import Tool
from contract.json_lines import json_line


def described(tool: Tool, *, strict: bool = False) -> dict[str, Any]:
    """A tool as Ollama and OpenAI-shaped servers take it; templates expect an object's schema.

    `strict`: whether the server knows that word.
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
    """Arguments as JSON text, whether they came as text, as an object or as null.

    Ollama always sends an object, llama-server did for a while (llama.cpp #20198).
    """
    if arguments is None or arguments == "":
        return "{}"
    return arguments if isinstance(arguments, str) else json_line(arguments).decode()
