"""POST /api/chat: their request as a job of ours. Pure; chat_response.py tells the answer.

Without messages it is no chat: it brings the model into memory, or takes it out of it.
Source: ollama/ollama `api/types.go` (ChatRequest), `server/routes.go` (ChatHandler).
"""

from typing import Any

from api_shim.ollama.messages import AskedMessage, AskedTool, messages, tools
from api_shim.ollama.request_fields import (
    Named,
    Options,
    answer_format,
    options,
    requested,
    thinking,
)
from api_shim.ollama.request_fields_m_durations import keep_alive_s
from contract.chat import ChatRequest
from contract.models import LoadRequest, UnloadRequest


class Generation(Named):
    """What chat and generate have in common."""

    stream: bool | None = None
    """Absent means true."""
    format: str | dict[str, Any] | None = None
    """`json`, or a JSON schema."""
    options: Options | None = None
    """`temperature`, `top_p`, `top_k`, `min_p`, `seed`, `stop`, `num_predict`, `num_ctx`,
    `frequency_penalty`, `presence_penalty`, `repeat_penalty`: as far as the backend can."""
    think: bool | str | None = None
    """true, false, or how much: `low`, `medium`, `high`, `max`."""
    keep_alive: float | str | None = None
    """Seconds, or a duration such as `5m`; -1 for ever, 0 lets the model go afterwards."""
    logprobs: bool | None = None
    top_logprobs: int | None = None
    truncate: bool | None = None
    shift: bool | None = None

    @property
    def is_streamed(self) -> bool:
        """Whether the answer comes in lines."""
        return self.stream is not False


class ChatBody(Generation):
    """Ollama's chat."""

    messages: tuple[AskedMessage, ...] | None = None
    tools: tuple[AskedTool, ...] | None = None


def shared(body: Generation) -> dict[str, Any]:
    """The fields of a job that chat and generate fill in the same way; raises InvalidRequest."""
    think = thinking(body.think)
    return {
        **options(body.options),
        "backend": body.backend,
        "model": body.wanted,
        "response_format": answer_format(body.format),
        "think": None if think == "auto" else think,
        "logprobs": body.logprobs,
        "top_logprobs": body.top_logprobs,
        "truncate": body.truncate,
        "shift": body.shift,
        "keep_alive_s": keep_alive_s(body.keep_alive),
    }


def to_job(body: ChatBody) -> ChatRequest | LoadRequest | UnloadRequest:
    """The job that a chat is; raises InvalidRequest."""
    if not body.messages:
        return loading(body)
    return requested(
        ChatRequest,
        messages=messages(body.messages),
        tools=tools(body.tools),
        **shared(body),
    )


def loading(body: Generation) -> LoadRequest | UnloadRequest:
    """The job that a request without words is; raises InvalidRequest."""
    seconds = keep_alive_s(body.keep_alive)
    fields = {"backend": body.backend, "model": body.wanted}
    if seconds == 0:
        return requested(UnloadRequest, **fields)
    return requested(LoadRequest, keep_alive_s=seconds, **fields)
