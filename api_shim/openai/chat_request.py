"""POST /v1/chat/completions: translates the body into a `ChatRequest`. Pure.

Source: openai/openai-openapi, CreateChatCompletionRequest. `top_k`, `min_p`, `reasoning` and
`chat_template_kwargs` are additions of vLLM, llama-server and OpenRouter.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field
from typing_extensions import override

from api_shim.bodies.joined_texts import join_plain, json_text, taken
from api_shim.openai.request_fields import (
    CacheKey,
    OpenAIRequest,
    OpenAIRequestBody,
    build_request,
    image_part,
    invalid_field,
    unsupported_field,
)
from api_shim.submission.ignored_fields import IgnoredField
from contract.chat import (
    DETAILS,
    CalledName,
    CallId,
    ChatRequest,
    JsonFormat,
    Message,
    NamedTool,
    Part,
    ResponseFormat,
    Role,
    SchemaFormat,
    StopText,
    TextFormat,
    TextPart,
    Think,
    Tool,
    ToolCall,
    thoughts_in,
)
from contract.conversations import key_of
from contract.requests import Word

_ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


_OF_ASSISTANTS: Final = (
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "tool_calls",
    "function_call",
    "tool_call_id",
    "name",
)
_NOT_OF_ROLE: Final[dict[str, tuple[str, ...]]] = {
    "assistant": ("tool_call_id", "name"),
    "tool": _OF_ASSISTANTS[:-2],
    "function": _OF_ASSISTANTS[:-2],
}
"""Fields that have no effect in messages of a role; for other roles all of the assistant's."""


class ImageUrl(OpenAIRequestBody):
    """The URL of an image."""

    url: str = Field(min_length=1)
    """http(s), or a data URL with base64."""
    detail: Annotated[Word | None, IgnoredField(unless=("auto",))] = None
    """The backend decides."""


class ContentPartBody(OpenAIRequestBody):
    """A part of a message's content."""

    type: Word
    """`text`, `image_url` or `refusal`; audio and files are refused."""
    text: str | None = None
    image_url: ImageUrl | str | None = None
    refusal: str | None = None


class FunctionCall(OpenAIRequestBody):
    """A function's name and arguments."""

    name: CalledName
    arguments: str | dict[str, Any] | None = None
    """JSON text."""


class ToolCallBody(OpenAIRequestBody):
    """A tool call of the assistant."""

    id: CallId | None = None
    type: Word = "function"
    function: FunctionCall | None = None
    extra_content: dict[str, Any] | None = None
    """Opaque data that the backend needs back with the call (Gemini's thought signature)."""


class MessageBody(OpenAIRequestBody):
    """A message."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[str | list[ContentPartBody] | None, BeforeValidator(join_plain)] = None
    name: CalledName | None = None
    tool_calls: list[ToolCallBody] | None = None
    tool_call_id: CallId | None = None
    function_call: FunctionCall | None = None
    """Deprecated: a tool call without an id."""
    reasoning_content: str | None = None
    """The assistant's reasoning, sent back to backends that accept it."""
    reasoning: str | None = None
    """The same, as vLLM, Ollama and OpenRouter name it."""
    reasoning_details: list[dict[str, Any]] | None = None
    """The same as OpenRouter's parts, some of them signed or encrypted."""
    refusal: str | None = None
    extra_content: dict[str, Any] | None = None
    """Opaque data that the backend needs back with the message."""

    @property
    @override
    def unused_fields(self) -> tuple[str, ...]:
        """Fields that have no effect in a message of this role."""
        unused = _NOT_OF_ROLE.get(self.role, _OF_ASSISTANTS)
        twice = ("refusal",) if self.content else ()
        return (*unused, *twice)


def to_messages(messages: list[MessageBody]) -> tuple[Message, ...]:
    """The messages; the list is emptied. Raises Refusal for parts that no backend accepts."""
    return tuple(_message(f"messages.{at}", each) for at, each in enumerate(taken(messages)))


def _message(field: str, message: MessageBody) -> Message:
    content = _content(f"{field}.content", message.content)
    is_assistant = message.role == "assistant"
    if message.refusal and not content:
        content = message.refusal
    return Message(
        role=_ROLES[message.role],
        content=content,
        thinking=_thoughts(message) if is_assistant else None,
        tool_calls=tuple(_calls(field, message)) if is_assistant else (),
        tool_call_id=message.tool_call_id,
        tool_name=message.name if message.role in {"tool", "function"} else None,
        provider_meta=_meta(message) if is_assistant else message.extra_content,
    )


