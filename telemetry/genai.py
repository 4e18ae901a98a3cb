"""OpenTelemetry's names for calls of models, which still change: one table, behind one setting.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ (status: development). Semantic
conventions 1.37 renamed `gen_ai.system` to `gen_ai.provider.name`; the rest is the same since 1.27.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

GenAi = Literal["latest", "1.36", "off"]
Fact = Literal["operation", "provider", "model", "tokens_in", "tokens_out", "finish_reasons"]

_SINCE_1_27: Final[Mapping[Fact, str]] = {
    "operation": "gen_ai.operation.name",
    "model": "gen_ai.request.model",
    "tokens_in": "gen_ai.usage.input_tokens",
    "tokens_out": "gen_ai.usage.output_tokens",
    "finish_reasons": "gen_ai.response.finish_reasons",
}
NAMES: Final[Mapping[GenAi, Mapping[Fact, str]]] = {
    "latest": {**_SINCE_1_27, "provider": "gen_ai.provider.name"},
    "1.36": {**_SINCE_1_27, "provider": "gen_ai.system"},
    "off": {},
}
"""The attribute of each fact, by FLEET_OTEL_GENAI."""

OPERATIONS: Final[Mapping[str, str]] = {
    "chat": "chat",
    "embed": "embeddings",
    "image": "generate_content",
    "rerank": "rerank",
}
"""What the conventions call a kind of job, which have no name for rerank; other kinds call no
model."""
PROVIDERS: Final[Mapping[str, str]] = {"gemini": "gcp.gemini", "vertex": "gcp.vertex_ai"}
"""What they call a type of backend; others have their own name."""


def attributes(convention: GenAi, facts: Mapping[Fact, Any]) -> dict[str, Any]:
    """The attributes of a span for these facts; a fact that is None or has no name is left out."""
    names = NAMES[convention]
    return {
        names[fact]: value for fact, value in facts.items() if fact in names and value is not None
    }
