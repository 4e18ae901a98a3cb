"""What a caller may say, made into requests: validated here, before anything is sent. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from contract.chat import ChatRequest, Message
from contract.errors import InvalidRequest
from contract.jobs import REQUESTS
from contract.requests import Kind, Request
from contract.tenants import NewKey
from contract.wire import must_be_text

_REPLACED = "\N{REPLACEMENT CHARACTER}".encode()
Item = TypeVar("Item")
Words = str | Sequence[Message | Mapping[str, Any]]
"""A prompt, or a conversation."""


def request_of(request: Request | Kind, fields: Mapping[str, Any]) -> Request:
    """A request from its kind and fields, or as it is; raises InvalidRequest naming the field."""
    if isinstance(request, Request):
        if fields:
            raise InvalidRequest("give either a request or a kind with fields, not both")
        return request
    model = REQUESTS.get(request)
    if model is None:
        raise InvalidRequest(f"no kind of job is called {request!r}: try {', '.join(REQUESTS)}")
    must_be_text(dict(fields), request)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error) from error


def new_key(tenant: str, fields: Mapping[str, Any]) -> NewKey:
    """A wish for an API key; raises InvalidRequest naming the field."""
    try:
        return NewKey.model_validate({**fields, "tenant": tenant})
    except ValidationError as error:
        raise _invalid(error) from error


def _invalid(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "request"
    return InvalidRequest(f"{where}: {first['msg']}")


def chat_of(words: Words, fields: Mapping[str, Any]) -> ChatRequest:
    """A chat request from a prompt or a conversation."""
    messages = [{"role": "user", "content": words}] if isinstance(words, str) else list(words)
    request = request_of("chat", {**fields, "messages": messages})
    assert isinstance(request, ChatRequest)  # noqa: S101 - REQUESTS says so; for the type checker
    return request


def body_of(request: Request) -> bytes:
    """The JSON that a shim takes; the kind stands in the path. Raises InvalidRequest."""
    try:
        body = request.model_dump_json(exclude={"kind"}, exclude_none=True, by_alias=True).encode()
    except (PydanticSerializationError, UnicodeEncodeError):
        must_be_text(request.model_dump(), request.kind)
        raise
    if _REPLACED in body:  # what the serializer makes of the name of a field that is no text
        must_be_text(request.model_dump(), request.kind)
    return body


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of up to `size` items, taken only as they are asked for."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
