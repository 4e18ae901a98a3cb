"""What this surface answers, as /docs shows it; never made at run time."""

from typing import Any

from pydantic import BaseModel


class OllamaMetrics(BaseModel):
    """How an answer ended; durations are nanoseconds."""

    model: str
    created_at: str
    done: bool
    done_reason: str | None = None
    """`stop`, `length`, `content_filter`, `load`, `unload`; with `done` only."""
    total_duration: int | None = None
    """From enqueue to the end: waiting counts."""
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    logprobs: list[dict[str, Any]] | None = None


class OllamaResponseMessage(BaseModel):
    """What the assistant says."""

    role: str
    content: str
    thinking: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class OllamaChatResponse(OllamaMetrics):
    """A chat's answer, or a piece of it."""

    message: OllamaResponseMessage


class OllamaGenerateResponse(OllamaMetrics):
    """A completion, or a piece of it."""

    response: str
    thinking: str | None = None


class OllamaEmbedResponse(BaseModel):
    """Vectors, in the order of the texts."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaEmbeddingsResponse(BaseModel):
    """One vector."""

    embedding: list[float]


class OllamaProgress(BaseModel):
    """How far a pull or a create has come."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None


class OllamaModel(BaseModel):
    """A model in a list."""

    name: str
    model: str
    size: int
    digest: str
    details: dict[str, Any]
    modified_at: str | None = None
    capabilities: list[str] | None = None
    expires_at: str | None = None
    size_vram: int | None = None
    context_length: int | None = None


class OllamaModelList(BaseModel):
    """Models, whosever they are."""

    models: list[OllamaModel]


class OllamaShowResponse(BaseModel):
    """All about a model."""

    modified_at: str
    template: str
    modelfile: str
    parameters: str
    license: str
    details: dict[str, Any]
    model_info: dict[str, Any]
    capabilities: list[str]


class OllamaVersion(BaseModel):
    """Which release of the original this API follows."""

    version: str
