"""The request types of installed clients, walked: each field on each level, with a body around it.

`openai` describes its requests with TypedDicts, `ollama` with pydantic models. Members of a union
are told apart by their `type` or `role`, as in `messages[user].content[text].text`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
)

from pydantic import BaseModel
from typing_extensions import get_type_hints, is_typeddict

TAG = re.compile(r"\[\w+\]|\(\w+\)")
_WRAPPERS = (Required, NotRequired, Annotated)
_SCALARS: dict[Any, tuple[Any, Any]] = {
    str: ("x", "y"),
    bool: (True, False),
    int: (1, 2),
    float: (0.5, 0.25),
}


class Field(NamedTuple):
    """A field of a request, and bodies in which it is all that differs."""

    path: str
    """As in `tools[function].function.strict`."""
    bodies: tuple[Any, ...]
    """With one value and with another."""
    without: Any
    """Without it."""

    @property
    def told(self) -> str:
        """The path as a shim tells it: `tools[].function.strict`."""
        return TAG.sub(lambda tag: "[]" if tag[0][0] == "[" else "", self.path)


Wrap = Callable[[Any], Any]
Values = Mapping[str, tuple[Any, ...]]


def fields(
    kind: type[Any],
    values: Values,
    besides: Mapping[str, Any],
    *,
    wrap: Wrap = lambda value: value,
    path: str = "",
    seen: frozenset[Any] = frozenset(),
) -> Iterator[Field]:
    """Every field of a request type that is no mere container of others.

    `values` are those to send where any would not do; `besides` is what must stand beside a field,
    by the path of the object in which it stands.
    """
    hints = _hints(kind)
    base = {name: _values(hint, _joined(path, name), values)[0] for name, hint in hints.items()
            if _is_required(kind, name)} | dict(besides.get(path, {}))  # fmt: skip
    for name, hint in hints.items():
        at = _joined(path, name)
        if name in {"type", "role"} and len(_literals(hint)) == 1:
            continue
        without = wrap({key: value for key, value in base.items() if key != name})
        if at in values or not _is_container(hint):
            found = _values(hint, at, values)
            yield Field(at, tuple(wrap({**base, name: value}) for value in found), without)
        for inner, tag, is_listed in _typed(hint):
            if inner in seen:
                continue

            def wrapped(value: Any, name: str = name, *, listed: bool = is_listed) -> Any:
                return wrap({**base, name: [value] if listed else value})

            below = f"{at}[{tag}]" if is_listed else f"{at}({tag})" if tag else at
            yield from fields(inner, values, besides, wrap=wrapped, path=below, seen=seen | {kind})


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _hints(kind: Any) -> dict[str, Any]:
    if is_typeddict(kind):
        return get_type_hints(kind, include_extras=True)
    return {
        field.serialization_alias or field.alias or name.rstrip("_"): field.annotation
        for name, field in kind.model_fields.items()
    }


def _is_required(kind: Any, name: str) -> bool:
    """A TypedDict whose annotations are text does not know itself (`__required_keys__`)."""
    if is_typeddict(kind):
        return get_origin(_hints(kind)[name]) is Required
    return name in kind.model_fields and bool(kind.model_fields[name].is_required())


def _members(hint: Any) -> Iterator[Any]:
    """The members of a union, wrappers taken off."""
    origin = get_origin(hint)
    if origin in {Union, UnionType}:
        for each in get_args(hint):
            yield from _members(each)
    elif origin in _WRAPPERS:
        yield from _members(get_args(hint)[0])
    elif hint is not NoneType:
        yield hint


def _is_typed(kind: Any) -> bool:
    """What has fields; not what writes itself as something else, as an image does."""
    if is_typeddict(kind):
        return True
    is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
    return is_model and not kind.__pydantic_decorators__.model_serializers


def _element(member: Any) -> Any:
    """What a list holds; None if it is no list."""
    origin = get_origin(member)
    is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    if origin is None or origin is Literal or is_mapping:
        return None
    return get_args(member)[0]


def _typed(hint: Any) -> Iterator[tuple[Any, str, bool]]:
    """The structured members of a field, what tells each apart, and whether it is in a list."""
    for member in _members(hint):
        if _is_typed(member):
            yield member, _tag(member), False
        elif (element := _element(member)) is not None:
            for each, tag, _ in _typed(element):
                yield each, tag, True


def _is_container(hint: Any) -> bool:
    """Whether it holds nothing but structures, whose own fields say what becomes of it."""
    return all(
        _is_typed(member) or ((element := _element(member)) is not None and _is_container(element))
        for member in _members(hint)
    )


def _tag(kind: Any) -> str:
    hints = _hints(kind)
    for name in ("type", "role"):
        literals = _literals(hints.get(name))
        if len(literals) == 1:
            return str(literals[0])
    return ""


def _literals(hint: Any) -> list[Any]:
    members = list(_members(hint)) if hint is not None else []
    if not members or any(get_origin(member) is not Literal for member in members):
        return []
    return [value for member in members for value in get_args(member)]


def _values(hint: Any, path: str, values: Values) -> tuple[Any, ...]:
    """Two values for a field, or one where there is one only."""
    if path in values:
        return values[path]
    literals = _literals(hint)
    if literals:
        return tuple(literals[:2])
    member = next(_members(hint))
    if _is_typed(member):
        required = {
            name: _values(inner, _joined(path, name), values)[0]
            for name, inner in _hints(member).items()
            if _is_required(member, name)
        }
        return (required,)
    if (element := _element(member)) is not None:
        return tuple([each] for each in _values(element, path, values))
    if isinstance(get_origin(member) or member, type) and issubclass(
        get_origin(member) or member, Mapping
    ):
        return ({"a": "b"}, {"a": "c"})
    return _SCALARS.get(member, ("x", "y"))
