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
    TokenCount,
    items_with,
    none_if_invalid,
)


@with_config(LENIENT)
class GeminiUsageFields(TypedDict, total=False):
    """`usageMetadata`."""

    promptTokenCount: TokenCount
    toolUsePromptTokenCount: TokenCount
    candidatesTokenCount: TokenCount
    thoughtsTokenCount: TokenCount
    cachedContentTokenCount: TokenCount


Usage = Annotated[GeminiUsageFields | None, WrapValidator(none_if_invalid)]


@with_config(LENIENT)
class GeminiFunctionCall(TypedDict, total=False):
    """The function of a call."""

    id: Name | None
    name: Required[str]
    args: dict[str, Any] | None


@with_config(LENIENT)
class GeminiBlob(TypedDict, total=False):
    """Bytes of an image."""

    mimeType: OptionalText
    data: str


@with_config(LENIENT)
class GeminiPart(TypedDict, total=False):
    """A part of a content."""

    text: str | None
    thoughtSignature: str | None
    functionCall: GeminiFunctionCall | None
    inlineData: GeminiBlob | None


@with_config(LENIENT)
class GeminiContent(TypedDict, total=False):
    """The parts of a message."""

    parts: list[GeminiPart] | None


@with_config(LENIENT)
class GeminiCandidate(TypedDict, total=False):
    """A candidate; there is one."""

    content: GeminiContent | None
    finishReason: OptionalText
    finishMessage: OptionalText


@with_config(LENIENT)
class GeminiPromptFeedback(TypedDict, total=False):
    """Why a prompt was refused."""

    blockReason: OptionalText
    blockReasonMessage: OptionalText


@with_config(LENIENT)
class GeminiChunk(TypedDict, total=False):
    """An answer of :generateContent, or a chunk of :streamGenerateContent."""

    candidates: list[GeminiCandidate] | None
    promptFeedback: Annotated[GeminiPromptFeedback | None, WrapValidator(none_if_invalid)]
    usageMetadata: Usage


@with_config(LENIENT)
class VertexStatistics(TypedDict, total=False):
    """Tokens of a text."""

    token_count: Count


@with_config(LENIENT)
class GeminiVector(TypedDict, total=False):
    """A vector; `VectorRows` checks its numbers."""

    values: Any
    statistics: Annotated[VertexStatistics | None, WrapValidator(none_if_invalid)]


@with_config(LENIENT)
class VertexPrediction(TypedDict, total=False):
    """A vector of :predict."""

    embeddings: GeminiVector | None


@with_config(LENIENT)
class GeminiEmbeddings(TypedDict, total=False):
    """:batchEmbedContents, :embedContent or :predict."""

    embeddings: list[GeminiVector] | None
    embedding: GeminiVector | None
    predictions: list[VertexPrediction] | None
    usageMetadata: Usage


@with_config(LENIENT)
class GeminiModel(TypedDict, total=False):
    """A model in a list."""

    name: Name
    supportedGenerationMethods: TextList
    inputTokenLimit: Count
    outputTokenLimit: Count


@with_config(LENIENT)
class GeminiModelPage(TypedDict, total=False):
    """GET /models, or /publishers/google/models."""

    models: Annotated[list[GeminiModel], BeforeValidator(items_with("name"))]
    publisherModels: Annotated[list[GeminiModel], BeforeValidator(items_with("name"))]
    nextPageToken: OptionalText


CHUNK: Final = Shape(GeminiChunk)
EMBEDDINGS: Final = Shape(GeminiEmbeddings)
PAGE: Final = Shape(GeminiModelPage)
