"""POST /api/chat and /api/generate: translates the body into a request of the contract. Pure.

A request without messages or prompt loads the model, or unloads it. Source: ollama/ollama
`api/types.go` (ChatRequest, GenerateRequest), `server/routes.go` (ChatHandler).
"""

from typing import Any, Final

from api_shim.ollama.chat_messages import OllamaMessage, OllamaTool, content, messages, tools
from api_shim.ollama.request_fields import (
    NamedModel,
    Options,
    build_request,
    keep_alive_s,
    options,
    response_format_of,
    thinking,
)
from contract.chat import ChatRequest, Message
from contract.errors import InvalidRequest
from contract.models import LoadRequest, UnloadRequest
from contract.requests import Word


class Generation(NamedModel):
    """The fields that chat and generate share."""

    stream: bool | None = None
    """The default is true."""
    format: Word | dict[str, Any] | None = None
    """`json`, or a JSON schema."""
    options: Options | None = None
    """`temperature`, `top_p`, `top_k`, `min_p`, `seed`, `stop`, `num_predict`, `num_ctx`,
    `frequency_penalty`, `presence_penalty`, `repeat_penalty`: as far as the backend supports them.
    """
    think: bool | Word | None = None
    """true, false, or an effort: `low`, `medium`, `high`, `max`."""
    keep_alive: float | Word | None = None
    """Seconds, or a duration such as `5m`; -1 for ever, 0 unloads the model afterwards."""
    logprobs: bool | None = None
    top_logprobs: int | None = None
    truncate: bool | None = None
    shift: bool | None = None

    @property
    def is_streamed(self) -> bool:
        """Whether the response is a stream of lines."""
        return self.stream is not False


class OllamaChatBody(Generation):
    """A chat."""

    messages: list[OllamaMessage] | None = None
    tools: tuple[OllamaTool, ...] | None = None


def shared_fields(body: Generation) -> dict[str, Any]:
    """The contract's fields that chat and generate fill in alike; raises InvalidRequest."""
    think = thinking(body.think)
    return {
        **options(body.options),
        "backend": body.backend,
        "model": body.model_name,
        "response_format": response_format_of(body.format),
        "think": None if think == "auto" else think,
        "logprobs": body.logprobs,
        "top_logprobs": body.top_logprobs,
        "truncate": body.truncate,
        "shift": body.shift,
        "keep_alive_s": keep_alive_s(body.keep_alive),
    }


def chat_to_job(body: OllamaChatBody) -> ChatRequest | LoadRequest | UnloadRequest:
    """The request for a chat; the body's messages are used up. Raises InvalidRequest."""
    if not body.messages:
        return load_or_unload(body)
    return build_request(
        ChatRequest,
        messages=messages(body.messages),
        tools=tools(body.tools),
        **shared_fields(body),
    )


def load_or_unload(body: Generation) -> LoadRequest | UnloadRequest:
    """The request for a body without text; raises InvalidRequest."""
    seconds = keep_alive_s(body.keep_alive)
    fields = {"backend": body.backend, "model": body.model_name}
    if seconds == 0:
        return build_request(UnloadRequest, **fields)
    return build_request(LoadRequest, keep_alive_s=seconds, **fields)


_NOT_HERE: Final = {
    "context": "token ids of one backend mean nothing to another, and Ollama deprecates the "
    "field; send the conversation as messages to /api/chat",
    "template": "a template belongs to a model: create one with /api/create, or apply the template "
    "yourself and send raw: true",
}


class GenerateBody(Generation):
    """A completion of a prompt."""

    prompt: str | None = None
    suffix: str | None = None
    """Text after the completion (fill in the middle)."""
    system: str | None = None
    template: str | None = None
    """Refused."""
    context: tuple[int, ...] | None = None
    """Refused, unless it is empty."""
    raw: bool | None = None
    """Whether the prompt is sent without the chat template."""
    images: tuple[str, ...] | None = None
    """Base64."""


def generate_to_job(body: GenerateBody) -> ChatRequest | LoadRequest | UnloadRequest:
    """The request for a completion; raises InvalidRequest."""
    for field, why in _NOT_HERE.items():
        if getattr(body, field):
            raise InvalidRequest(f"{field}: not supported: {why}")
    if not body.prompt:
        return load_or_unload(body)
    if body.raw or body.suffix:
        return _raw(body, body.prompt)
    turn = Message(role="user", content=content(body.prompt, body.images))
    system = (Message(role="system", content=body.system),) if body.system else ()
    return build_request(ChatRequest, messages=(*system, turn), **shared_fields(body))


def _raw(body: GenerateBody, prompt: str) -> ChatRequest:
    for field in ("system", "images"):
        if getattr(body, field):
            raise InvalidRequest(f"{field}: cannot be combined with raw or suffix: leave one out")
    extra: dict[str, Any] = {"suffix": body.suffix} if body.suffix else {}
    return build_request(ChatRequest, prompt=prompt, **extra, **shared_fields(body))
