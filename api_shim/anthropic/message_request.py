"""POST /v1/messages: translates the body into a `ChatRequest`. Pure.

Source: anthropics/anthropic-sdk-python, MessageCreateParams. Tools that run at Anthropic are left
out and named, unless the request demands a call of one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeVar

from pydantic import ValidationError

from api_shim.anthropic.message_body import (
    AnthropicToolBody,
    MessagesBody,
    OutputFormatBody,
    PromptBody,
    ToolChoiceBody,
    invalid_field,
)
from api_shim.anthropic.turns import ToolChanges, TurnReader
from api_shim.http.problems import Refusal, message_of_translated
from api_shim.submission.ignored_fields import ignored
from contract.chat import (
    ChatRequest,
    Message,
    MessageNotes,
    NamedTool,
    ResponseFormat,
    SchemaFormat,
    TextFormat,
    Think,
    Tool,
)
from contract.conversations import key_of
from contract.requests import Request

AnyKind = TypeVar("AnyKind", bound=Request)
Choice = Literal["auto", "none", "required"] | NamedTool

_BETAS: Final = (
    "effort-", "fine-grained-tool-streaming-", "interleaved-thinking-", "message-batches-",
    "output-128k-", "structured-outputs-", "token-counting-",
)  # fmt: skip
"""Beginnings of `anthropic-beta` values that need nothing: what they allow is always allowed."""
_EFFORTS: Final[Mapping[str, Think]] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "xhigh",
}
_LOW_BUDGET: Final = 4096
_MEDIUM_BUDGET: Final = 16384
_NAMES: Final[Mapping[str, str]] = {"stop": "stop_sequences"}
"""Anthropic's names for fields of the contract, where they differ."""


class Translated(NamedTuple):
    """A request of the contract, and what of the body it does not express."""

    request: ChatRequest
    left_out: tuple[str, ...]
    """Names for X-Fleet-Ignored."""
    may_not_think: bool
    """Whether a model that cannot think is to answer without thinking."""


class EarlierTurns(NamedTuple):
    """What a request takes from the message that it continues."""

    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()


def to_request(
    body: MessagesBody, betas: Iterable[str] = (), earlier: EarlierTurns | None = None
) -> Translated:
    """The request; the body's messages are used up. Raises Refusal for what is not supported.

    `betas` are the values of the `anthropic-beta` header.
    """
    unused = ignored(body)
    prompt, names = to_prompt(body, earlier or EarlierTurns())
    think, may_not_think = to_think(body)
    only_reads = body.max_tokens == 0
    notes = MessageNotes(
        omits_thinking=bool(body.thinking and body.thinking.display == "omitted"),
        only_reads=only_reads,
    )
    request = build_request(
        ChatRequest,
        backend=body.backend,
        model=body.model,
        **prompt,
        response_format=to_format(body.format),
        think="auto" if only_reads else think,
        max_tokens=max(1, body.max_tokens),
        stop=tuple(word for word in body.stop_sequences or () if word),
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        priority="standard" if body.service_tier == "standard_only" else None,
        metadata={"user_id": body.metadata.user_id} if body.metadata else None,
        conversation=key_of(body.metadata.user_id) if body.metadata else None,
        message_notes=notes,
    )
    unknown = [f"anthropic-beta[{beta}]" for beta in betas if not beta.startswith(_BETAS)]
    return Translated(request, (*unused, *names, *unknown), may_not_think)


def to_counted(body: PromptBody) -> tuple[ChatRequest, tuple[str, ...]]:
    """A chat with the prompt to count, and names for X-Fleet-Ignored; raises Refusal."""
    unused = ignored(body)
    fields, names = to_prompt(body)
    prompt = {name: fields[name] for name in ("messages", "tools")}
    chat = build_request(ChatRequest, model=body.model, backend=body.backend, **prompt)
    return chat, (*unused, *names)


