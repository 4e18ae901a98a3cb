"""OpenAI's tools, and what the answer must look like, as the contract has them. Pure.

Source: openai/openai-openapi, ChatCompletionTool, ChatCompletionToolChoiceOption, ResponseFormat*.
"""

from typing import Any, Literal

from pydantic import Field

from api_shim.openai.request_fields import Body, unsupported, wrong
from contract.chat import (
    JsonFormat,
    NamedTool,
    ResponseFormat,
    SchemaFormat,
    TextFormat,
    Tool,
)

Choice = Literal["auto", "none", "required"] | NamedTool


class FunctionBody(Body):
    """A function that the model may call."""

    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema."""
    strict: bool | None = None
    """Whether the arguments of calls must be of that schema, where the backend can promise it."""


class ToolBody(Body):
    """A tool; only functions are passed on."""

    type: str = "function"
    function: FunctionBody | None = None


class FormatBody(Body):
    """What the answer must look like: `text`, `json_object` or `json_schema`."""

    type: str
    json_schema: "SchemaBody | None" = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    """With `json_object`, as llama-server's clients say it."""


class SchemaBody(Body):
    """A schema, and its name."""

    name: str = "answer"
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


def to_tools(
    tools: list[ToolBody] | None, functions: list[FunctionBody] | None
) -> tuple[Tool, ...]:
    """The tools, those of the deprecated `functions` as well; raises Refusal."""
    found: list[Tool] = []
    for at, tool in enumerate(tools or ()):
        if tool.type != "function":
            raise unsupported(
                f"tools.{at}.type",
                f"tools of type {tool.type[:40]!r} run at OpenAI; only functions are passed on",
            )
        if tool.function is None:
            raise wrong(f"tools.{at}.function", "required")
        found.append(_tool(tool.function))
    return (*found, *(_tool(function) for function in functions or ()))


def _tool(function: FunctionBody) -> Tool:
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=function.parameters or {},
        strict=function.strict,
    )


def to_choice(choice: str | dict[str, Any] | None, tools: tuple[Tool, ...]) -> tuple[Choice, Any]:
    """How the model may choose, and the tools among which; raises Refusal."""
    match choice:
        case None:
            return "auto", tools
        case "auto" | "none" | "required":
            return choice, tools
        case {"type": "function", "function": {"name": str(name)}}:
            return _named(name, tools), tools
        case {"name": str(name), **rest} if rest.get("type", "function") == "function":
            return _named(name, tools), tools
        case {"type": "allowed_tools", "allowed_tools": {"tools": list(allowed), **rest}}:
            names = {_allowed(each) for each in allowed}
            mode: Choice = "required" if rest.get("mode") == "required" else "auto"
            return mode, tuple(tool for tool in tools if tool.name in names)
        case _:
            raise wrong("tool_choice", "it is none, auto, required, or names a function of `tools`")


def _allowed(tool: object) -> str:
    match tool:
        case {"function": {"name": str(name)}}:
            return name
        case _:
            raise wrong("tool_choice.allowed_tools.tools", "each names a function of `tools`")


def _named(name: str, tools: tuple[Tool, ...]) -> NamedTool:
    if name not in {tool.name for tool in tools}:
        raise wrong("tool_choice", f"no tool is called {name[:64]!r}")
    return NamedTool(name=name)


def to_format(format: FormatBody | None) -> ResponseFormat:
    """What the answer must look like; raises Refusal."""
    match format:
        case None | FormatBody(type="text"):
            return TextFormat()
        case FormatBody(type="json_object", schema_=dict(schema)):
            return SchemaFormat(schema_=schema, strict=False)
        case FormatBody(type="json_object"):
            return JsonFormat()
        case FormatBody(type="json_schema", json_schema=SchemaBody() as told):
            return SchemaFormat(
                schema_=told.schema_ or {}, name=told.name, strict=bool(told.strict)
            )
        case FormatBody(type="json_schema"):
            raise wrong("response_format.json_schema", "required with type json_schema")
        case _:
            raise wrong("response_format.type", "it is text, json_object or json_schema")
