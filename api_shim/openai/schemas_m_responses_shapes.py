"""The shapes of responses, for the document at /openapi.json; they are written without them.

Source: openai/openai-openapi, the schemas of the same names.
"""

from typing import Any, Literal

from api_shim.openai.schemas import Shape


class OutputItem(Shape):
    """A part of the answer, or of what was asked."""

    id: str
    type: Literal["message", "reasoning", "function_call", "function_call_output"]
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant", "user", "system"] | None = None
    content: list[dict[str, Any]] | None = None
    """Of a message: `output_text`, `refusal`, `input_text`, `input_image`; of thoughts:
    `reasoning_text`."""
    summary: list[dict[str, Any]] | None = None
    """Thoughts, if summaries were asked for."""
    encrypted_content: None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    """JSON text."""
    output: str | list[dict[str, Any]] | None = None
    extra_content: dict[str, Any] | None = None
    """To be sent back with the item as it is; only some backends have it."""


class ResponseFault(Shape):
    """Why there is no answer."""

    code: str
    message: str
    param: str | None
    type: str
    """Our own code of it."""


class ResponseUsage(Shape):
    """Tokens, as the backend counted them; zero where it did not."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class Response(Shape):
    """What was asked, how it stands, what was answered so far."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    error: ResponseFault | None
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


class ResponseGone(Shape):
    """What was deleted."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class ItemList(Shape):
    """A page of what a response was asked."""

    object: Literal["list"]
    data: list[OutputItem]
    first_id: str | None
    last_id: str | None
    has_more: bool
