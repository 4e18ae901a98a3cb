"""Features of requests that not every backend supports.

Invariant: a feature is never dropped silently. If the backend does not support it, a feature that
determines the answer is refused (`REMEDIES`); any other is listed in `Done.ignored`.
"""

from collections.abc import Mapping
from typing import Final, Literal

from contract.chat import DETAILS, ChatRequest
from contract.embeddings import EmbedRequest
from contract.images import ImageRequest
from contract.requests import Request

Feature = Literal[
    "prompt", "suffix", "token_ids", "logprobs", "mask",
    "frequency_penalty", "presence_penalty", "repeat_penalty", "context_length", "logit_bias",
    "parallel_tool_calls", "messages[].thinking", "messages[].reasoning_details", "tools[].strict",
    "messages[].extra_content", "messages[].tool_calls[].extra_content", "messages[].tool_name",
]  # fmt: skip

REMEDIES: Final[Mapping[Feature, str]] = {
    "prompt": "it cannot continue raw text: send messages (a chat)",
    "suffix": "it cannot fill in the middle: leave `suffix` out",
    "token_ids": "it takes text, not ids of tokens: send text (with LangChain's OpenAIEmbeddings: "
    "check_embedding_ctx_length=False)",
    "logprobs": "it does not tell how likely its tokens were: leave `logprobs` out",
    "mask": "it cannot redraw a part of an image: leave `mask` out",
}
"""Features that are refused if the backend does not support them: why, and what to do."""


def features_of(request: Request) -> tuple[Feature, ...]:
    """The features that a request uses."""
    match request:
        case ChatRequest():
            return _of_chat(request)
        case EmbedRequest():
            return ("token_ids",) if request.tokens else ()
        case ImageRequest():
            return ("mask",) if request.mask else ()
        case _:
            return ()


def _of_chat(request: ChatRequest) -> tuple[Feature, ...]:
    uses: dict[Feature, bool] = {
        "prompt": request.prompt is not None,
        "suffix": request.suffix is not None,
        "token_ids": isinstance(request.prompt, tuple),
        "logprobs": request.logprobs,
        "frequency_penalty": bool(request.frequency_penalty),
        "presence_penalty": bool(request.presence_penalty),
        "repeat_penalty": request.repeat_penalty not in {None, 1},
        "context_length": request.context_length is not None,
        "logit_bias": bool(request.logit_bias),
        "parallel_tool_calls": bool(request.tools) and request.parallel_tool_calls is not None,
        "messages[].thinking": any(message.thinking for message in request.messages),
        "messages[].reasoning_details": any(
            DETAILS in (message.provider_meta or {}) for message in request.messages
        ),
        "messages[].extra_content": any(
            (message.provider_meta or {}).keys() - {DETAILS} for message in request.messages
        ),
        "messages[].tool_calls[].extra_content": any(
            call.provider_meta for message in request.messages for call in message.tool_calls
        ),
        "messages[].tool_name": _names_tools(request),
        "tools[].strict": any(tool.strict for tool in request.tools),
    }
    return tuple(feature for feature, is_used in uses.items() if is_used)


def _names_tools(request: ChatRequest) -> bool:
    """Whether a tool result has a name that is not found by the id of its call."""
    names = {call.id: call.name for message in request.messages for call in message.tool_calls}
    return any(
        message.role == "tool"
        and message.tool_name
        and message.tool_name != names.get(message.tool_call_id)
        for message in request.messages
    )
