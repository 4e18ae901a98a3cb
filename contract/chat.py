"""Chat requests: messages, tools, and the same options for all backends."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, StrictBool, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from contract.conversations import ConversationKey, ConversationPolicy
from contract.images import ShownImage, labelled, normalized
from contract.requests import Request, Word
from contract.wire import ClientModel, WireModel

JobId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class ResponseNotes(WireModel):
    """Fields of a `/v1/responses` request that backends do not need."""

    background: StrictBool = False
    """Whether the client did not wait for the response."""
    stored: StrictBool = True
    """Whether the response can be retrieved later."""
    has_instructions: StrictBool = False
    """Whether the first message is `instructions`, which a response that continues this one does
    not inherit."""
    chain: tuple[JobId, ...] = ()
    """Jobs of the responses that this one continues, the oldest first; their input and output are
    in the messages."""
    echo: dict[str, Any] = Field(default_factory=dict)
    """Fields of the request that the response repeats unchanged."""


class MessageNotes(WireModel):
    """Fields of a `/v1/messages` request that backends do not need."""

    omits_thinking: StrictBool = False
    """Whether the response has the signatures of its thinking only, not the text."""
    only_reads: StrictBool = False
    """`max_tokens: 0`: the backend reads the prompt, and the response is empty."""


Think = Literal["auto", "off", "on", "minimal", "low", "medium", "high", "xhigh"]
"""Reasoning effort; `auto`: the backend's default, `on`: reasoning with the default effort."""
Role = Literal["system", "user", "assistant", "tool"]


DETAILS: Final = "reasoning_details"
"""Field of a message's `provider_meta` with OpenRouter's reasoning details, unchanged."""


def thoughts_in(details: Iterable[Mapping[str, Any]]) -> str:
    """The text of reasoning details; some hold a summary, encrypted ones hold no text."""
    texts = (each.get("text") or each.get("summary") for each in details)
    return "".join(text for text in texts if isinstance(text, str))


class TextPart(ClientModel):
    """A piece of text in a message."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(ClientModel):
    """An image in a message: base64 of its bytes, a data URL, or an http(s) URL."""

    type: Literal["image"] = "image"
    image: Annotated[ShownImage, Field(min_length=1)]

    @classmethod
    def of(cls, image: str) -> "ImagePart":
        """The part with this image, which is looked at once; raises ValueError with the reason."""
        return cls.model_construct(image=normalized(image))

    @classmethod
    def labelled(cls, media_type: str, data: str) -> "ImagePart":
        """The same for base64 that came beside its type."""
        return cls.model_construct(image=labelled(media_type, data))


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


LONGEST_CALL_ID: Final = 64 * 1024
"""Characters: proxies of other makers put signatures of thoughts into the ids of calls."""
LONGEST_CALLED: Final = 1024
"""Characters of a tool's name in a message: a model may have made it up."""
CallId = Annotated[str, Field(max_length=LONGEST_CALL_ID)]
CalledName = Annotated[str, Field(max_length=LONGEST_CALLED)]
LONGEST_STOP: Final = 4096
"""Characters."""
StopText = Annotated[str, Field(max_length=LONGEST_STOP)]
"""A text that ends an answer."""


class ToolCall(ClientModel):
    """A call that the assistant made; `arguments` is JSON text.

    In a request its name has at most 1,024 characters, and its id 65,536.
    """

    id: str | None = None
    name: str
    arguments: str = "{}"
    provider_meta: dict[str, Any] | None = None
    """Data to send back with the call, as the backend sent it (Gemini's thought signature)."""


def _short_call(call: ToolCall) -> ToolCall:
    """Bound what a client sends; what a backend has sent, which is the same class, has no bound."""
    for field, most in (("id", LONGEST_CALL_ID), ("name", LONGEST_CALLED)):
        length = len(getattr(call, field) or "")
        if length > most:
            raise PydanticCustomError(
                "string_too_long",
                "its {field} should have at most {max_length} characters",
                {"field": field, "max_length": most},
            )
    return call


SentCall = Annotated[ToolCall, AfterValidator(_short_call)]


class Message(ClientModel):
    """One message. `thinking` is the assistant's reasoning, for backends that accept it."""

    role: Role
    content: str | tuple[Part, ...] = ""
    thinking: str | None = None
    tool_calls: tuple[SentCall, ...] = ()
    tool_call_id: CallId | None = None
    tool_name: CalledName | None = None
    provider_meta: dict[str, Any] | None = None
    """Data to send back with the message, as the backend sent it."""

    @property
    def text(self) -> str:
        """All text of the message in one string."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[str, ...]:
        """All images of the message, in order."""
        if isinstance(self.content, str):
            return ()
        return tuple(part.image for part in self.content if isinstance(part, ImagePart))


class Tool(ClientModel):
    """A function the model may call; `parameters` is a JSON schema."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    strict: StrictBool | None = None
    """Whether the arguments of a call must match the schema, if the backend supports it."""


