"""Hints in error messages: each surface names its own paths and commands. Pure.

Selection composes its refusals from these, so that a client of `/v1` reads about `/v1`, and one of
`/api` about the `ollama` command.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple


class ErrorHints(NamedTuple):
    """The hints of one surface, each a whole clause; `{model}` is replaced by the model's name."""

    models: str
    """Where all models are listed."""
    abilities: str
    """Where a model's capabilities are shown."""
    pull: str
    """How to pull a model."""
    no_worker: str
    """What to do when no worker serves a queue."""
    backend: str
    """How a request names its backend."""
    not_for: str = ""
    """The start of an error about a model of another kind; `{verb}` is the kind."""
    verbs: Mapping[str, str] = {}
    """Kinds of jobs that have another name on this surface."""
    fields: Mapping[str, str] = {}
    """Fields of the contract that have another name on this surface."""

    def named(self, fields: Iterable[str]) -> list[str]:
        """Fields of the contract by the names that the client knows."""
        return [self.fields.get(each, each) for each in fields]

    def wrong_kind(self, model: str, kind: str) -> str:
        """The start of an error about a model of another kind."""
        return self.not_for.format(model=model, verb=self.verbs.get(kind, kind))


NATIVE: Final = ErrorHints(
    models="GET /api/v1/models lists them all",
    abilities="GET /api/v1/models shows what each can do",
    pull="POST /api/v1/jobs/pull fetches one",
    no_worker="start one, or send the job to wait with "
    "/api/v1/jobs/<kind>?enqueue_anyway=true and a backend",
    backend="`backend`, or the header X-Fleet-Backend",
)
OPENAI: Final = ErrorHints(
    models="GET /v1/models lists them all",
    abilities="GET /v1/models lists them",
    pull="`fleet pull {model}` fetches it",
    no_worker="start one, or retry later",
    backend="`backend` (`extra_body` of the client), or the header X-Fleet-Backend",
    fields={"callback_url": "metadata.webhook"},
)
OLLAMA: Final = ErrorHints(
    models="`ollama list` shows them all",
    abilities="`ollama show <model>` shows what one can do",
    pull="`ollama pull {model}` fetches it",
    no_worker="start one, or retry later",
    backend="`backend`, or the header X-Fleet-Backend",
    # ollama/ollama server/routes.go: `"<name>" does not support chat`.
    not_for='"{model}" does not support {verb}: ',
    verbs={"embed": "embeddings", "image": "image generation"},
)
_CHAT: Final = OPENAI._replace(fields={**OPENAI.fields, "think": "reasoning_effort"})
_RESPONSES: Final = OPENAI._replace(
    fields={
        **OPENAI.fields,
        "messages": "input",
        "think": "reasoning.effort",
        "messages[].thinking": "input[reasoning]",
    }
)
_MESSAGES: Final = OPENAI._replace(
    fields={
        "think": "thinking",
        "response_format": "output_config.format",
        "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
        "messages[].thinking": "messages[].content[thinking]",
        "messages[].reasoning_details": "messages[].content[redacted_thinking]",
    }
)
RERANK_PATHS: Final = ("/v1/rerank", "/v1/score", "/v2/", "/rerank", "/score")
"""Prefixes of Cohere's and Jina's surface; hints are those of `/v1`."""
_BY_PATH: Final[Mapping[str, ErrorHints]] = {
    "/api/": OLLAMA,
    "/api/generate": OLLAMA._replace(verbs={**OLLAMA.verbs, "chat": "generate"}),
    "/api/v1": NATIVE,
    "/v1": OPENAI,
    "/v1/batches": OPENAI._replace(fields={}),
    "/v1/chat": _CHAT,
    "/v1/responses": _RESPONSES,
    "/v1/messages": _MESSAGES,
    **dict.fromkeys(RERANK_PATHS, OPENAI),
    "/v2/embed": OPENAI._replace(fields={"task": "input_type", "dimensions": "output_dimension"}),
    "/v1/systemone": OLLAMA,
}


@lru_cache(maxsize=256)
def hints_for(path: str) -> ErrorHints:
    """The hints of the surface that a path belongs to; the longest prefix counts."""
    surfaces = [prefix for prefix in _BY_PATH if path.startswith(prefix)]
    return _BY_PATH[max(surfaces, key=len)] if surfaces else NATIVE
