"""What a backend's JSON must look like before anything is read from it.

`Shape.read` takes a parsed value and gives it back as the adapters read it, or raises BadAnswer
with the JSON path of what was not understood. Strict is what an answer cannot do without: words,
calls, vectors, images. Lenient is what only describes it: a count, a duration, a flag of another
type is as if it had not been told. Fields that no adapter reads pass as they are.

Invariant: an adapter reads no field of a type that its shape has not demanded; a test feeds all
adapters with mutated answers.
"""

from collections.abc import Callable
from math import isfinite
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import (
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from contract.errors import BackendError, BadAnswer, TruncatedStream

Fields = TypeVar("Fields")

LENIENT: Final = ConfigDict(extra="allow")
"""Servers add fields as they like."""
MOST: Final = 2**53
"""No count or duration is greater; greater numbers are not the same to every reader of JSON."""
_NAMES: Final[tuple[tuple[type, str], ...]] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (str, "text"),
    (list, "a list"),
    (dict, "an object"),
)


class Shape(Generic[Fields]):
    """One kind of answer."""

    def __init__(self, kind: type[Fields]) -> None:
        """`kind` is a TypedDict, or anything that pydantic can validate."""
        self._validate = TypeAdapter(kind).validator.validate_python

    def read(self, value: Any) -> Fields:
        """The value as adapters may read it; raises BadAnswer."""
        try:
            return self._validate(value)  # type: ignore[no-any-return]
        except ValidationError as error:
            raise _not_understood(error, value) from None


def invalid_json(error: ValueError, *, is_cut: bool) -> BackendError:
    """What bytes mean that are no JSON: an answer that broke off, or one that nobody can read."""
    if is_cut:
        return TruncatedStream("the answer broke off in the middle of its JSON")
    return BadAnswer(f"the backend's answer is no JSON: {error}")


def _not_understood(error: ValidationError, value: Any) -> BadAnswer:
    """The deepest thing that is wrong: of a union's branches, the one that fitted the longest."""
    found = [
        _place(value, each["loc"], is_missing=each["type"] == "missing")
        for each in error.errors(include_url=False)
    ]
    path, what = max(found, key=lambda place: len(place[0]))
    where = "".join(path).removeprefix(".") or "its top"
    return BadAnswer(f"the backend's answer is not understood at {where}: it is {what}")


def _place(value: Any, loc: tuple[int | str, ...], *, is_missing: bool) -> tuple[list[str], str]:
    """Where a location leads, without the names that pydantic gives the branches of unions."""
    path: list[str] = []
    *steps, last = loc or ("",)
    for step in steps if is_missing else loc:
        if isinstance(value, dict) and step in value:
            path.append(f".{step}")
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            path.append(f"[{step}]")
        else:
            continue
        value = value[step]
    return ([*path, f".{last}"], "missing") if is_missing else (path, _named(value))


def _named(value: Any) -> str:
    """What a value is, in words that repeat nothing of it."""
    if isinstance(value, float) and not isfinite(value):
        return "a number that is none"
    return next((name for kind, name in _NAMES if isinstance(value, kind)), "null")


def none_if_invalid(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """What cannot be read is as if it had not been told."""
    try:
        return handler(value)
    except ValidationError:
        return None


def count(value: Any) -> int | None:
    """A number from 0 on; it may be written as a float (Ollama's `model_info`)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= MOST else None


def _measure(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -MOST <= value <= MOST else None


def _name(value: Any) -> Any:
    """An id may be a number (LM Studio)."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def object_items(value: Any) -> Any:
    """The objects among the items of a list; null is an empty one."""
    if value is None:
        return []
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else value


def items_with(field: str) -> Callable[[Any], Any]:
    """Keeps the items of a list that say who they are."""

    def kept(value: Any) -> Any:
        items = object_items(value)
        if not isinstance(items, list):
            return items
        return [each for each in items if each.get(field) not in (None, "")]

    return kept


Count = Annotated[int | None, BeforeValidator(count)]
"""A number of tokens, bytes or the like; anything else is as if it had not been told."""
Measure = Annotated[float | None, BeforeValidator(_measure)]
"""A finite number, or as if it had not been told."""
Name = Annotated[str, BeforeValidator(_name)]
OptionalText = Annotated[str | None, WrapValidator(none_if_invalid)]
"""TextList that only describe."""
TextList = Annotated[list[str] | None, WrapValidator(none_if_invalid)]
"""A list of such words."""
Object = Annotated[dict[str, Any] | None, WrapValidator(none_if_invalid)]
"""An object of which fields are read that may be anything."""

ANYTHING: Final[Shape[dict[str, Any]]] = Shape(dict[str, Any])
"""An object of which nothing is read, or which is passed on as it is."""
