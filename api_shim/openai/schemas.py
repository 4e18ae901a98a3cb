"""Schemas of responses, for /openapi.json only; responses are encoded without them.

Source: openai/openai-openapi, the schemas of the same names.
"""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from api_shim.http.openapi import JOB_HEADERS
from api_shim.openai.errors import OpenAIErrorResponse
from contract.sse import MEDIA_TYPE


class OpenAISchema(BaseModel):
    """A part of a response."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


class OpenAIModel(OpenAISchema):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    """Unix seconds since which this fleet serves it."""
    owned_by: str
    """A backend that has it."""


class OpenAIModelList(OpenAISchema):
    """All models."""

    object: Literal["list"]
    data: list[OpenAIModel]


class TokenUsage(OpenAISchema):
    """Token counts, as the backend reported them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int]


class _Answer(OpenAISchema):
    id: str
    created: int
    model: str
    service_tier: Literal["priority", "default", "flex"]
    system_fingerprint: str | None
    usage: TokenUsage | None
    """Null if the backend reported none."""


class ChatCompletionToolCall(OpenAISchema):
    """A tool call."""

    id: str
    type: Literal["function"]
    function: dict[str, str]
    """`name`, and `arguments` as JSON text."""
    extra_content: dict[str, Any] | None = None
    """Opaque; send it back with the call. Only some backends have it."""


class ChatCompletionMessage(OpenAISchema):
    """The assistant's message."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str | None = None
    tool_calls: list[ChatCompletionToolCall] | None = None


class ChatChoice(OpenAISchema):
    """The only choice."""

    index: int
    message: ChatCompletionMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class ChatCompletion(_Answer):
    """The response of a chat."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class TextChoice(OpenAISchema):
    """The only choice."""

    text: str
    index: int
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class TextCompletion(_Answer):
    """The continuation of a prompt."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


class EmbeddingObject(OpenAISchema):
    """A vector."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | list[int] | str
    """Numbers, base64 of little-endian float32, or small integers."""


class EmbeddingList(OpenAISchema):
    """Vectors in the order of the texts."""

    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: dict[str, int] | None


class ImageData(OpenAISchema):
    """An image."""

    b64_json: str | None = None
    url: str | None = None
    """Set if the backend returns a URL instead of bytes."""


class ImageList(OpenAISchema):
    """Finished images."""

    created: int
    data: list[ImageData]
    background: str | None
    output_format: str | None
    quality: str | None
    size: str
    usage: dict[str, Any] | None


class OutputItem(OpenAISchema):
    """An item of the input or output."""

    id: str
    type: Literal["message", "reasoning", "function_call", "function_call_output"]
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant", "user", "system"] | None = None
    content: list[dict[str, Any]] | None = None
    """Of a message: `output_text`, `refusal`, `input_text`, `input_image`; of reasoning:
    `reasoning_text`.
    """
    summary: list[dict[str, Any]] | None = None
    """The reasoning, if summaries were requested."""
    encrypted_content: None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    """JSON text."""
    output: str | list[dict[str, Any]] | None = None
    extra_content: dict[str, Any] | None = None
    """Opaque; send it back with the item. Only some backends have it."""


class ResponseError(OpenAISchema):
    """Why the response failed."""

    code: str
    message: str
    param: str | None
    type: str
    """The fleet's own code of the error."""


class ResponseUsage(OpenAISchema):
    """Token counts, as the backend reported them; zero if it reported none."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class Response(OpenAISchema):
    """A response: the request's settings, the status, and the output so far."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    error: ResponseError | None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, Any]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    service_tier: Literal["priority", "default", "flex"]
    store: bool
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float | None
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None
    user: str | None


class ResponseDeleted(OpenAISchema):
    """The response that was deleted."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputTokens(OpenAISchema):
    """The number of tokens of a response's input."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class ItemList(OpenAISchema):
    """A page of a response's input items."""

    object: Literal["list"]
    data: list[OutputItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


_ALWAYS: Final = (401, 403, 500)
JOB_ENDS: Final = (400, 404, 408, 409, 413, 415, 429, 502, 503, 504)
"""Statuses of a call that submits a job."""
_DESCRIPTIONS: Final[dict[int, str]] = {
    400: "A field is missing or invalid (`param` names it), or the model does not support it.",
    401: "No API key, or one that is unknown, revoked or expired.",
    403: "The key lacks a permission, or may not use this model or backend.",
    404: "`model_not_found`: no live backend has the model.",
    408: "The client disconnected.",
    409: "The job was cancelled, or the Idempotency-Key belongs to another request.",
    413: "The body is larger than FLEET_MAX_BODY_BYTES.",
    415: "The body has another content type.",
    429: "`rate_limit_exceeded`: the queue is full, Retry-After says when to retry; or "
    "`insufficient_quota` of the backend's account.",
    500: "An internal error.",
    502: "The backend failed.",
    503: "No worker serves the model, its backend is busy, or Redis does not respond.",
    504: "The backend or the job timed out.",
}

_EVENT: Final = {
    "type": "object",
    "description": "Each event of the stream; of a chat the last one's data is `[DONE]`.",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}


def faults(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail with these statuses, and with 401, 403 and 500."""
    return {
        status: {"model": OpenAIErrorResponse, "description": _DESCRIPTIONS[status]}
        for status in sorted({*statuses, *_ALWAYS})
    }


def answers(whole: type[BaseModel], *, streams: str | None = None) -> dict[int | str, Any]:
    """The `responses` of a route that submits a job; `streams` is an example of an event."""
    content: dict[str, Any] = {}
    if streams is not None:
        content[MEDIA_TYPE] = {"schema": _EVENT, "example": streams}
    good = {
        "model": whole,
        "description": "The response; with `stream`, its events.",
        "headers": JOB_HEADERS,
        "content": content,
    }
    return {200: good, **faults(*JOB_ENDS)}
