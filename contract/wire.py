"""How a noun becomes JSON and back: frozen, and marked with the version it was written in.

Two rules. What a caller says is read strictly: a field that we do not know is refused by name. What
another process of the fleet says may be of a newer version: what this one does not know of it is
left out, because fleets are upgraded one process at a time.
"""

from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, from_json

from contract.errors import InvalidRequest

VERSION: Final = 1
"""Version of the JSON that this code writes; it reads every version up to it."""


class WireModel(BaseModel):
    """Something that crosses a process boundary: immutable, and strict about unknown fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, use_attribute_docstrings=True
    )


class Asked(WireModel):
    """A noun that callers write: a null in it is as if the field had been left out."""

    @model_validator(mode="before")
    @classmethod
    def _nulls_are_left_out(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and None in fields.values():
            return {name: value for name, value in fields.items() if value is not None}
        return fields


AnyNoun = TypeVar("AnyNoun", bound=WireModel)


def encode(noun: WireModel) -> bytes:
    """Compact UTF-8 JSON of a noun; fields that are None are left out."""
    return noun.__pydantic_serializer__.to_json(noun, exclude_none=True, by_alias=True)


def decode(kind: type[AnyNoun], data: bytes | str) -> AnyNoun:
    """Read what `encode` wrote, in this version or a newer one.

    Unknown fields, and items of lists that cannot be read, are left out; raises
    pydantic.ValidationError where the rest is not enough.
    """
    try:
        return kind.model_validate_json(data, extra="ignore")
    except ValidationError as error:
        fields = from_json(data) if error.errors()[0]["type"] != "json_invalid" else None
        if fields is None:
            raise
        for strange in reversed(error.errors()):
            _drop_item(fields, strange)
        return kind.model_validate(fields, extra="ignore")


def _drop_item(fields: Any, error: ErrorDetails) -> None:
    """Take the innermost item of a list that an error lies in out of it."""
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
    """Look through JSON-like data; raises InvalidRequest naming the field that is no text."""
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
    """Anything as words that can be sent: what is no text is spelt out, and cut at 80 letters."""
    return str(value)[:80].encode("utf-8", "backslashreplace").decode()


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
