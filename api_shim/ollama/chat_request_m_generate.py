"""POST /api/generate: their request as a job of ours. Pure; chat_response.py tells the answer.

A prompt is one turn of a user, unless it is `raw` or has a `suffix`: then it is text to go on from.
Source: ollama/ollama `api/types.go` (GenerateRequest), `server/routes.go` (GenerateHandler).
"""

from typing import Any, Final

from api_shim.ollama.chat_request import Generation, loading, shared
from api_shim.ollama.messages import content
from api_shim.ollama.request_fields import requested
from contract.chat import ChatRequest, Message
from contract.errors import InvalidRequest
from contract.models import LoadRequest, UnloadRequest

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


def to_job(body: GenerateBody) -> ChatRequest | LoadRequest | UnloadRequest:
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