def _thoughts(message: MessageBody) -> str | None:
    """The assistant's reasoning, whichever field has it."""
    plain = message.reasoning_content or message.reasoning
    return plain or thoughts_in(message.reasoning_details or ()) or None


def _meta(message: MessageBody) -> dict[str, Any] | None:
    if not message.reasoning_details:
        return message.extra_content
    return {**(message.extra_content or {}), DETAILS: message.reasoning_details}


def _content(field: str, content: str | list[ContentPartBody] | None) -> str | tuple[Part, ...]:
    if content is None or isinstance(content, str):
        return content or ""
    parts = tuple(_part(f"{field}.{at}", part) for at, part in enumerate(content))
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    # Text alone is a string: some servers accept no parts.
    return _joined(texts) if len(texts) == len(parts) else parts


def _joined(texts: Sequence[str]) -> str:
    return "".join(texts)


def _part(field: str, part: ContentPartBody) -> Part:
    match part.type:
        case "text":
            return TextPart(text=part.text or "")
        case "refusal":
            return TextPart(text=part.refusal or "")
        case "image_url" if part.image_url:
            image = part.image_url
            return image_part(f"{field}.image_url", image if isinstance(image, str) else image.url)
        case "image_url":
            raise invalid_field(f"{field}.image_url", "required in a part of type image_url")
        case other:
            raise unsupported_field(
                f"{field}.type",
                f"parts of type {other[:40]!r} are not supported: use text or image_url",
            )


def _calls(field: str, message: MessageBody) -> Iterable[ToolCall]:
    for at, call in enumerate(message.tool_calls or ()):
        if call.type != "function" or call.function is None:
            raise unsupported_field(
                f"{field}.tool_calls.{at}.type", "only calls of type function are supported"
            )
        yield _call(call.function, id=call.id, provider_meta=call.extra_content)
    if message.function_call is not None:
        yield _call(message.function_call)


def _call(function: FunctionCall, **fields: Any) -> ToolCall:
    is_object = isinstance(function.arguments, dict)
    text = json_text(function, "arguments") if is_object else function.arguments
    return ToolCall(name=function.name, arguments=text or "{}", **fields)


Choice = Literal["auto", "none", "required"] | NamedTool


class FunctionBody(OpenAIRequestBody):
    """A function that the model may call."""

    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema."""
    strict: bool | None = None
    """Whether arguments must match the schema, where the backend can enforce it."""


class ToolBody(OpenAIRequestBody):
    """A tool; only functions are supported."""

    type: Word = "function"
    function: FunctionBody | None = None


class FormatBody(OpenAIRequestBody):
    """The format of the response: `text`, `json_object` or `json_schema`."""

    type: Word
    json_schema: "SchemaBody | None" = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    """With `json_object`, as llama-server accepts it."""


class SchemaBody(OpenAIRequestBody):
    """A JSON schema and its name."""

    name: Word = "answer"
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


def to_tools(
    tools: list[ToolBody] | None, functions: list[FunctionBody] | None
) -> tuple[Tool, ...]:
    """The tools, including those of the deprecated `functions`; raises Refusal."""
    found: list[Tool] = []
    for at, tool in enumerate(tools or ()):
        if tool.type != "function":
            raise unsupported_field(
                f"tools.{at}.type",
                f"tools of type {tool.type[:40]!r} run at OpenAI: only functions are supported",
            )
        if tool.function is None:
            raise invalid_field(f"tools.{at}.function", "required")
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
    """The tool choice, and the tools that it allows; raises Refusal."""
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
            raise invalid_field(
                "tool_choice", "must be none, auto, required, or name a function of `tools`"
            )


def _allowed(tool: object) -> str:
    match tool:
        case {"function": {"name": str(name)}}:
            return name
        case _:
            raise invalid_field(
                "tool_choice.allowed_tools.tools", "each must name a function of `tools`"
            )


def _named(name: str, tools: tuple[Tool, ...]) -> NamedTool:
    if name not in {tool.name for tool in tools}:
        raise invalid_field("tool_choice", f"no tool is called {name[:64]!r}")
    return NamedTool(name=name)


def to_format(format: FormatBody | None) -> ResponseFormat:
    """The format of the response; raises Refusal."""
    match format:
        case None | FormatBody(type="text"):
            return TextFormat()
        case FormatBody(type="json_object", schema_=dict(schema)):
            return SchemaFormat(schema_=schema, strict=False)
        case FormatBody(type="json_object"):
            return JsonFormat()
        case FormatBody(type="json_schema", json_schema=SchemaBody() as schema):
            return SchemaFormat(
                schema_=schema.schema_ or {}, name=schema.name, strict=bool(schema.strict)
            )
        case FormatBody(type="json_schema"):
            raise invalid_field("response_format.json_schema", "required with type json_schema")
        case _:
            raise invalid_field("response_format.type", "must be text, json_object or json_schema")


_THINK: Final[Mapping[str, Think]] = {
    "none": "off",
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "xhigh",
}


class StreamOptions(OpenAIRequestBody):
    """What a stream contains besides text."""

    include_usage: bool = False
    """Whether a last chunk without choices has the token counts."""
    include_obfuscation: Annotated[bool | None, IgnoredField(unless=(False,))] = None
    """Chunks are never padded, so text lengths are visible."""


class ReasoningBody(OpenAIRequestBody):
    """Reasoning options, as OpenRouter has them."""

    effort: Word | None = None
    enabled: bool | None = None


class TemplateBody(OpenAIRequestBody):
    """Arguments of the chat template, as vLLM and llama-server have them."""

    enable_thinking: bool | None = None


class Sampled(OpenAIRequest):
    """Sampling options, shared by chats and completions."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: StopText | list[StopText] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[Word, float] | None = None
    max_tokens: int | None = None
    """A negative number means no limit, as on local servers."""
    n: int | None = None
    """Only 1 is supported; send several requests for several responses."""

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatBody(Sampled):
    """A conversation to continue."""

    messages: Annotated[list[MessageBody], Field(min_length=1)]
    tools: list[ToolBody] | None = None
    tool_choice: Word | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionBody] | None = None
    """Deprecated: `tools`."""
    function_call: Word | dict[str, Any] | None = None
    """Deprecated: `tool_choice`."""
    response_format: FormatBody | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: Word | None = None
    """none, minimal, low, medium, high, xhigh or max."""
    reasoning: ReasoningBody | None = None
    """`{"effort": ...}` or `{"enabled": ...}`, as OpenRouter has it."""
    chat_template_kwargs: TemplateBody | None = None
    """`{"enable_thinking": ...}`, as vLLM and llama-server have it."""
    prompt_cache_key: CacheKey | None = None
    """Names the conversation, whose messages go to the address that has their prefix."""
    store: Annotated[bool | None, IgnoredField(unless=(False,))] = None
    """Chats cannot be retrieved later; responses can (`/v1/responses`)."""
    modalities: list[Word] | None = None
    """Only text is supported."""

    @property
    @override
    def field_names(self) -> Mapping[str, str]:
        is_new = self.max_completion_tokens is not None
        return {"max_tokens": "max_completion_tokens"} if is_new else {}


