"""Builds requests from a caller's arguments, and validates them before anything is sent. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from contract.chat import ChatRequest, Message
from contract.errors import InvalidRequest
from contract.jobs import REQUESTS
from contract.requests import Kind, Request
from contract.tenants import KeyChange, KeyRotation, NewKey
from contract.wire import encode, must_be_text

_REPLACED = "\N{REPLACEMENT CHARACTER}".encode()
Item = TypeVar("Item")
ChatInput = str | Sequence[Message | Mapping[str, Any]]
"""A prompt, or the messages of a conversation."""


def request_of(request: Request | Kind, fields: Mapping[str, Any]) -> Request:
    """A request from its kind and fields; a request is returned as it is.

    Raises InvalidRequest, which names the field.
    """
    if isinstance(request, Request):
        if fields:
            raise InvalidRequest("give either a request or a kind with fields, not both")
        return request
    model = REQUESTS.get(request)
    if model is None:
        raise InvalidRequest(f"unknown kind of job {request!r}: use one of {', '.join(REQUESTS)}")
    must_be_text(dict(fields), request)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error) from error


def new_key(tenant: str, fields: Mapping[str, Any]) -> NewKey:
    """The request for a new API key of a tenant; raises InvalidRequest, which names the field."""
    try:
        return NewKey.model_validate({**fields, "tenant": tenant})
    except ValidationError as error:
        raise _invalid(error) from error


def key_change(fields: Mapping[str, Any]) -> bytes:
    """The JSON of a change of an API key: only fields that are given, also those that are None.

    Raises InvalidRequest, which names the field.
    """
    try:
        return KeyChange.model_validate(dict(fields)).model_dump_json(exclude_unset=True).encode()
    except ValidationError as error:
        raise _invalid(error) from error


def rotation(overlap_s: float, expires_in_s: float | None) -> bytes:
    """The JSON of a rotation of an API key; raises InvalidRequest, which names the field."""
    try:
        return encode(KeyRotation(overlap_s=overlap_s, expires_in_s=expires_in_s))
    except ValidationError as error:
        raise _invalid(error) from error


def _invalid(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "request"
    return InvalidRequest(f"{where}: {first['msg']}")


def chat_of(chat: ChatInput, fields: Mapping[str, Any]) -> ChatRequest:
    """A chat request from a prompt or messages; raises InvalidRequest, which names the field."""
    messages = [{"role": "user", "content": chat}] if isinstance(chat, str) else list(chat)
    request = request_of("chat", {**fields, "messages": messages})
    assert isinstance(request, ChatRequest)  # noqa: S101 - REQUESTS says so; for the type checker
    return request


def body_of(request: Request) -> bytes:
    """The JSON body of a request, without its kind, which is in the path.

    Raises InvalidRequest for a string that is not valid Unicode.
    """
    try:
        body = request.model_dump_json(exclude={"kind"}, exclude_none=True, by_alias=True).encode()
    except (PydanticSerializationError, UnicodeEncodeError):
        must_be_text(request.model_dump(), request.kind)
        raise
    if _REPLACED in body:  # pydantic puts it in place of a lone surrogate in a field's name
        must_be_text(request.model_dump(), request.kind)
    return body


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of up to `size` items; reads the source only as needed."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
