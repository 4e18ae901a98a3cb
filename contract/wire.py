"""The base classes of everything that is sent as JSON, and how it is encoded and decoded.

Two rules. Input of clients is validated strictly: an unknown field is refused by its name. JSON of
another process of the fleet may be of a newer version: what this version does not know is left
out, because a fleet is upgraded one process at a time.
"""

from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, from_json

from contract.errors import InvalidRequest

VERSION: Final = 1
"""Version of the JSON that this code writes; it reads every version up to it."""


class WireModel(BaseModel):
    """Base of models that cross a process boundary: immutable, unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, use_attribute_docstrings=True
    )


class ClientModel(WireModel):
    """Base of models that clients send: a null is the same as a field left out."""

    @model_validator(mode="before")
    @classmethod
    def _nulls_are_left_out(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and None in fields.values():
            return {name: value for name, value in fields.items() if value is not None}
        return fields


AnyModel = TypeVar("AnyModel", bound=WireModel)


def encode(model: WireModel) -> bytes:
    """Compact UTF-8 JSON of a model; fields that are None are left out."""
    return model.__pydantic_serializer__.to_json(model, exclude_none=True, by_alias=True)


def decode(kind: type[AnyModel], data: bytes | str) -> AnyModel:
    """Read what `encode` wrote, in this version or a newer one.

    Unknown fields, and items of lists that are invalid, are left out. Raises
    pydantic.ValidationError if the rest is invalid.
    """
    try:
        return kind.model_validate_json(data, extra="ignore")
    except ValidationError as error:
        fields = from_json(data) if error.errors()[0]["type"] != "json_invalid" else None
        if fields is None:
            raise
        for fault in reversed(error.errors()):
            _drop_item(fields, fault)
        return kind.model_validate(fields, extra="ignore")


def _drop_item(fields: Any, error: ErrorDetails) -> None:
    """Remove the innermost list item that contains the error."""
    found, holder, at = fields, None, 0
    for step in error["loc"]:
        if isinstance(found, list) and isinstance(step, int) and step < len(found):
            holder, at, found = found, step, found[step]
        elif isinstance(found, dict) and step in found:
            found = found[step]
    if holder is not None:
        del holder[at]


_HOLDS_TEXT: Final = (str, dict, list, tuple)


def must_be_text(value: Any, where: str = "request") -> None:
    """Check that all strings of JSON-like data are valid UTF-8.

    Raises InvalidRequest with the path of the first one that is not.
    """
    waiting = [(where, value)]
    while waiting:
        path, found = waiting.pop()
        if not isinstance(found, _HOLDS_TEXT):
            continue
        if isinstance(found, str):
            if not _is_text(found):
                raise InvalidRequest(
                    f"{path}: it holds a lone surrogate, half of a character that was cut in two, "
                    "which is no text: send whole characters"
                )
            continue
        inside = found.items() if isinstance(found, dict) else enumerate(found)
        for name, inner in inside:
            waiting.append((f"{path}, the name of a field", name))
            waiting.append((f"{path}.{written(name)}", inner))


def written(value: object) -> str:
    """A value as valid UTF-8 text of at most 80 characters; lone surrogates are escaped."""
    return str(value)[:80].encode("utf-8", "backslashreplace").decode()


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
