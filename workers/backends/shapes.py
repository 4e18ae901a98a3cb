"""Validation of a backend's JSON before adapters read it.

`Shape.read` validates a parsed value, or raises BadAnswer with the JSON path of the wrong field.
Text, tool calls, vectors and images are strict. Metadata (counts, durations, flags) is lenient:
a value of another type is read as missing. Fields that no adapter reads pass unchanged.

Invariant: an adapter reads only fields whose type its shape has validated; a test feeds mutated
responses to all adapters.
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
from contract.json_texts.json_scan import TooMuch

Fields = TypeVar("Fields")

LENIENT: Final = ConfigDict(extra="allow")
"""Unknown fields are allowed: servers add their own."""
MOST: Final = 2**53
"""The greatest count or duration; JSON readers do not agree on greater integers."""
_MOST_TOKENS: Final = 10**9
"""Of one count; more would fill a tenant's ledger and limits with a number that is made up."""
_MOST_DIGITS: Final = len(str(MOST))
_NAMES: Final[tuple[tuple[type, str], ...]] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (str, "text"),
    (list, "a list"),
    (dict, "an object"),
)


class Shape(Generic[Fields]):
    """The shape of one kind of response."""

    def __init__(self, kind: type[Fields]) -> None:
        """`kind` is a TypedDict, or anything that pydantic can validate."""
        self._validate = TypeAdapter(kind).validator.validate_python

    def read(self, value: Any) -> Fields:
        """The validated value; raises BadAnswer."""
        try:
            return self._validate(value)  # type: ignore[no-any-return]
        except ValidationError as error:
            raise _not_understood(error, value) from None


def invalid_json(error: ValueError, *, is_cut: bool) -> BackendError:
    """The error for invalid JSON: TruncatedStream if the stream ended inside it, else BadAnswer."""
    if is_cut and not isinstance(error, TooMuch):
        return TruncatedStream("the answer ended in the middle of its JSON")
    if isinstance(error, TooMuch):
        return BadAnswer(f"the backend's answer is too large: {error}")
    return BadAnswer(f"the backend's answer is not JSON: {error}")


def _not_understood(error: ValidationError, value: Any) -> BadAnswer:
    """The deepest wrong field: of a union's branches, the one that matched furthest."""
    found = [
        _place(value, each["loc"], is_missing=each["type"] == "missing")
        for each in error.errors(include_url=False)
    ]
    path, what = max(found, key=lambda place: len(place[0]))
    where = "".join(path).removeprefix(".") or "its top"
    return BadAnswer(f"the backend's answer is not understood at {where}: it is {what}")


def _place(value: Any, loc: tuple[int | str, ...], *, is_missing: bool) -> tuple[list[str], str]:
    """The JSON path of a location, without pydantic's names for branches of unions."""
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
    """The kind of a value, without its content."""
    if isinstance(value, float) and not isfinite(value):
        return "a number that is not finite"
    return next((name for kind, name in _NAMES if isinstance(value, kind)), "null")


def none_if_invalid(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """A validator: None for a value that does not validate."""
    try:
        return handler(value)
    except ValidationError:
        return None


def count(value: Any) -> int | None:
    """A whole number from 0 to `MOST`, else None.

    It may be a JSON float (Ollama's `model_info`) or text of digits.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return count(int(value)) if len(value) <= _MOST_DIGITS else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= MOST and value == int(value) else None


def tokens(value: Any) -> int | None:
    """A whole number of tokens, else None: also for more than any answer has."""
    found = count(value)
    return None if found is None or found > _MOST_TOKENS else found


def _token_count(value: Any) -> int | None:
    """A count, None for null; raises ValueError for anything else."""
    found = tokens(value)
    if found is None and value is not None:
        raise ValueError("not a whole number")
    return found


def measure(value: Any) -> float | None:
    """A finite number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -MOST <= value <= MOST else None


def _name(value: Any) -> Any:
    """An id may be a number (LM Studio)."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def object_items(value: Any) -> Any:
    """The objects among the items of a list; [] for null."""
    if value is None:
        return []
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else value


def items_with(field: str) -> Callable[[Any], Any]:
    """A validator that keeps the objects of a list that have this field."""

    def keep(value: Any) -> Any:
        items = object_items(value)
        if not isinstance(items, list):
            return items
        return [each for each in items if each.get(field) not in (None, "")]

    return keep


Count = Annotated[int | None, BeforeValidator(count)]
"""A number of tokens, bytes or the like; None for anything else."""
Tokens = Annotated[int | None, BeforeValidator(tokens)]
"""A number of tokens; None for anything else."""
TokenCount = Annotated[int | None, BeforeValidator(_token_count)]
"""A number of tokens or null; anything else makes the usage unknown."""
Measure = Annotated[float | None, BeforeValidator(measure)]
"""A finite number; None for anything else."""
Name = Annotated[str, BeforeValidator(_name)]
OptionalText = Annotated[str | None, WrapValidator(none_if_invalid)]
"""Descriptive text; None for anything else."""
ObjectList = Annotated[list[dict[str, Any]] | None, WrapValidator(none_if_invalid)]
"""A list of objects that are passed on; None for anything else."""
TextList = Annotated[list[str] | None, WrapValidator(none_if_invalid)]
"""A list of descriptive texts; None for anything else."""
Object = Annotated[dict[str, Any] | None, WrapValidator(none_if_invalid)]
"""An object whose fields may have any type; None for anything else."""

ANYTHING: Final[Shape[dict[str, Any]]] = Shape(dict[str, Any])
"""An object whose fields are not validated."""


class DownloadSums:
    """Bytes of the parts of one download, layers or files, of which each has its own progress."""

    MOST_PARTS: Final = 10_000

    def __init__(self) -> None:
        """No part yet."""
        self._parts: dict[str, tuple[int, int]] = {}
        self.total_bytes = 0
        self.completed_bytes = 0

    def __bool__(self) -> bool:
        """Whether there is a part."""
        return bool(self._parts)

    def put(self, part: str, total_bytes: int, completed_bytes: int) -> None:
        """Take what is now told of a part; raises BadAnswer for one of too many."""
        before = self._parts.get(part, (0, 0))
        self._parts[part] = (total_bytes, completed_bytes)
        if len(self._parts) > self.MOST_PARTS:
            raise BadAnswer(f"the backend's download has more than {self.MOST_PARTS} parts")
        self.total_bytes += total_bytes - before[0]
        self.completed_bytes += completed_bytes - before[1]
