"""What is said of a setting that cannot be: its name, its value, its bounds, in one line."""

import os
from collections.abc import Mapping
from typing import Any, Final

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

_LONGEST: Final = 60


def refusal(kind: type[BaseModel], error: ValidationError, given: Mapping[str, Any]) -> str:
    """One line about everything that is wrong; `given` are arguments, which win over variables."""
    return "; ".join(
        _one(str(each["loc"][0]), each, kind, given)
        for each in error.errors(include_url=False, include_context=False)
    )


def _one(name: str, error: Any, kind: type[BaseModel], given: Mapping[str, Any]) -> str:
    field = kind.model_fields.get(name)
    value = "" if field is None or _is_secret(field) else f" = {_shown(error['input'])}"
    bounds = _bounds(field)
    return f"{_origin(name, given)}{value}: {bounds or error['msg']}"


def _origin(name: str, given: Mapping[str, Any]) -> str:
    """The name as whoever set it knows it."""
    if name in given:
        return name
    variable = f"FLEET_{name.upper()}"
    if any(found.upper() == variable for found in os.environ):
        return variable
    return f"fleet.toml: {name}"


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr.__name__ in repr(field.annotation)


def _shown(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _bounds(field: FieldInfo | None) -> str:
    """As in `give a whole number from 1 to 1000`; empty where the field is no number."""
    if field is None or not (said := _limits(field)):
        return ""
    return f"give a {'whole ' if 'int' in repr(field.annotation) else ''}number {said}"


def bounds_of(field: FieldInfo) -> dict[str, float]:
    """A field's limits by `ge`, `gt`, `le` and `lt`."""
    kinds = {Ge: "ge", Gt: "gt", Le: "le", Lt: "lt"}
    return {
        name: getattr(found, name)
        for found in field.metadata
        for kind, name in kinds.items()
        if isinstance(found, kind)
    }


def _limits(field: FieldInfo) -> str:
    limits = bounds_of(field)
    low = f"from {limits['ge']:g}" if "ge" in limits else ""
    low = f"above {limits['gt']:g}" if "gt" in limits else low
    high = f"to {limits['le']:g}" if "le" in limits else ""
    return " ".join(filter(None, (low, high)))
