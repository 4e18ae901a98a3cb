"""Shapes of Ollama's responses (rules: workers/backends/shapes.py).

Source: ollama/ollama `api/types.go`.
"""

from typing import Annotated, Any, Final, Required

from pydantic import BeforeValidator, WrapValidator, with_config
from typing_extensions import TypedDict

from workers.backends.logprobs import TokenLogprob
from workers.backends.shapes import (
    LENIENT,
    Count,
    Measure,
    Name,
    Object,
    OptionalText,
    Shape,
    TextList,
    Tokens,
    none_if_invalid,
    object_items,
)


@with_config(LENIENT)
class OllamaCalledFunction(TypedDict, total=False):
    """The function of a call."""

    name: Required[str]
    arguments: str | dict[str, Any] | list[Any] | None


@with_config(LENIENT)
class OllamaCall(TypedDict, total=False):
    """A tool call, never split."""

    id: Name | None
    function: Required[OllamaCalledFunction]


@with_config(LENIENT)
class OllamaDelta(TypedDict, total=False):
    """A message fragment."""

    content: str | None
    thinking: str | None
    tool_calls: list[OllamaCall] | None


@with_config(LENIENT)
class OllamaLine(TypedDict, total=False):
    """A line of /api/chat or /api/generate; the last one has the counts."""

    message: OllamaDelta | None
    response: str | None
    logprobs: list[TokenLogprob] | None
    done_reason: OptionalText
    prompt_eval_count: Tokens
    eval_count: Tokens
    load_duration: Measure


@with_config(LENIENT)
class OllamaProgressLine(TypedDict, total=False):
    """A line of /api/pull or /api/create."""

    status: OptionalText
    digest: OptionalText
    total: Count
    completed: Count


@with_config(LENIENT)
class OllamaTagDetails(TypedDict, total=False):
    """Details of a listed model."""

    context_length: Count
    embedding_length: Count


@with_config(LENIENT)
class OllamaTag(TypedDict, total=False):
    """A model of /api/tags or /api/ps."""

    name: OptionalText
    model: OptionalText
    digest: OptionalText
    size: Count
    capabilities: TextList
    details: Annotated[OllamaTagDetails | None, WrapValidator(none_if_invalid)]


@with_config(LENIENT)
class OllamaTagsResponse(TypedDict, total=False):
    """GET /api/tags or /api/ps."""

    models: Annotated[list[OllamaTag], BeforeValidator(object_items)]


@with_config(LENIENT)
class OllamaModelInfo(TypedDict, total=False):
    """POST /api/show."""

    capabilities: TextList
    model_info: Object
    renderer: OptionalText
    template: OptionalText


@with_config(LENIENT)
class OllamaVectors(TypedDict, total=False):
    """POST /api/embed; `VectorRows` checks the numbers."""

    embeddings: list[Any] | None
    prompt_eval_count: Tokens
    load_duration: Measure


LINE: Final = Shape(OllamaLine)
PROGRESS: Final = Shape(OllamaProgressLine)
TAGS: Final = Shape(OllamaTagsResponse)
SHOW: Final = Shape(OllamaModelInfo)
EMBEDDINGS: Final = Shape(OllamaVectors)
