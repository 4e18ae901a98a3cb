"""POST /v1/responses: translates the body into a `ChatRequest`. Pure.

Source: openai/openai-openapi, CreateResponse.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from typing_extensions import override

from api_shim.http.problems import Refusal
from api_shim.openai.chat_request import Choice, StreamOptions, to_choice, to_think
from api_shim.openai.request_fields import (
    CacheKey,
    OpenAIRequest,
    OpenAIRequestBody,
    build_request,
    invalid_field,
    unsupported_field,
)
from api_shim.openai.responses.items import (
    EarlierResponses,
    ItemBody,
    job_of,
    passed_over,
    to_messages,
)
from api_shim.openai.responses.response_tools import (
    ResponseToolBody,
    allowed_functions,
    demand_known,
    echoed,
    left_out,
    to_functions,
)
from api_shim.submission.ignored_fields import IgnoredField
from contract.chat import (
    ChatRequest,
    JsonFormat,
    Message,
    ResponseFormat,
    ResponseNotes,
    SchemaFormat,
    TextFormat,
    Tool,
)
from contract.conversations import key_of
from contract.redis_keys import JOB_ID
from contract.requests import Word

BACKGROUND_DEADLINE_S: Final = 86400.0
"""No client waits for a background response, so a bound keeps it from holding a slot for ever."""
_RESPONSE: Final = "resp_"
_WITH_LIKELIHOODS: Final = "message.output_text.logprobs"
_ECHOED: Final = frozenset(
    {
        "max_output_tokens", "max_tool_calls", "metadata", "parallel_tool_calls",
        "prompt_cache_key", "reasoning", "safety_identifier", "temperature", "text",
        "tool_choice", "top_logprobs", "top_p", "truncation", "user",
    }
)  # fmt: skip


class ResponseFormatBody(OpenAIRequestBody):
    """The format of the response: `text`, `json_object` or `json_schema`."""

    type: Word
    name: Word | None = None
    description: Annotated[str | None, IgnoredField()] = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseTextBody(OpenAIRequestBody):
    """Options of the response's text."""

    format: ResponseFormatBody | None = None
    verbosity: Annotated[Word | None, IgnoredField(unless=("medium",))] = None
    """Sent to no backend."""


class ResponseReasoningBody(OpenAIRequestBody):
    """Reasoning options."""

    effort: Word | None = None
    """none, minimal, low, medium, high, xhigh or max."""
    summary: Word | None = None
    """Any value: reasoning is in `summary` instead of `content`, where some clients expect it."""
    generate_summary: Word | None = None
    """Deprecated: `summary`."""


class ResponsePromptBody(OpenAIRequest):
    """What a response is asked for, as it is answered or counted."""

    input: str | list[ItemBody] | None = None
    """A text or a list of items; may be omitted with a `previous_response_id`."""
    instructions: str | None = None
    """A system message for this response only."""
    previous_response_id: Word | None = None
    """The response to continue."""
    tools: list[ResponseToolBody] | None = None
    tool_choice: Word | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    conversation: Word | dict[str, Any] | None = None
    """Refused: use `previous_response_id`."""

    @property
    @override
    def field_names(self) -> Mapping[str, str]:
        return {"max_tokens": "max_output_tokens", "messages": "input"}

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of tools and items that are left out, for X-Fleet-Ignored."""
        items = self.input if isinstance(self.input, list) else ()
        return (*left_out(self.tools or ()), *passed_over(items))

    @property
    def previous_job(self) -> str | None:
        """The job of the response to continue; raises Refusal."""
        given = self.previous_response_id
        if given is None:
            return None
        job_id = job_of_response(given)
        if job_id is None:
            raise no_previous(given)
        return job_id

    @property
    def named_jobs(self) -> frozenset[str]:
        """The jobs whose items the input references."""
        items = self.input if isinstance(self.input, list) else ()
        named = {job_of(item.id or "") for item in items if item.type == "item_reference"}
        return frozenset(job for job in named if job is not None)


class ResponseBody(ResponsePromptBody):
    """A response to create."""

    background: bool | None = None
    """Return at once; retrieve or follow the response by its id."""
    store: bool | None = None
    """Whether it can be retrieved later; the default is true."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    text: ResponseTextBody | None = None
    reasoning: ResponseReasoningBody | None = None
    max_output_tokens: int | None = None
    max_tool_calls: Annotated[int | None, IgnoredField()] = None
    """Sent to no backend: there are no tools but the client's own."""
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[Word] | None = None
    """`message.output_text.logprobs`; others are reported as ignored."""
    truncation: Literal["auto", "disabled"] | None = None
    """Whether to cut a conversation that is too long (`auto`) or refuse it, where the backend can.
    """
    prompt_cache_key: CacheKey | None = None
    """Names the conversation, whose messages go to the address that has their prefix."""
    safety_identifier: Annotated[Annotated[str, Field(max_length=4096)] | None, IgnoredField()] = (
        None
    )
    prompt: dict[str, Any] | None = None
    """Refused: prompt templates are stored at OpenAI."""

    @property
    @override
    def unused_fields(self) -> tuple[str, ...]:
        """Fields that have no effect beside the others."""
        include = self.include or ()
        others = [each for each in include if each != _WITH_LIKELIHOODS]
        alone = () if _WITH_LIKELIHOODS in include else ("top_logprobs",)
        return (*alone, *(["include"] if others else []))