def to_chat(body: ChatBody) -> ChatRequest:
    """The request; the body's messages are used up. Raises Refusal for what is not supported."""
    if any(modality != "text" for modality in body.modalities or ()):
        raise unsupported_field("modalities", "only text is supported")
    tools = to_tools(body.tools, body.functions)
    choice, tools = to_choice(body.tool_choice or body.function_call, tools)
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    return build_request(
        ChatRequest,
        body,
        messages=to_messages(body.messages),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=to_format(body.response_format),
        think=_think(body),
        logprobs=bool(body.logprobs),
        top_logprobs=body.top_logprobs,
        conversation=key_of(body.prompt_cache_key),
        **sampling(body, limit),
    )


def sampling(body: Sampled, limit: int | None) -> dict[str, Any]:
    """The sampling options as fields of a `ChatRequest`; raises Refusal."""
    if body.n is not None and body.n != 1:
        raise unsupported_field("n", "must be 1: send several requests")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return {
        "max_tokens": None if limit is not None and limit < 0 else limit,
        "stop": tuple(word for word in stop if word),
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": None if body.top_k is not None and body.top_k < 0 else body.top_k,
        "min_p": body.min_p,
        "seed": body.seed,
        "frequency_penalty": body.frequency_penalty,
        "presence_penalty": body.presence_penalty,
        "logit_bias": body.logit_bias or None,
    }


def _think(body: ChatBody) -> Think:
    if body.reasoning_effort is not None:
        return to_think(body.reasoning_effort, "reasoning_effort")
    reasoning, template = body.reasoning or ReasoningBody(), body.chat_template_kwargs
    if reasoning.effort is not None:
        return to_think(reasoning.effort, "reasoning.effort")
    wish = reasoning.enabled
    if wish is None and template is not None:
        wish = template.enable_thinking
    return "auto" if wish is None else "on" if wish else "off"


def to_think(effort: str | None, field: str) -> Think:
    """The reasoning effort; raises Refusal that names the field."""
    if effort is None:
        return "auto"
    if effort not in _THINK:
        raise invalid_field(field, f"must be one of {', '.join(_THINK)}")
    return _THINK[effort]
