"""The differences between OpenAI-shaped servers: one `Dialect` row per type.

Sources: llama.cpp `tools/server/README.md` and `server-common.cpp`; vLLM
`entrypoints/openai/chat_completion/protocol.py`; LM Studio `3_openai-compat/*.md`; OpenAI's
openapi.yaml.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal
from urllib.parse import urlsplit

from contract.features import Feature

Support = Literal["field", "never", "unknown"]
"""How an option is sent: as a field; not at all, the server never does it; unknown."""
_OLDEST: Final[frozenset[Feature]] = frozenset(
    {"prompt", "logprobs", "frequency_penalty", "presence_penalty", "logit_bias",
     "parallel_tool_calls"}
)  # fmt: skip
_IDS: Final[frozenset[Feature]] = _OLDEST | {"token_ids"}
"""Accepts token ids in place of text, for completions and embeddings."""
_LOCAL: Final[frozenset[Feature]] = _IDS | {
    "repeat_penalty", "messages[].thinking", "messages[].tool_name"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one type of server accepts and reports."""

    type: str
    health_path: str | None = None
    """Health path at the server's root; None: GET /models is the check."""
    version_path: str | None = None
    catalog: Literal["props", "lmstudio", "vllm", "names", "plain"] = "plain"
    """The source of model facts (workers/backends/openai/catalogs.py)."""
    length_field: str = "max_tokens"
    sampling: frozenset[str] = frozenset()
    """Fields beyond OpenAI's own: top_k, min_p."""
    think: Literal["template", "effort", "none"] = "none"
    """`template`: chat_template_kwargs.enable_thinking, with a reasoning_effort for a level."""
    named_tool: bool = False
    """Whether tool_choice may name a tool; else only that tool is sent, as required."""
    json_object: bool = True
    """Whether `json_object` is supported; else the schema of any object is sent."""
    pools_prompts: bool = True
    """Whether a prompt may use an idle connection; not where the server closes them when it likes,
    because a prompt that meets a closed one costs its job an attempt (docs/adr/0025)."""
    image_urls: bool = True
    """Whether an image may be an http(s) URL; else data URLs only."""
    truncate: Support = "unknown"
    shift: Support = "unknown"
    keep_alive_field: str | None = None
    prefill: Literal["native", "flags", "none"] = "none"
    """Whether a trailing assistant message is continued: by itself, with flags, or not."""
    embed_encoding: Literal["base64", "float"] = "float"
    embed_dimensions: bool = True
    embed_batch: int = 64
    """The most texts of one request."""
    rerank_batch: int = 64
    """The most documents of one request."""
    repeat_field: str = "repeat_penalty"
    """Its field for `repeat_penalty`, if granted."""
    thinking_field: str = "reasoning_content"
    """Its field for the reasoning of assistant messages, if granted."""
    grants: frozenset[Feature] = _OLDEST
    """Supported features beyond those of every backend."""


LLAMACPP: Final = Dialect(
    type="llamacpp",
    health_path="/health",
    catalog="props",
    sampling=frozenset({"top_k", "min_p"}),
    think="template",
    # A named tool silently becomes `auto` (oaicompat_chat_params_parse).
    named_tool=False,
    # `shift` depends on the flag --context-shift; a prompt that is too long is always refused.
    truncate="never",
    # It closes its connection after every stream, and after 100 requests (cpp-httplib).
    pools_prompts=False,
    # It continues without flags too, but then repeats the prefill.
    prefill="flags",
    embed_encoding="base64",
    embed_dimensions=False,
    grants=_LOCAL,
)
LLAMACPP_ROUTER: Final = replace(LLAMACPP, type="llamacpp-router")
LLAMASWAP: Final = Dialect(
    type="llamaswap",
    health_path="/health",
    # A proxy, most often for llama-server.
    pools_prompts=False,
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
    # Its chat completions return no logprobs; parallel_tool_calls is undocumented.
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
    rerank_batch=256,
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
"""A server that claims compatibility: only OpenAI's oldest fields."""
LOCALAI: Final = replace(GENERIC, type="localai")
INFINITY: Final = Dialect(
    type="infinity",
    health_path="/health",
    embed_encoding="base64",
    grants=frozenset(),
)
TEI: Final = Dialect(
    type="tei",
    health_path="/health",
    embed_encoding="base64",
    embed_batch=256,
    grants=frozenset(),
)

_THINKING_FIELDS: Final = {"api.deepseek.com": "reasoning_content", "openrouter.ai": "reasoning"}
"""The reasoning field of assistant messages, by known host."""
THINKING_FIELDS: Final = ("reasoning_content", "reasoning")


def generic(url: str, thinking: str | None = None) -> Dialect:
    """The dialect of a compatible server at `url`; `thinking` names its reasoning field.

    Without one, reasoning is not sent: some servers return 400 for an unknown message field.
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


_ROWS: Final = (
    LLAMACPP,
    LLAMACPP_ROUTER,
    LLAMASWAP,
    LMSTUDIO,
    VLLM,
    OPENAI,
    GENERIC,
    LOCALAI,
    INFINITY,
    TEI,
)
DIALECTS: Final = {row.type: row for row in _ROWS}
