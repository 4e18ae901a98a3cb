"""Features of requests that not every backend supports.

Invariant: a feature is never dropped silently. If the backend does not support it, a feature that
determines the answer is refused (`REMEDIES`); any other is listed in `Done.ignored`.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from contract.chat import DETAILS, ChatRequest, Message
from contract.embeddings import EmbedRequest
from contract.images import ImageRequest
from contract.requests import Request

Feature = Literal[
    "prompt", "suffix", "token_ids", "logprobs", "mask",
    "frequency_penalty", "presence_penalty", "repeat_penalty", "context_length", "logit_bias",
    "parallel_tool_calls", "messages[].thinking", "messages[].reasoning_details", "tools[].strict",
    "messages[].extra_content", "messages[].tool_calls[].extra_content", "messages[].tool_name",
    "task", "normalize",
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
            return _of_embed(request)
        case ImageRequest():
            return ("mask",) if request.mask else ()
        case _:
            return ()


def _of_embed(request: EmbedRequest) -> tuple[Feature, ...]:
    uses: dict[Feature, bool] = {
        "token_ids": bool(request.tokens),
        "task": request.task is not None,
        "normalize": request.normalize is False,
    }
    return tuple(feature for feature, is_used in uses.items() if is_used)


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
        **_of_messages(request.messages),
        "tools[].strict": any(tool.strict for tool in request.tools),
    }
    return tuple(feature for feature, is_used in uses.items() if is_used)


def _of_messages(messages: Sequence[Message]) -> dict[Feature, bool]:
    """The features that messages use; those of most chats are plain and use none."""
    special = [
        each
        for each in messages
        if each.thinking or each.provider_meta or each.tool_calls or each.tool_name
    ]
    if not special:
        return {}
    metas = [each.provider_meta for each in special if each.provider_meta]
    calls = [call for each in special for call in each.tool_calls]
    return {
        "messages[].thinking": any(each.thinking for each in special),
        "messages[].reasoning_details": any(DETAILS in meta for meta in metas),
        "messages[].extra_content": any(meta.keys() - {DETAILS} for meta in metas),
        "messages[].tool_calls[].extra_content": any(call.provider_meta for call in calls),
        "messages[].tool_name": _names_tools(special, {call.id: call.name for call in calls}),
    }


def _names_tools(messages: Sequence[Message], names: Mapping[str | None, str]) -> bool:
    """Whether a tool result has a name that is not found by the id of its call (`names`)."""
    return any(
        message.role == "tool"
        and message.tool_name
        and message.tool_name != names.get(message.tool_call_id)
        for message in messages
    )
