"""The base classes of everything that is sent as JSON, and how it is encoded and decoded.

Two rules. Input of clients is validated strictly: an unknown field is refused by its name. JSON of
another process of the fleet may be of a newer version: what this version does not know is left
out, because a fleet is upgraded one process at a time.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import (
    CoreSchema,
    ErrorDetails,
    PydanticCustomError,
    PydanticKnownError,
    core_schema,
    from_json,
    to_json,  # noqa: TID251 - no line, and a digest that must stay what it was
)
from typing_extensions import override

from contract.errors import InvalidRequest
from contract.json_lines import EncodedList

VERSION: Final = 1
"""Version of the JSON that this code writes; it reads every version up to it."""


class WireModel(BaseModel):
    """Base of models that cross a process boundary: immutable, unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, use_attribute_docstrings=True
    )


MOST_FIELDS: Final = 128
"""Fields of an object of a client whose fields have names; free ones may have more."""
MOST_ITEMS: Final = 10_000
"""Items of a list of a client that sets no bound of its own; lists of numbers have none."""


def sent_fields(fields: Any) -> Any:
    """An object of a client without its null fields; any other value unchanged.

    Raises PydanticCustomError, before any field is looked at, if there are too many.
    """
    if isinstance(fields, dict):
        if len(fields) > MOST_FIELDS:
            raise PydanticCustomError(
                "too_many_fields",
                "an object may have at most {max_length} fields, not {actual_length}",
                {"max_length": MOST_FIELDS, "actual_length": len(fields)},
            )
        if None in fields.values():
            return {name: value for name, value in fields.items() if value is not None}
    return fields


def bound_lists(schema: Any) -> None:
    """Bound all lists of a model's schema, in place, and end each at its first invalid item.

    So an invalid request has few errors, however long it is.
    """
    if isinstance(schema, list | tuple):
        for each in schema:
            bound_lists(each)
    elif isinstance(schema, dict):
        if schema.get("type") == "list" or "variadic_item_index" in schema:
            schema.setdefault("fail_fast", True)
            items = schema["items_schema"]
            if (items[0] if isinstance(items, list) else items).get("type") != "int":
                schema.setdefault("max_length", MOST_ITEMS)
        for name, inner in schema.items():
            if name not in {"metadata", "serialization"}:
                bound_lists(inner)


class BoundedModel(BaseModel):
    """What clients send: lists and fields are bounded, a null is the same as a field left out."""

    @classmethod
    @override
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The usual schema, with bounds."""
        schema = handler(source)
        bound_lists(handler.resolve_ref_schema(schema))
        return schema

    @model_validator(mode="before")
    @classmethod
    def _nulls_are_left_out(cls, fields: Any) -> Any:
        return sent_fields(fields)


class ClientModel(BoundedModel, WireModel):
    """Base of models of the API that clients send; unknown fields are refused."""

    model_config = ConfigDict(ser_json_inf_nan="constants")


@dataclass(frozen=True)
class TextLength:
    """Bounds texts of which a request may have thousands, in characters.

    `Field(max_length=...)` has Python keep each text's UTF-8 with it.
    """

    most: int
    least: int = 0

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The text's schema, and what checks it."""
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """What a bounded field has."""
        least = {"minLength": self.least} if self.least else {}
        return {**handler(schema), "maxLength": self.most, **least}

    def _checked(self, text: str) -> str:
        if len(text) > self.most:
            raise PydanticKnownError("string_too_long", {"max_length": self.most})
        if len(text) < self.least:
            raise PydanticKnownError("string_too_short", {"min_length": self.least})
        return text


_PLAIN: Final = frozenset({int, float, bool, type(None)})
"""Types of values that are encoded together, if a list or an object has no others."""
_LARGE_CHARS: Final = 2**18
"""Pieces of fewer bytes are joined."""
_SLICE_CHARS: Final = 2**21
AnyModel = TypeVar("AnyModel", bound=WireModel)


def encode(model: WireModel) -> bytes:
    """Compact UTF-8 JSON of a model; fields that are None are left out."""
    return model.__pydantic_serializer__.to_json(model, exclude_none=True, by_alias=True)


def infinite_field(model: WireModel, pieces: Iterable[bytes]) -> str | None:
    """The field of a client's model that has a number out of range, if one has.

    `pieces` are its JSON, which has the word `Infinity` or `NaN` then, and is no JSON.
    """
    if not any(b"Infinity" in piece or b"NaN" in piece for piece in pieces):
        return None
    return next((name for name, value in _fields(model) if not is_finite(value)), None)


def encode_large(model: WireModel) -> list[bytes]:
    """What `encode` returns, in pieces, so that no text of a large request is there twice.

    Python keeps a text with one character beyond U+00FF in two bytes a character, beyond U+FFFF in
    four. The serializer would add the text in UTF-8, which Python keeps with it, a buffer that
    grows, and a copy of the buffer. Here each text is encoded apart, a large one a slice at a time.
    A large text that is there twice, as what `/v1/responses` repeats of a request, has the same
    slices.
    """
    return list(_pieces(_parts(model, {})))


