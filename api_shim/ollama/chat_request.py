"""POST /api/chat: their request as a job of ours. Pure; chat_response.py tells the answer.

Without messages it is no chat: it brings the model into memory, or takes it out of it.
Source: ollama/ollama `api/types.go` (ChatRequest), `server/routes.go` (ChatHandler).
"""

from typing import Any, Final

from api_shim.ollama.chat_messages import OllamaMessage, OllamaTool, content, messages, tools
from api_shim.ollama.request_fields import (
    NamedModel,
    Options,
    answer_format,
    keep_alive_s,
    options,
    requested,
    thinking,
)
from contract.chat import ChatRequest, Message
from contract.errors import InvalidRequest
from contract.models import LoadRequest, UnloadRequest


class Generation(NamedModel):
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


class OllamaChatBody(Generation):
    """Ollama's chat."""

    messages: tuple[OllamaMessage, ...] | None = None
    tools: tuple[OllamaTool, ...] | None = None


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


def chat_to_job(body: OllamaChatBody) -> ChatRequest | LoadRequest | UnloadRequest:
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


_NOT_HERE: Final = {
    "context": "the tokens of an earlier answer mean nothing to another backend, and the original "
    "calls it deprecated; send the conversation as messages to /api/chat",
    "template": "a template belongs to a model here; make one with /api/create, or lay it around "
    "the prompt yourself and send raw: true",
}


class GenerateBody(Generation):
    """Ollama's completion."""

    prompt: str | None = None
    suffix: str | None = None
    """Text that stands behind the answer (fill in the middle)."""
    system: str | None = None
    template: str | None = None
    """Refused."""
    context: tuple[int, ...] | None = None
    """Refused, unless it is empty."""
    raw: bool | None = None
    """Whether the prompt goes to the model as it is, without any template."""
    images: tuple[str, ...] | None = None
    """Base64."""


def generate_to_job(body: GenerateBody) -> ChatRequest | LoadRequest | UnloadRequest:
    """The job that a completion is; raises InvalidRequest."""
    for field, why in _NOT_HERE.items():
        if getattr(body, field):
            raise InvalidRequest(f"{field}: not taken here: {why}")
    if not body.prompt:
        return loading(body)
    if body.raw or body.suffix:
        return _raw(body, body.prompt)
    turn = Message(role="user", content=content(body.prompt, body.images))
    system = (Message(role="system", content=body.system),) if body.system else ()
    return requested(ChatRequest, messages=(*system, turn), **shared(body))


def _raw(body: GenerateBody, prompt: str) -> ChatRequest:
    for field in ("system", "images"):
        if getattr(body, field):
            raise InvalidRequest(
                f"{field}: it goes with a plain prompt, not with raw or suffix: leave one out"
            )
    extra: dict[str, Any] = {"suffix": body.suffix} if body.suffix else {}
    return requested(ChatRequest, prompt=prompt, **extra, **shared(body))