def job_of_response(response_id: str) -> str | None:
    """The job of a response; None if the id is invalid."""
    job_id = response_id.removeprefix(_RESPONSE)
    is_ours = job_id != response_id and JOB_ID.match(job_id)
    return job_id if is_ours else None


def no_previous(response_id: str) -> Refusal:
    """The error for a previous response that does not exist; clients know its code.

    Source: maximhq/bifrost #2441, lmstudio-bug-tracker #1188.
    """
    return invalid_field(
        "previous_response_id",
        f"previous response with id {response_id[:64]!r} not found: it was never stored, or has "
        "expired; send the conversation as `input`",
        code="previous_response_not_found",
    )


def to_request(body: ResponseBody, earlier: EarlierResponses) -> ChatRequest:
    """The request; the body's items are used up. Raises Refusal for what is not supported."""
    _check_supported(body)
    is_background = bool(body.background)
    return build_request(
        ChatRequest,
        body,
        **_prompt(body, earlier),
        response_format=_format(body.text.format if body.text else None),
        think=to_think(body.reasoning.effort, "reasoning.effort") if body.reasoning else None,
        max_tokens=body.max_output_tokens,
        conversation=key_of(body.prompt_cache_key),
        temperature=body.temperature,
        top_p=body.top_p,
        logprobs=_WITH_LIKELIHOODS in (body.include or ()),
        top_logprobs=body.top_logprobs,
        truncate=None if body.truncation is None else body.truncation == "auto",
        on_disconnect="continue" if is_background else None,
        deadline_s=BACKGROUND_DEADLINE_S if is_background else None,
        response_notes=ResponseNotes(
            background=is_background,
            stored=body.store is not False,
            has_instructions=bool(body.instructions),
            chain=earlier.chain,
            echo=body.model_dump(
                mode="json", by_alias=True, exclude_none=True, include=set(_ECHOED)
            )
            | echoed(body.tools),
        ),
    )


def to_counted(body: ResponsePromptBody, earlier: EarlierResponses) -> ChatRequest:
    """A chat with the prompt to count; raises Refusal for what is not supported."""
    prompt = _prompt(body, earlier)
    return build_request(ChatRequest, body, messages=prompt["messages"], tools=prompt["tools"])


def _prompt(body: ResponsePromptBody, earlier: EarlierResponses) -> dict[str, Any]:
    """Messages and tools as fields of a request; raises Refusal."""
    if body.conversation is not None:
        raise unsupported_field(
            "conversation", "conversations are not stored: use previous_response_id"
        )
    choice, tools = _choice(demand_known(body.tool_choice), to_functions(body.tools or ()))
    return {
        "messages": _messages(body, earlier),
        "tools": tools,
        "tool_choice": choice,
        "parallel_tool_calls": body.parallel_tool_calls,
    }


def _check_supported(body: ResponseBody) -> None:
    if body.prompt is not None:
        raise unsupported_field(
            "prompt", "prompt templates are not stored: send instructions and input"
        )
    if body.background and body.store is False:
        raise invalid_field("store", "a background response must be stored to be retrieved")


def _messages(body: ResponsePromptBody, earlier: EarlierResponses) -> tuple[Message, ...]:
    items = body.input
    if isinstance(items, str):
        items = [ItemBody(role="user", content=items)]
    if not items and not earlier.past:
        raise invalid_field("input", "required without previous_response_id")
    system = (Message(role="system", content=body.instructions),) if body.instructions else ()
    kinds = ", ".join(sorted({item.type for item in items or ()}))
    messages = (*system, *earlier.past, *to_messages(items or [], earlier))
    if not messages:
        raise invalid_field("input", f"says nothing to a model: only items of type {kinds[:200]}")
    return messages


def _choice(
    choice: str | dict[str, Any] | None, tools: tuple[Tool, ...]
) -> tuple[Choice, tuple[Tool, ...]]:
    """As for a chat, where `allowed_tools` is nested one level deeper."""
    match choice:
        case {"type": "allowed_tools", "tools": list(allowed), **rest}:
            named = [{"function": each} for each in allowed_functions(allowed)]
            inner = {"tools": named, "mode": rest.get("mode")}
            return to_choice({"type": "allowed_tools", "allowed_tools": inner}, tools)
        case _:
            return to_choice(choice, tools)


def _format(format: ResponseFormatBody | None) -> ResponseFormat:
    match format:
        case None | ResponseFormatBody(type="text"):
            return TextFormat()
        case ResponseFormatBody(type="json_object"):
            return JsonFormat()
        case ResponseFormatBody(type="json_schema", schema_=dict(schema)):
            name, strict = format.name or "answer", bool(format.strict)
            return SchemaFormat(schema_=schema, name=name, strict=strict)
        case ResponseFormatBody(type="json_schema"):
            raise invalid_field("text.format.schema", "required with type json_schema")
        case _:
            raise invalid_field("text.format.type", "must be text, json_object or json_schema")