def json_pieces(value: Any) -> Iterator[bytes]:
    """The JSON of a value, as `to_json` writes it, in pieces of about two megabytes.

    An infinite number, which JSON has no word for, is null.
    """
    return _pieces(_parts(value))


def is_finite(value: Any) -> bool:
    """Whether no number of a value or model is out of range: parsers read `1e999` as infinity."""
    todo = [value]
    for each in todo:
        if isinstance(each, (dict, BaseModel)):
            todo.extend((each if isinstance(each, dict) else each.__dict__).values())
        elif isinstance(each, (list, tuple)):
            todo.extend(each)
        elif isinstance(each, float) and not math.isfinite(each):
            return False
    return True


def _pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for part in parts:
        is_large = len(part) >= _LARGE_CHARS
        if not is_large:
            held += part
        if held and (is_large or len(held) >= _SLICE_CHARS):
            yield bytes(held)
            held.clear()
        if is_large:
            yield part
    if held:
        yield bytes(held)


def _parts(value: Any, seen: dict[int, list[bytes]] | None = None) -> Iterator[bytes]:
    """The JSON of a value; `seen` has the slices of a model's large texts by the ids of these."""
    if isinstance(value, str):
        if seen is None or len(value) < _LARGE_CHARS:
            yield from _slices(value)
        else:
            yield from seen.get(id(value)) or seen.setdefault(id(value), [*_slices(value)])
    elif isinstance(value, EncodedList):
        yield from value.pieces
    elif not isinstance(value, (BaseModel, Mapping, list, tuple)) or _is_plain(value):
        yield to_json(value, inf_nan_mode="null" if seen is None else "constants")
    elif isinstance(value, (BaseModel, Mapping)):
        mark = b"{"
        for name, each in _fields(value) if isinstance(value, BaseModel) else value.items():
            yield mark
            yield from _slices(name)
            yield b":"
            yield from _parts(each, seen)
            mark = b","
        yield b"}"
    else:
        mark = b"["
        for each in value:
            yield mark
            yield from _parts(each, seen)
            mark = b","
        yield b"]"


def _is_plain(value: BaseModel | Mapping[str, Any] | Sequence[Any]) -> bool:
    if isinstance(value, (list, tuple)):
        return _PLAIN.issuperset(map(type, value))
    return not isinstance(value, BaseModel) and not value


def _fields(model: BaseModel) -> Iterator[tuple[str, Any]]:
    """The fields of a model that are not None: a dump would copy all objects of a schema."""
    for name, field in type(model).model_fields.items():
        if (value := getattr(model, name)) is not None:
            yield field.serialization_alias or name, value


def _slices(text: str) -> Iterator[bytes]:
    if len(text) <= _SLICE_CHARS:
        yield _encoded(text)
        return
    yield b'"'
    for start in range(0, len(text), _SLICE_CHARS):
        yield _encoded(text[start : start + _SLICE_CHARS])[1:-1]
    yield b'"'


def _encoded(text: str) -> bytes:
    """A text as JSON: of its bytes, because Python keeps UTF-8 with a text that is serialized."""
    return to_json(text if text.isascii() else text.encode("utf-8", "surrogatepass"))


def decode(kind: type[AnyModel], data: bytes | str) -> AnyModel:
    """Read what `encode` wrote, in this version or a newer one.

    Unknown fields, and items of lists that are invalid, are left out. Raises
    pydantic.ValidationError if the rest is invalid.
    """
    try:
        return kind.model_validate_json(data, extra="ignore")
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise
        return _decode_valid(kind, from_json(data), error)


def _decode_valid(kind: type[AnyModel], fields: Any, error: ValidationError) -> AnyModel:
    """Leave invalid items out; a list of a client's model reports one of them at a time."""
    for _ in range(_MOST_INVALID):
        dropped = [_drop_item(fields, fault) for fault in reversed(error.errors())]
        if not any(dropped):
            raise error
        try:
            return kind.model_validate(fields, extra="ignore")
        except ValidationError as next_error:
            error = next_error
    raise error


_MOST_INVALID: Final = 256


def _drop_item(fields: Any, error: ErrorDetails) -> bool:
    """Remove the innermost list item that contains the error; returns whether there is one."""
    found, holder, at = fields, None, 0
    for step in error["loc"]:
        if isinstance(found, list) and isinstance(step, int) and step < len(found):
            holder, at, found = found, step, found[step]
        elif isinstance(found, dict) and step in found:
            found = found[step]
    if holder is None:
        return False
    del holder[at]
    return True


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


UNREADABLE: Final = (
    ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
"""What reading a value raises that the fleet has not written so: of any form, size and depth."""


def number(text: str | bytes) -> float:
    """A stored number; raises ValueError for what is none, or no finite one."""
    found = float(text)
    if not math.isfinite(found):
        raise ValueError("a number is not finite")
    return found


def finite(score: Any) -> float | None:
    """A stored time; None if there is none, or an infinite one, which nobody has written."""
    found = math.inf if score is None else float(score)
    return found if math.isfinite(found) else None


def written(value: object) -> str:
    """A value as valid UTF-8 text of at most 80 characters; lone surrogates are escaped."""
    return str(value)[:80].encode("utf-8", "backslashreplace").decode()


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
