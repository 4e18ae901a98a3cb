"""Raw text continued by an OpenAI-shaped server: the body of POST /completions. Pure.

Source: openai/openai-openapi, /completions; vLLM and llama-server take the same fields.
"""

from typing import Any

from contract.chat import ChatRequest, TextFormat
from workers.backends.openai.dialects import Dialect
from workers.backends.openai.requests import Body, granted

_CHAT_ONLY = ("think", "tools", "truncate", "shift", "keep_alive_s")


def to_completion(request: ChatRequest, dialect: Dialect) -> Body:
    """The body for a request that has a `prompt` in place of messages."""
    likely = granted(request, dialect)
    if likely.pop("logprobs", False):
        # Here it is the number of tokens to tell of in each place.
        likely["logprobs"] = likely.pop("top_logprobs", None) or 1
    fields: dict[str, Any] = {
        "model": request.model,
        "prompt": request.prompt if isinstance(request.prompt, str) else _ids(request),
        "suffix": request.suffix,
        "stream": True,
        "stream_options": {"include_usage": True},
        # Without a number the original stops after 16 tokens.
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        **{name: getattr(request, name) for name in dialect.sampling},
        **likely,
    }
    given = request.model_fields_set
    ignored = [name for name in _CHAT_ONLY if name in given and getattr(request, name)]
    ignored += ["top_k"] if request.top_k is not None and "top_k" not in dialect.sampling else []
    ignored += ["min_p"] if request.min_p is not None and "min_p" not in dialect.sampling else []
    if not isinstance(request.response_format, TextFormat):
        ignored.append("response_format")
    return Body({k: v for k, v in fields.items() if v is not None}, tuple(ignored))


def _ids(request: ChatRequest) -> list[int]:
    return [each for each in request.prompt or () if isinstance(each, int)]