def to_prompt(
    body: PromptBody,
    earlier: EarlierTurns = EarlierTurns(),  # noqa: B008 - it is immutable
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Messages and tools as fields of a request, and the names of what is left out.

    Raises Refusal.
    """
    turns = TurnReader(earlier.messages).read(body.system, body.messages)
    tools, names = to_tools(body.tools or (), turns.tools)
    tools = tools if body.tools else (*earlier.tools, *tools)
    choice, parallel = to_choice(body.tool_choice, tools, body.tools or ())
    fields: dict[str, Any] = {
        "messages": turns.messages,
        "tools": tools,
        "tool_choice": choice,
        "parallel_tool_calls": parallel if tools else None,
    }
    return fields, (*turns.left_out, *names)


def to_tools(
    tools: Sequence[AnthropicToolBody], changes: ToolChanges
) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """The tools that the model is offered, and the names of those that are left out.

    Raises Refusal.
    """
    found: list[Tool] = []
    left_out: list[str] = []
    for at, tool in enumerate((*tools, *changes.defined)):
        if not tool.is_custom:
            left_out.append(f"tools[{tool.type}]")
        elif not tool.name:
            raise invalid_field(f"tools.{at}.name", "required")
        elif tool in tools and any(tool.name == other.name for other in found):
            raise invalid_field(f"tools.{at}.name", f"another tool is called {tool.name[:64]!r}")
        elif tool.name not in changes.removed and (
            not tool.defer_loading or tool.name in changes.added
        ):
            description, parameters = tool.description or "", tool.input_schema or {}
            found.append(
                Tool(
                    name=tool.name,
                    description=description,
                    parameters=parameters,
                    strict=tool.strict,
                )
            )
    return tuple(found), tuple(dict.fromkeys(left_out))


def to_choice(
    choice: ToolChoiceBody | None, tools: Sequence[Tool], sent: Sequence[AnthropicToolBody]
) -> tuple[Choice, bool | None]:
    """The tool choice, and whether several calls are allowed; raises Refusal."""
    if choice is None:
        return "auto", None
    parallel = (
        None if choice.disable_parallel_tool_use is None else not (choice.disable_parallel_tool_use)
    )
    match choice.type:
        case "auto" | "none":
            return "none" if choice.type == "none" else "auto", parallel
        case "any" if tools:
            return "required", parallel
        case "any":
            raise invalid_field("tool_choice", "a call is demanded, and no tool can be called here")
        case "tool":
            return _named(choice.name or "", tools, sent), parallel
        case other:
            raise invalid_field(
                "tool_choice.type", f"must be auto, any, tool or none, not {other[:40]!r}"
            )


def _named(name: str, tools: Sequence[Tool], sent: Sequence[AnthropicToolBody]) -> NamedTool:
    if name in {tool.name for tool in tools}:
        return NamedTool(name=name)
    kind = next((tool.type for tool in sent if tool.name == name and not tool.is_custom), None)
    if kind is not None:
        raise invalid_field(
            "tool_choice.name", f"{name[:64]!r} is of type {kind}, which a fleet does not have"
        )
    raise invalid_field("tool_choice.name", f"no tool is called {name[:64]!r}")


def to_format(format: OutputFormatBody | None) -> ResponseFormat:
    """The form of the response; raises Refusal."""
    match format:
        case None:
            return TextFormat()
        case OutputFormatBody(type="json_schema", schema_=dict(schema)):
            return SchemaFormat(schema_=schema)
        case OutputFormatBody(type="json_schema"):
            raise invalid_field("output_config.format.schema", "required with type json_schema")
        case _:
            raise invalid_field("output_config.format.type", "must be json_schema")


def to_think(body: MessagesBody) -> tuple[Think, bool]:
    """The reasoning effort, and whether the model may leave the thinking out; raises Refusal.

    Only `enabled` demands thinking: clients send `adaptive` and an effort to every model.
    """
    given = body.output_config.effort if body.output_config else None
    if given is not None and given not in _EFFORTS:
        raise invalid_field("output_config.effort", f"must be one of {', '.join(_EFFORTS)}")
    effort: Think = _EFFORTS[given] if given is not None else "auto"
    match body.thinking and body.thinking.type:
        case "disabled":
            return "off", True
        case "enabled":
            budget = body.thinking.budget_tokens if body.thinking else None
            return (_level(budget) if given is None else effort), False
        case None | "adaptive" | "between_tools":
            return effort, True
        case other:
            raise invalid_field(
                "thinking.type",
                f"must be enabled, adaptive, between_tools or disabled, not {str(other)[:40]!r}",
            )


def _level(budget: int | None) -> Think:
    if budget is None:
        return "on"
    if budget < _LOW_BUDGET:
        return "low"
    return "medium" if budget < _MEDIUM_BUDGET else "high"


def build_request(kind: type[AnyKind], **fields: Any) -> AnyKind:
    """A request of the contract from these fields, without those that are None.

    Raises Refusal with Anthropic's names of the fields.
    """
    try:
        return kind(**{name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        path = [str(step) for step in first["loc"] if not str(step).startswith("tuple[")]
        path[:1] = [_NAMES.get(name, name) for name in path[:1]]
        raise _invalid(".".join(path) or "body", message_of_translated(first)) from None


def _invalid(field: str, message: str) -> Refusal:
    return invalid_field(field, message)
