"""Tools of `/v1/responses` as functions, and the calls of these functions as what they were. Pure.

Backends know functions alone. The tools of a `namespace` become functions whose names begin with
the namespace's; a `custom` tool, which takes free text, becomes a function with one text. Calls are
given back as the client knows them. Tools that run at OpenAI are left out and named, unless the
request demands a call of one. Source: openai/openai-openapi, Tool.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple

from pydantic import Field
from typing_extensions import override

from api_shim.openai.request_fields import OpenAIRequestBody, invalid_field, unsupported_field
from contract.chat import Tool
from contract.json_lines import json_line
from contract.json_texts.arguments import demand_small, parsed
from contract.requests import Word

_INPUT: Final = "input"
_BETWEEN: Final = "__"
_LONGEST: Final = 64
_CALLED: Final = frozenset({"function", "custom"})
"""Types of tools that become functions."""
_TEXT: Final = {
    "type": "object",
    "properties": {_INPUT: {"type": "string"}},
    "required": [_INPUT],
    "additionalProperties": False,
}
"""The parameters of the function that a custom tool becomes."""


class ResponseToolBody(OpenAIRequestBody):
    """A tool: a function, a custom tool or a namespace of these; others are left out."""

    type: Word = "function"
    name: str | None = Field(default=None, min_length=1, max_length=128)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema."""
    strict: bool | None = None
    """Whether arguments must match the schema, where the backend can enforce it."""
    format: dict[str, Any] | None = None
    """The grammar of a custom tool's text; the model is told it, no backend enforces it."""
    tools: "list[ResponseToolBody] | None" = None
    """Of a namespace."""

    @property
    @override
    def unused_fields(self) -> tuple[str, ...]:
        """A function has no place for what is said of its whole namespace."""
        return ("description",) if self.type == "namespace" else ()


def echoed(tools: list[ResponseToolBody] | None) -> dict[str, Any]:
    """The tools as the response repeats them; a dump would copy all objects of their schemas."""
    if tools is None:
        return {}
    given = [{name: value for name, value in tool if value is not None} for tool in tools]
    return {"tools": [fields | echoed(fields.get("tools")) for fields in given]}


class ClientTool(NamedTuple):
    """A tool as the client knows it."""

    kind: Literal["function", "custom"]
    name: str
    namespace: str | None = None

    @property
    def extra(self) -> dict[str, Any]:
        """The namespace, as a field of a call."""
        return {"namespace": self.namespace} if self.namespace else {}


def function_name(name: str, namespace: str | None) -> str:
    """The name of the function that a tool becomes.

    Backends take 64 characters: of a longer name the last ones are a digest of all.
    """
    whole = f"{namespace}{_BETWEEN}{name}" if namespace else name
    if not namespace or len(whole) <= _LONGEST:
        return whole
    digest = blake2b(whole.encode(), digest_size=4).hexdigest()
    return f"{whole[: _LONGEST - len(digest) - 1]}_{digest}"


def to_functions(tools: Iterable[ResponseToolBody]) -> tuple[Tool, ...]:
    """The functions that the model is offered; raises Refusal.

    Different tools may not become one function, because its calls could not be told apart.
    """
    found: list[Tool] = []
    known: dict[str, tuple[str, str | None]] = {}
    for field, tool, namespace in _flat(tools):
        if tool.name is None:
            raise invalid_field(f"{field}.name", "required")
        name, own = function_name(tool.name, namespace), (tool.type, namespace)
        if known.setdefault(name, own) != own:
            raise invalid_field(f"{field}.name", f"another tool is the function {name!r}, too")
        found.append(_function(name, tool))
    return tuple(found)


def _flat(
    tools: Iterable[ResponseToolBody],
) -> Iterator[tuple[str, ResponseToolBody, str | None]]:
    """Functions and custom tools, each with its field's name and its namespace."""
    for at, tool in enumerate(tools):
        inner = enumerate(tool.tools or ()) if tool.type == "namespace" else ()
        offered = [(f"tools.{at}.tools.{number}", each, tool.name) for number, each in inner]
        for entry in offered or [(f"tools.{at}", tool, None)]:
            if entry[1].type in _CALLED:
                yield entry


