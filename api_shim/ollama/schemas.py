"""Schemas of responses, for /openapi.json only; responses are encoded without them."""

from typing import Any

from pydantic import BaseModel


class OllamaMetrics(BaseModel):
    """How a response ended; durations are nanoseconds."""

    model: str
    created_at: str
    done: bool
    done_reason: str | None = None
    """`stop`, `length`, `content_filter`, `load`, `unload`; with `done` only."""
    total_duration: int | None = None
    """From the enqueue to the end, waiting included."""
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    logprobs: list[dict[str, Any]] | None = None


class OllamaResponseMessage(BaseModel):
    """The assistant's message."""

    role: str
    content: str
    thinking: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class OllamaChatResponse(OllamaMetrics):
    """The response of a chat, or a line of it."""

    message: OllamaResponseMessage


class OllamaGenerateResponse(OllamaMetrics):
    """The response of a completion, or a line of it."""

    response: str
    thinking: str | None = None


class OllamaEmbedResponse(BaseModel):
    """Vectors in the order of the texts."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaEmbeddingsResponse(BaseModel):
    """One vector."""

    embedding: list[float]


class OllamaProgress(BaseModel):
    """Progress of a pull or create."""

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
    """Models of all backends."""

    models: list[OllamaModel]


class OllamaShowResponse(BaseModel):
    """A model's details."""

    modified_at: str
    template: str
    modelfile: str
    parameters: str
    license: str
    details: dict[str, Any]
    model_info: dict[str, Any]
    capabilities: list[str]


class OllamaVersion(BaseModel):
    """The Ollama release whose API this follows."""

    version: str
