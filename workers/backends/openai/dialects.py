"""How OpenAI-shaped servers differ: one row of facts a server, so that the adapter needs no cases.

Sources: llama.cpp `tools/server/README.md` and `server-common.cpp`; vLLM
`entrypoints/openai/chat_completion/protocol.py`; LM Studio `3_openai-compat/*.md`; OpenAI's
openapi.yaml.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal
from urllib.parse import urlsplit

from contract.features import Feature

Knowledge = Literal["field", "never", "unknown"]
"""How a wish is told: by a field; the server never does it; nobody knows what it does."""
_OLDEST: Final[frozenset[Feature]] = frozenset(
    {"prompt", "logprobs", "frequency_penalty", "presence_penalty", "logit_bias",
     "parallel_tool_calls"}
)  # fmt: skip
_IDS: Final[frozenset[Feature]] = _OLDEST | {"token_ids"}
"""Takes ids of tokens in place of text, too, for completions and for embeddings."""
_LOCAL: Final[frozenset[Feature]] = _IDS | {"repeat_penalty", "messages[].thinking"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one kind of server takes and tells."""

    type: str
    health_path: str | None = None
    """Path at the server's root that tells health; without it the list of models does."""
    version_path: str | None = None
    catalog: Literal["props", "lmstudio", "vllm", "names", "plain"] = "plain"
    """Where the facts about models stand (workers/backends/openai/catalogs.py)."""
    length_field: str = "max_tokens"
    sampling: frozenset[str] = frozenset()
    """Fields beyond OpenAI's own: top_k, min_p."""
    think: Literal["template", "effort", "none"] = "none"
    """`template`: chat_template_kwargs.enable_thinking, with a reasoning_effort for a level."""
    named_tool: bool = False
    """Whether tool_choice may name a tool; else only that tool is offered, and required."""
    json_object: bool = True
    """Whether `json_object` is known; else it becomes the schema of any object."""
    image_urls: bool = True
    """Whether an image may be an http(s) URL; else data URLs only."""
    truncate: Knowledge = "unknown"
    shift: Knowledge = "unknown"
    keep_alive_field: str | None = None
    prefill: Literal["native", "flags", "none"] = "none"
    """Whether a trailing assistant message is continued: by itself, with flags, or not."""
    embed_encoding: Literal["base64", "float"] = "float"
    embed_dimensions: bool = True
    embed_batch: int = 64
    """Texts a request."""
    repeat_field: str = "repeat_penalty"
    """What it calls `repeat_penalty`, if that is among its `grants`."""
    thinking_field: str = "reasoning_content"
    """What it calls an assistant's thoughts in a conversation, if they are among its `grants`."""
    grants: frozenset[Feature] = _OLDEST
    """What it has words for beyond what every backend has."""


LLAMACPP: Final = Dialect(
    type="llamacpp",
    health_path="/health",
    catalog="props",
    sampling=frozenset({"top_k", "min_p"}),
    think="template",
    # An object silently becomes `auto` (oaicompat_chat_params_parse).
    named_tool=False,
    # Whether it shifts is the server's flag --context-shift; a long prompt is always refused.
    truncate="never",
    # It continues by itself, but then repeats what it was given; with the flags it does not.
    prefill="flags",
    embed_encoding="base64",
    embed_dimensions=False,
    grants=_LOCAL,
)
LLAMACPP_ROUTER: Final = replace(LLAMACPP, type="llamacpp-router")
LLAMASWAP: Final = Dialect(
    type="llamaswap",
    health_path="/health",
    # It passes everything on, most often to a llama-server.
    sampling=frozenset({"top_k", "min_p"}),
    think="template",
    named_tool=False,
    grants=_LOCAL,
)
LMSTUDIO: Final = Dialect(
    type="lmstudio",
    catalog="lmstudio",
    sampling=frozenset({"top_k"}),
    json_object=False,
    image_urls=False,
    keep_alive_field="ttl",
    # Its chat completions tell no likelihoods; what it does with parallel_tool_calls is not told.
    grants=frozenset(
        {"prompt", "frequency_penalty", "presence_penalty", "repeat_penalty", "logit_bias"}
    ),
)
VLLM: Final = Dialect(
    type="vllm",
    health_path="/health",
    version_path="/version",
    catalog="vllm",
    length_field="max_completion_tokens",
    sampling=frozenset({"top_k", "min_p"}),
    think="template",
    named_tool=True,
    truncate="field",
    shift="never",
    prefill="flags",
    embed_encoding="base64",
    embed_batch=256,
    repeat_field="repetition_penalty",
    grants=_LOCAL,
)
OPENAI: Final = Dialect(
    type="openai",
    catalog="names",
    length_field="max_completion_tokens",
    think="effort",
    named_tool=True,
    truncate="never",
    shift="never",
    embed_encoding="base64",
    embed_batch=2048,
    grants=_IDS | {"suffix", "mask", "tools[].strict"},
)
GENERIC: Final = Dialect(type="generic", named_tool=True, grants=_OLDEST | {"tools[].strict"})
"""Anything that says it is compatible: only OpenAI's own fields, and of those the oldest."""

_THINKING_FIELDS: Final = {"api.deepseek.com": "reasoning_content", "openrouter.ai": "reasoning"}
"""What hosts that are known call the thoughts that a conversation brings back to them."""
THINKING_FIELDS: Final = ("reasoning_content", "reasoning")


def generic(url: str, thinking: str | None = None) -> Dialect:
    """What a compatible server at this address takes; `thinking` names its field for thoughts.

    Unknown servers are sent none: some answer 400 to a message with a field they do not know.
    """
    host = urlsplit(url).hostname or ""
    field = _THINKING_FIELDS.get(host) if thinking is None else thinking
    if not field:
        return GENERIC
    more: frozenset[Feature] = frozenset({"messages[].thinking"})
    if field == "reasoning":
        more |= frozenset[Feature]({"messages[].reasoning_details"})
    grants = GENERIC.grants | more
    return replace(GENERIC, thinking_field=field, grants=grants)


_ROWS: Final = (LLAMACPP, LLAMACPP_ROUTER, LLAMASWAP, LMSTUDIO, VLLM, OPENAI, GENERIC)
DIALECTS: Final = {row.type: row for row in _ROWS}
