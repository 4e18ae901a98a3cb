"""POST /v1/chat/completions: the body, and the contract's request that it means. Pure.

Source: openai/openai-openapi, CreateChatCompletionRequest. `top_k`, `min_p`, `reasoning` and
`chat_template_kwargs` are what vLLM's, llama-server's and OpenRouter's clients send besides.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field
from typing_extensions import override

from api_shim.openai.chat_request_m_messages import MessageBody, to_messages
from api_shim.openai.chat_request_m_tools import (
    FormatBody,
    FunctionBody,
    ToolBody,
    to_choice,
    to_format,
    to_tools,
)
from api_shim.openai.request_fields import Asked, Body, made, unsupported, wrong
from api_shim.submission.ignored_fields import LeftAlone
from contract.chat import ChatRequest, Think

_THINK: Final[Mapping[str, Think]] = {
    "none": "off",
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "xhigh",
}


class StreamOptions(Body):
    """What a stream tells besides words."""

    include_usage: bool = False
    """Whether a last chunk without choices tells how many tokens it took."""
    include_obfuscation: Annotated[bool | None, LeftAlone(unless=(False,))] = None
    """Chunks are as long as their words: what hides that is not done."""


class ReasoningBody(Body):
    """How hard to think, as OpenRouter's clients say it."""

    effort: str | None = None
    enabled: bool | None = None


class TemplateBody(Body):
    """What a chat template is told, as vLLM's and llama-server's clients say it."""

    enable_thinking: bool | None = None


class Sampled(Asked):
    """What a request for text may say of how it is written, in a chat or without one."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    max_tokens: int | None = None
    """Negative means without a limit, as local servers have it."""
    n: int | None = None
    """1; ask several times for several answers."""

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with a chunk that tells the tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatBody(Sampled):
    """A conversation to be continued."""

    messages: Annotated[list[MessageBody], Field(min_length=1)]
    tools: list[ToolBody] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionBody] | None = None
    """Deprecated: `tools`."""
    function_call: str | dict[str, Any] | None = None
    """Deprecated: `tool_choice`."""
    response_format: FormatBody | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: str | None = None
    """none, minimal, low, medium, high, xhigh or max."""
    reasoning: ReasoningBody | None = None
    """`{"effort": ...}` or `{"enabled": ...}`, as some clients say it."""
    chat_template_kwargs: TemplateBody | None = None
    """`{"enable_thinking": ...}`, as vLLM's and llama-server's clients say it."""
    store: Annotated[bool | None, LeftAlone(unless=(False,))] = None
    """Chats are not kept to be looked up as such; a response is (`/v1/responses`)."""
    modalities: list[str] | None = None
    """Text; sound is refused."""

    @property
    @override
    def spelt(self) -> Mapping[str, str]:
        is_new = self.max_completion_tokens is not None
        return {"max_tokens": "max_completion_tokens"} if is_new else {}


def to_chat(body: ChatBody) -> ChatRequest:
    """The request; raises Refusal for what cannot be done."""
    if any(modality != "text" for modality in body.modalities or ()):
        raise unsupported("modalities", "answers are text")
    tools = to_tools(body.tools, body.functions)
    choice, tools = to_choice(body.tool_choice or body.function_call, tools)
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    return made(
        ChatRequest,
        body,
        messages=to_messages(body.messages),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=to_format(body.response_format),
        think=_think(body),
        logprobs=bool(body.logprobs),
        top_logprobs=body.top_logprobs,
        **sampling(body, limit),
    )


def sampling(body: Sampled, limit: int | None) -> dict[str, Any]:
    """How the text is written, in the contract's words; raises Refusal."""
    if body.n is not None and body.n != 1:
        raise unsupported("n", "a request has one answer here: send as many requests")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return {
        "max_tokens": None if limit is not None and limit < 0 else limit,
        "stop": tuple(word for word in stop if word),
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": None if body.top_k is not None and body.top_k < 0 else body.top_k,
        "min_p": body.min_p,
        "seed": body.seed,
        "frequency_penalty": body.frequency_penalty,
        "presence_penalty": body.presence_penalty,
        "logit_bias": body.logit_bias or None,
    }


def _think(body: ChatBody) -> Think:
    if body.reasoning_effort is not None:
        return to_think(body.reasoning_effort, "reasoning_effort")
    reasoning, template = body.reasoning or ReasoningBody(), body.chat_template_kwargs
    if reasoning.effort is not None:
        return to_think(reasoning.effort, "reasoning.effort")
    wish = reasoning.enabled
    if wish is None and template is not None:
        wish = template.enable_thinking
    return "auto" if wish is None else "on" if wish else "off"


def to_think(effort: str | None, field: str) -> Think:
    """How hard to think; raises Refusal that names the field."""
    if effort is None:
        return "auto"
    if effort not in _THINK:
        raise wrong(field, f"it is one of {', '.join(_THINK)}")
    return _THINK[effort]
