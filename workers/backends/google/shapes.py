"""Shapes of the responses of Gemini and Vertex (rules: workers/backends/shapes.py).

Source: googleapis/python-genai `types.py`.
"""

from typing import Annotated, Any, Final, Required

from pydantic import BeforeValidator, WrapValidator, with_config
from typing_extensions import TypedDict

from workers.backends.shapes import (
    LENIENT,
    Count,
    Name,
    OptionalText,
    Shape,
    TextList,
    items_with,
    none_if_invalid,
)


@with_config(LENIENT)
class UsageFields(TypedDict, total=False):
    """`usageMetadata`."""

    promptTokenCount: Count
    toolUsePromptTokenCount: Count
    candidatesTokenCount: Count
    thoughtsTokenCount: Count
    cachedContentTokenCount: Count


Usage = Annotated[UsageFields | None, WrapValidator(none_if_invalid)]


@with_config(LENIENT)
class Function(TypedDict, total=False):
    """The function of a call."""

    id: Name | None
    name: Required[str]
    args: dict[str, Any] | None


@with_config(LENIENT)
class Blob(TypedDict, total=False):
    """Bytes of an image."""

    mimeType: OptionalText
    data: str


@with_config(LENIENT)
class Part(TypedDict, total=False):
    """A part of a content."""

    text: str | None
    thoughtSignature: str | None
    functionCall: Function | None
    inlineData: Blob | None


@with_config(LENIENT)
class Content(TypedDict, total=False):
    """The parts of a message."""

    parts: list[Part] | None


@with_config(LENIENT)
class Candidate(TypedDict, total=False):
    """A candidate; there is one."""

    content: Content | None
    finishReason: OptionalText
    finishMessage: OptionalText


@with_config(LENIENT)
class Feedback(TypedDict, total=False):
    """Why a prompt was refused."""

    blockReason: OptionalText
    blockReasonMessage: OptionalText


@with_config(LENIENT)
class Chunk(TypedDict, total=False):
    """An answer of :generateContent, or a chunk of :streamGenerateContent."""

    candidates: list[Candidate] | None
    promptFeedback: Annotated[Feedback | None, WrapValidator(none_if_invalid)]
    usageMetadata: Usage


@with_config(LENIENT)
class Statistics(TypedDict, total=False):
    """Tokens of a text."""

    token_count: Count


@with_config(LENIENT)
class Vector(TypedDict, total=False):
    """A vector; `VectorRows` checks its numbers."""

    values: Any
    statistics: Annotated[Statistics | None, WrapValidator(none_if_invalid)]


@with_config(LENIENT)
class Prediction(TypedDict, total=False):
    """A vector of :predict."""

    embeddings: Vector | None


@with_config(LENIENT)
class Embedded(TypedDict, total=False):
    """:batchEmbedContents, :embedContent or :predict."""

    embeddings: list[Vector] | None
    embedding: Vector | None
    predictions: list[Prediction] | None
    usageMetadata: Usage


@with_config(LENIENT)
class Listed(TypedDict, total=False):
    """A model in a list."""

    name: Name
    supportedGenerationMethods: TextList
    inputTokenLimit: Count
    outputTokenLimit: Count


@with_config(LENIENT)
class Page(TypedDict, total=False):
    """GET /models, or /publishers/google/models."""

    models: Annotated[list[Listed], BeforeValidator(items_with("name"))]
    publisherModels: Annotated[list[Listed], BeforeValidator(items_with("name"))]
    nextPageToken: OptionalText


CHUNK: Final = Shape(Chunk)
EMBEDDED: Final = Shape(Embedded)
PAGE: Final = Shape(Page)
