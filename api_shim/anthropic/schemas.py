"""Schemas of responses, for /openapi.json only; responses are encoded without them.

Source: anthropics/anthropic-sdk-python, the types of the same names.
"""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from api_shim.anthropic.errors import AnthropicErrorResponse
from api_shim.http.openapi import JOB_HEADERS
from contract.sse import MEDIA_TYPE


class AnthropicSchema(BaseModel):
    """A part of a response."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


class AnthropicUsage(AnthropicSchema):
    """Token counts, as the backend reported them; 0 if it reported none."""

    input_tokens: int
    """Of the prompt, without those that were read from a cache."""
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: dict[str, int]
    service_tier: Literal["standard", "priority", "batch"]


class AnthropicMessage(AnthropicSchema):
    """A message."""

    id: str
    """`msg_` and the id of the job."""
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    """Blocks of type `text`, `thinking`, `redacted_thinking` or `tool_use`."""
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"] | None
    """Null while the job has not ended."""
    stop_sequence: str | None
    """The sequence that ended it, where the backend reports it (vLLM does)."""
    stop_details: dict[str, Any] | None
    usage: AnthropicUsage


class TokensCount(AnthropicSchema):
    """The number of tokens of a prompt."""

    input_tokens: int


class AnthropicModel(AnthropicSchema):
    """A model."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    """Since when this fleet serves it."""
    lifecycle: Literal["active"]
    max_input_tokens: int | None
    max_tokens: int | None


class AnthropicModelList(AnthropicSchema):
    """A page of models."""

    data: list[AnthropicModel]
    first_id: str | None
    last_id: str | None
    has_more: bool


class MessageBatchParams(AnthropicSchema):
    """A batch to create."""

    requests: list[dict[str, Any]]
    """Each `{"custom_id", "params"}`: params are the body of a request to `/v1/messages`."""


class MessageBatch(AnthropicSchema):
    """A batch."""

    id: str
    type: Literal["message_batch"]
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: dict[str, int]
    """Of `processing`, `succeeded`, `errored`, `canceled` and `expired`."""
    created_at: str
    expires_at: str
    ended_at: str | None
    cancel_initiated_at: str | None
    archived_at: str | None
    results_url: str | None
    """Where the results are, once it has ended."""


class MessageBatchList(AnthropicSchema):
    """A page of batches."""

    data: list[MessageBatch]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedMessageBatch(AnthropicSchema):
    """The batch that was deleted."""

    id: str
    type: Literal["message_batch_deleted"]


_DESCRIPTIONS: Final[dict[int, str]] = {
    400: "`invalid_request_error`: a field is missing or invalid, or the model cannot do it.",
    401: "`authentication_error`: no API key, or an unknown one.",
    402: "`billing_error`: the backend's account has no quota left.",
    403: "`permission_error`: the key lacks a permission, or may not use this model or backend; or "
    "there are no keys, and the client is not on this machine.",
    404: "`not_found_error`: no live backend has the model, or there is no such message or batch.",
    409: "The job was cancelled, or the Idempotency-Key belongs to another request.",
    413: "`request_too_large`: the body is larger than FLEET_MAX_BODY_BYTES.",
    429: "`rate_limit_error`: the queue is full; Retry-After says when to retry.",
    500: "`api_error`: an internal error.",
    502: "`api_error`: the backend failed.",
    504: "`timeout_error`: the backend or the job timed out.",
    507: "`api_error`: the backend's disk is full.",
    529: "`overloaded_error`: no worker serves the model, the backend is busy, or Redis is "
    "unavailable.",
}
_SENT: Final = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
JOB_ENDS: Final = (400, 402, 404, 409, 413, 429, 502, 504, 507, 529)
"""Statuses with which a request that submits a job may be refused or end."""


def anthropic_faults(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail with these statuses, and with 401, 403 and 500."""
    return {
        status: {"model": AnthropicErrorResponse, "description": _DESCRIPTIONS[status]}
        for status in sorted({*statuses, 401, 403, 500})
    }


def anthropic_answers(
    whole: type[BaseModel], *, streams: str | None = None
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that submits a job; `streams` is an example of an event."""
    good: dict[str, Any] = {
        "model": whole,
        "description": "The response; with `stream`, its events.",
        "headers": JOB_HEADERS,
    }
    if streams is not None:
        good["content"] = {MEDIA_TYPE: {"schema": _SENT, "example": streams}}
    return {200: good, **anthropic_faults(*JOB_ENDS)}