def _function(name: str, tool: ResponseToolBody) -> Tool:
    description, parameters = tool.description or "", tool.parameters or {}
    if tool.type == "custom":
        description, parameters = _with_grammar(description, tool.format), _TEXT
    return Tool(name=name, description=description, parameters=parameters, strict=tool.strict)


def _with_grammar(description: str, format: Mapping[str, Any] | None) -> str:
    definition = (format or {}).get("definition")
    if not isinstance(definition, str):
        return description
    syntax = (format or {}).get("syntax")
    return f"{description}\n\n`{_INPUT}` must follow this grammar ({syntax}):\n{definition}".strip()


def left_out(tools: Iterable[ResponseToolBody]) -> tuple[str, ...]:
    """Names of the tools that run at OpenAI, for X-Fleet-Ignored."""
    all_tools = [
        each
        for tool in tools
        for each in ((tool.tools or ()) if tool.type == "namespace" else (tool,))
    ]
    return tuple(dict.fromkeys(f"tools[{t.type}]" for t in all_tools if t.type not in _CALLED))


def allowed_functions(allowed: Iterable[object]) -> list[Any]:
    """The functions among the tools that a choice allows; raises Refusal if none is one.

    Those that run at OpenAI are left out, as they are of `tools`.
    """
    kinds = [(each.get("type") if isinstance(each, dict) else None, each) for each in allowed]
    found = [each for kind, each in kinds if kind is None or kind in _CALLED]
    if kinds and not found:
        raise unsupported_field(
            "tool_choice", f"tools of type {str(kinds[0][0])[:40]!r} run at OpenAI, and a fleet "
            "has none"
        )  # fmt: skip
    return [demand_known(each) if isinstance(each, dict) else each for each in found]


def demand_known(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """The tool choice with a tool as the function that it becomes; raises Refusal."""
    match choice:
        case {"type": "function" | "custom", "name": str(name), **rest}:
            namespace = rest.get("namespace")
            inside = namespace if isinstance(namespace, str) else None
            return {"type": "function", "name": function_name(name, inside)}
        case {"type": str(kind)} if kind not in {"function", "allowed_tools"}:
            raise unsupported_field(
                "tool_choice", f"tools of type {kind[:40]!r} run at OpenAI, and a fleet has none"
            )
        case _:
            return choice


def client_tools(echoed: object) -> dict[str, ClientTool]:
    """The client's tools by the names of their functions, from the tools of a request as JSON.

    Models leave the namespace out at times: a name that only one tool has is enough.
    """
    found: dict[str, ClientTool] = {}
    names: list[str] = []
    for tool in _objects(echoed):
        is_space = tool.get("type") == "namespace"
        for each in _objects(tool.get("tools")) if is_space else (tool,):
            _add(found, each, tool.get("name") if is_space else None)
            names.append(str(each.get("name")))
    alone = {tool.name: tool for tool in found.values() if names.count(tool.name) == 1}
    return {**alone, **found}


def _add(found: dict[str, ClientTool], tool: Mapping[str, Any], namespace: str | None) -> None:
    name, kind = str(tool.get("name")), tool.get("type")
    if kind == "custom":
        found[function_name(name, namespace)] = ClientTool("custom", name, namespace)
    elif namespace:
        found[function_name(name, namespace)] = ClientTool("function", name, namespace)


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    return (each for each in (value if isinstance(value, list) else ()) if isinstance(each, dict))


def text_of(arguments: str) -> str:
    """The text in the arguments of a custom tool's function; a model may send it bare.

    Arguments that hold too much to be parsed are the text.
    """
    try:
        demand_small([arguments])
        found = parsed(arguments)
    except ValueError:
        return arguments
    texts = list(found.values()) if isinstance(found, dict) else [found]
    text = found.get(_INPUT) if isinstance(found, dict) else None
    if isinstance(text, str):
        return text
    return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else arguments


def arguments_of(text: str) -> str:
    """The arguments of a custom tool's function with this text."""
    return json_line({_INPUT: text}).decode()