MOST_TOOLS: Final = 1024
"""Tools of a request; their number is in every prompt."""


class NamedTool(ClientModel):
    """The one tool that the model must call."""

    name: CalledName


class TextFormat(ClientModel):
    """Any text."""

    type: Literal["text"] = "text"


class JsonFormat(ClientModel):
    """Any JSON object."""

    type: Literal["json_object"] = "json_object"


class SchemaFormat(ClientModel):
    """JSON that conforms to a schema."""

    type: Literal["json_schema"] = "json_schema"
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    name: Word = "answer"
    strict: StrictBool = True


Tokens = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
"""Ids of tokens in a model's own vocabulary."""

ResponseFormat = Annotated[TextFormat | JsonFormat | SchemaFormat, Field(discriminator="type")]


class ChatRequest(Request):
    """Ask a model to continue a conversation; the answer streams as `delta` events."""

    kind: Literal["chat"] = "chat"
    model: Annotated[str, Field(min_length=1, max_length=256)]
    prompt: Annotated[str, Field(min_length=1)] | Tokens | None = None
    """Raw text, or ids of the model's tokens, to continue instead of `messages`; no chat template
    is applied."""
    suffix: str | None = None
    """Text after the answer (fill in the middle); only with a `prompt`."""
    messages: Annotated[tuple[Message, ...], Field(validate_default=True)] = ()
    """The conversation; at least one, unless there is a `prompt`."""
    tools: Annotated[tuple[Tool, ...], Field(max_length=MOST_TOOLS)] = ()
    tool_choice: Literal["auto", "none", "required"] | NamedTool = "auto"
    parallel_tool_calls: StrictBool | None = None
    """Whether one answer may call several tools; None leaves it to the backend."""
    response_format: ResponseFormat = TextFormat()
    temperature: Annotated[float, Field(ge=0, le=5)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: int | None = None
    stop: Annotated[tuple[StopText, ...], Field(max_length=16)] = ()
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    """Divisor of the likelihood of tokens that are already in the text; 1 changes nothing."""
    context_length: Annotated[int, Field(ge=1)] | None = None
    """Tokens of context to load the model with, if the backend lets a request set it."""
    logit_bias: Annotated[dict[str, float], Field(max_length=1024)] | None = None
    """Values that are added to the logits of tokens, by token id."""
    logprobs: StrictBool = False
    """Whether to return log probabilities; refused if the backend cannot."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0
    """Number of likely alternatives per token, with `logprobs`."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of the answer; reduced to the model's own limit if that is known."""
    think: Think = "auto"
    truncate: StrictBool | None = None
    """Cut a prompt that is too long (true) or refuse it (false), if the backend can."""
    shift: StrictBool | None = None
    """Slide the context when the answer overflows it (true) or stop (false), if the backend can."""
    keep_alive_s: float | None = None
    """Seconds that the model stays loaded after this job; negative: without limit."""
    conversation: ConversationKey | None = None
    """The conversation that this message continues, by a name of the client's. Its messages go to
    the address of the backend that has their prefix in its cache, if it is free in time."""
    conversation_policy: ConversationPolicy | None = None
    """What this message does while an earlier one of the conversation waits or runs: `parallel`,
    `queue` (it runs after it), `reject` (409) or `interrupt` (the earlier one is cancelled).
    Without it, as FLEET_CONVERSATION_POLICY says."""
    response_notes: ResponseNotes | None = None
    """Set by `/v1/responses` for its own requests; leave it out."""
    message_notes: MessageNotes | None = None
    """Set by `/v1/messages` for its own requests; leave it out."""

    @field_validator("messages")
    @classmethod
    def _one_of_both(
        cls, messages: tuple[Message, ...], info: ValidationInfo
    ) -> tuple[Message, ...]:
        if (not messages) == (info.data.get("prompt", "wrong") is None):
            raise PydanticCustomError(
                "value_error" if messages else "too_short",
                "either messages, at least one, or a prompt, not both",
                None if messages else {"min_length": 1},
            )
        if info.data.get("suffix") is not None and messages:
            raise ValueError("a suffix goes with a prompt, not with messages")
        return messages


class CountRequest(Request):
    """Count the tokens of a conversation; the answer is one `details` event with `input_tokens`.

    Images are not counted.
    """

    kind: Literal["count"] = "count"
    model: Annotated[str, Field(min_length=1, max_length=256)]
    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    tools: Annotated[tuple[Tool, ...], Field(max_length=MOST_TOOLS)] = ()

    @property
    def chat(self) -> ChatRequest:
        """The chat whose prompt is counted, without its images."""
        texts = (message.model_copy(update={"content": message.text}) for message in self.messages)
        return ChatRequest(model=self.model, messages=tuple(texts), tools=self.tools)
