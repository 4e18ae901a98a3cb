"""The shapes of answers, for the document at /openapi.json; answers are written without them.

Source: openai/openai-openapi, the schemas of the same names.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


class ModelCard(Shape):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    """Unix seconds since which it is served here."""
    owned_by: str
    """A backend that has it."""


class ModelList(Shape):
    """All models."""

    object: Literal["list"]
    data: list[ModelCard]


class TokenUsage(Shape):
    """Tokens, as the backend counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int]


class _Answer(Shape):
    id: str
    created: int
    model: str
    service_tier: Literal["priority", "default", "flex"]
    system_fingerprint: str | None
    usage: TokenUsage | None
    """Null where the backend told none."""


class CallTold(Shape):
    """A call of a tool."""

    id: str
    type: Literal["function"]
    function: dict[str, str]
    """`name`, and `arguments` as JSON text."""
    extra_content: dict[str, Any] | None = None
    """To be sent back with the call as it is; only some backends have it."""


class MessageTold(Shape):
    """What the assistant says."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str | None = None
    tool_calls: list[CallTold] | None = None


class ChatChoice(Shape):
    """The one answer."""

    index: int
    message: MessageTold
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class ChatCompletion(_Answer):
    """The answer of a chat."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class TextChoice(Shape):
    """The one answer."""

    text: str
    index: int
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class TextCompletion(_Answer):
    """The text behind a prompt."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


class EmbeddingRow(Shape):
    """A vector."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    """Numbers, or base64 of little-endian float32."""


class EmbeddingList(Shape):
    """Vectors in the order of the texts."""

    object: Literal["list"]
    data: list[EmbeddingRow]
    model: str
    usage: dict[str, int] | None


class ImageTold(Shape):
    """An image."""

    b64_json: str | None = None
    url: str | None = None
    """Where the backend answers an address, and no bytes."""


class ImageList(Shape):
    """Finished images."""

    created: int
    data: list[ImageTold]
    background: str | None
    output_format: str | None
    quality: str | None
    size: str
    usage: dict[str, Any] | None
