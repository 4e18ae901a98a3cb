"""The body of POST /v1/messages and of its parts. Pure.

Source: the request types of anthropics/anthropic-sdk-python. Unknown fields are accepted, because
real clients send them, and reported; invalid values of known fields are refused.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from api_shim.bodies.joined_texts import join_plain
from api_shim.http.problems import FieldError, Refusal
from api_shim.submission.ignored_fields import IgnoredField, LenientModel
from contract.chat import CalledName, CallId, StopText
from contract.errors import FleetError, InvalidRequest, NotSupported
from contract.requests import LONGEST_METADATA, Word

LINE: Final = "\n"
"""Between the texts of a turn of the user."""


class AnthropicRequestBody(LenientModel):
    """A part of a request's body; unknown fields are reported in X-Fleet-Ignored."""


CacheControl = Annotated[dict[str, Any] | None, IgnoredField()]
"""Where a prompt may be cached: backends decide that themselves."""


def _of_lines(blocks: Any) -> Any:
    return join_plain(blocks, LINE)


_OfResult: Final = BeforeValidator(_of_lines)


class SourceBody(AnthropicRequestBody):
    """Where the bytes or the text of an image or a document are."""

    type: Word
    """`base64`, `url`, `text` or `content`; files of Anthropic's are refused."""
    media_type: Word | None = None
    data: str | None = None
    url: str | None = None
    content: Annotated["str | list[BlockBody] | None", _OfResult] = None


class ToolChangeBody(AnthropicRequestBody):
    """A tool that becomes available in the middle of a conversation, or is withdrawn."""

    type: Word
    """`tool_reference` or `tool_definition`."""
    name: CalledName | None = None
    definition: "AnthropicToolBody | None" = None


class BlockBody(AnthropicRequestBody):
    """A block of a message's content; which fields it has depends on its type."""

    type: Word
    """`text`, `image`, `document`, `search_result`, `thinking`, `redacted_thinking`, `tool_use`,
    `tool_result`, `tool_reference`, `tool_addition` or `tool_removal`; blocks of tools that run at
    Anthropic are left out."""
    text: str | None = None
    source: SourceBody | str | None = None
    """Of a search result, a text."""
    title: str | None = None
    context: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: CallId | None = None
    name: CalledName | None = None
    input: dict[str, Any] | None = None
    tool_use_id: CallId | None = None
    content: Annotated["str | list[BlockBody] | dict[str, Any] | None", _OfResult] = None
    """An object only in results of tools that run at Anthropic."""
    is_error: bool | None = None
    tool_name: CalledName | None = None
    """Of a tool reference: the tool that becomes known with it."""
    tool: ToolChangeBody | None = None
    cache_control: CacheControl = None
    citations: Annotated[Any, IgnoredField()] = None
    """No backend cites."""


Content = str | list[BlockBody]


class TurnBody(AnthropicRequestBody):
    """A message."""

    role: Literal["user", "assistant", "system"]
    """A system message in the middle becomes a part of the user's turn."""
    content: Content

    @field_validator("content", mode="before")
    @classmethod
    def _of_plain_texts(cls, content: Any, info: ValidationInfo) -> Any:
        """As the turn is translated: lines of the user, one text of the assistant."""
        role = info.data.get("role")
        between = {"user": LINE, "assistant": ""}.get(str(role))
        return content if between is None else join_plain(content, between)


class AnthropicToolBody(AnthropicRequestBody):
    """A tool; those that run at Anthropic, or whose schema only Claude knows, are left out."""

    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    type: Word | None = None
    """`custom`, or the versioned name of one of Anthropic's."""
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    """The tool is not offered before a tool reference names it."""
    cache_control: CacheControl = None
    eager_input_streaming: Annotated[bool | None, IgnoredField(unless=(True,))] = None
    """Arguments are always streamed as they are generated."""

    @property
    def is_custom(self) -> bool:
        """Whether the client runs it and has sent its schema."""
        return self.type in {None, "custom"}


class ToolChoiceBody(AnthropicRequestBody):
    """Which tools the model may, or must, call."""

    type: Word
    """`auto`, `any`, `tool` or `none`."""
    name: CalledName | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingBody(AnthropicRequestBody):
    """Whether the model thinks."""

    type: Word
    """`enabled`, `adaptive`, `between_tools` or `disabled`."""
    budget_tokens: int | None = None
    """Becomes a level: low below 4,096, medium below 16,384, else high."""
    display: Word | None = None
    """`omitted`: the response has thinking blocks without their text."""


class ThreadBody(AnthropicRequestBody):
    """A conversation of which the client sends new messages only."""

    type: Literal["create", "continue"]
    previous_message_id: Word | None = None
    """The message that this request continues, with its prompt, system prompt and tools."""


class OutputFormatBody(AnthropicRequestBody):
    """The JSON schema of the response."""

    type: Word
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class OutputBody(AnthropicRequestBody):
    """The form of the response."""

    effort: Word | None = None
    """low, medium, high, xhigh or max."""
    format: OutputFormatBody | None = None


class UserBody(AnthropicRequestBody):
    """The client's name for its user."""

    user_id: Annotated[str, Field(max_length=LONGEST_METADATA)] | None = None
    """Kept with the job, and sent to no backend. It names the conversation: Claude Code puts its
    session there."""


class PromptBody(AnthropicRequestBody):
    """A conversation, as it is continued or counted."""

    model: Word
    """As listed by `GET /v1/models`."""
    messages: Annotated[list[TurnBody], Field(min_length=1)]
    system: Content | None = None
    tools: list[AnthropicToolBody] | None = None
    tool_choice: ToolChoiceBody | None = None
    thinking: ThinkingBody | None = None
    output_config: OutputBody | None = None
    output_format: OutputFormatBody | None = None
    """The older place of `output_config.format`."""
    cache_control: CacheControl = None
    backend: Word | None = None
    """Name of the backend, an addition of ours for fleets where several have the model."""

    @property
    def format(self) -> OutputFormatBody | None:
        """The form of the response, whichever field has it."""
        return (self.output_config.format if self.output_config else None) or self.output_format


class MessagesBody(PromptBody):
    """A conversation to continue."""

    max_tokens: Annotated[int, Field(ge=0)]
    """Most tokens of the response. 0: the backend reads the prompt, and the response is empty."""
    stream: bool | None = None
    stop_sequences: list[StopText] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    metadata: UserBody | None = None
    thread: ThreadBody | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    """`auto` leaves the priority to the fleet, `standard_only` is priority standard."""


def invalid_field(
    field: str, message: str, *, error: type[FleetError] = InvalidRequest, remedy: str = "change it"
) -> Refusal:
    """An error that names a field."""
    detail = FieldError(field=field, where="body", code=error.code, message=message, remedy=remedy)
    return Refusal(error, f"{field}: {message}", errors=(detail,))


def unsupported_field(field: str, message: str) -> Refusal:
    """An error for something that a fleet does not have."""
    return invalid_field(field, message, error=NotSupported, remedy="leave it out")
