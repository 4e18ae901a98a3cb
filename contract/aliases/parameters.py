"""The parameters of an alias: fields that it sets in requests, by default or always. Pure.

A parameter is a field that a request of a model may have: `temperature`, `context_length`, `think`;
not the content (`messages`), and not what concerns the job (`priority`). Ollama's `num_ctx` and
`num_predict` are accepted for our own names. `system` is a system prompt: by default it is for
conversations that have none, if forced it replaces those of the client.

A request is stored as the client sent it, with its route: `applied` makes the request of one target
of it. So the same job can move to a target with other parameters.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from contract.chat import ChatRequest, CountRequest, Message
from contract.embeddings import EmbedRequest
from contract.images import ImageRequest
from contract.jobs import AnyRequest
from contract.models import LoadRequest, ShowRequest, UnloadRequest
from contract.requests import AliasTarget, Request
from contract.rerank import RerankRequest

ALIASED: Final = (
    ChatRequest, EmbedRequest, ImageRequest, RerankRequest, CountRequest, ShowRequest, LoadRequest,
    UnloadRequest,
)  # fmt: skip
"""Requests whose model may be an alias. The others change the models of a backend, and name them as
they are."""
SYSTEM: Final = "system"
_OTHER_NAMES: Final = {"num_ctx": "context_length", "num_predict": "max_tokens"}
_CONTENT: Final = frozenset(
    {
        "model", "messages", "prompt", "suffix", "input", "tokens", "image", "mask", "tools",
        "documents", "queries", "query", "response_notes", "message_notes",
    }
)  # fmt: skip
_LONGEST: Final = 60


def _fields() -> dict[str, list[type[Request]]]:
    """The parameters, and the requests that have each."""
    found: dict[str, list[type[Request]]] = {}
    for kind in ALIASED:
        for name in kind.model_fields.keys() - Request.model_fields.keys() - _CONTENT:
            found.setdefault(name, []).append(kind)
    return found


FIELDS: Final[Mapping[str, list[type[Request]]]] = dict(sorted(_fields().items()))
"""By name, the requests that have each parameter; `system` is not among them."""


@lru_cache(maxsize=256)
def _adapter(kind: type[Request], name: str) -> TypeAdapter[Any]:
    return TypeAdapter(kind.model_fields[name].rebuild_annotation())


def checked(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters under our own names; raises ValueError, which names the parameter."""
    found: dict[str, Any] = {}
    for given, value in parameters.items():
        name = _OTHER_NAMES.get(given, given)
        if name in found:
            raise ValueError(f"{given}: {name} is the same parameter: give one of them")
        _check(given, name, value)
        found[name] = value
    return found


def _check(given: str, name: str, value: Any) -> None:
    """Raise ValueError for a value that no request may have."""
    if value is None:
        raise ValueError(f"{given}: it has no value: leave it out")
    if name == SYSTEM:
        if not isinstance(value, str) or not value:
            raise ValueError(f"{SYSTEM}: give a text")
        return
    if name not in FIELDS:
        raise ValueError(
            f"{given[:_LONGEST]}: an alias sets no such field; it may set "
            f"{', '.join((SYSTEM, *FIELDS))}, and Ollama's {', '.join(_OTHER_NAMES)}"
        )
    for kind in FIELDS[name]:
        try:
            _adapter(kind, name).validate_python(value)
        except ValidationError as error:
            raise ValueError(f"{given}: {error.errors()[0]['msg']}") from None


def applied(request: AnyRequest, number: int = 0) -> AnyRequest:
    """The request of a target of its route, the first is number 0; itself if it has no route.

    Parameters that this version does not know are left out.
    """
    if request.route is None:
        return request
    return with_target(request.model_copy(update={"route": None}), request.route.targets[number])


def with_target(request: AnyRequest, target: AliasTarget) -> AnyRequest:
    """The request for the model of a target, with its parameters."""
    update: dict[str, Any] = {"model": target.model}
    if target.backend is not None:
        update["backend"] = target.backend
    kind = type(request)
    for name, value in {**target.default, **target.force}.items():
        field = kind.model_fields.get(name)
        if field is None or name in Request.model_fields or name in _CONTENT:
            continue
        is_unset = getattr(request, name) == field.get_default(call_default_factory=True)
        if name in target.force or is_unset:
            update[name] = _value(kind, name, value)
    if isinstance(request, (ChatRequest, CountRequest)) and request.messages:
        update["messages"] = _with_system(request.messages, target)
    return request.model_copy(update=update)


def _value(kind: type[Request], name: str, value: Any) -> Any:
    try:
        return _adapter(kind, name).validate_python(value)
    except ValidationError:
        return kind.model_fields[name].get_default(call_default_factory=True)


def _with_system(messages: tuple[Message, ...], target: AliasTarget) -> tuple[Message, ...]:
    forced, default = target.force.get(SYSTEM), target.default.get(SYSTEM)
    if forced is not None:
        rest = [message for message in messages if message.role != "system"]
        return (Message(role="system", content=forced), *rest)
    if default is None or any(message.role == "system" for message in messages):
        return messages
    return (Message(role="system", content=default), *messages)
