"""What is wrong with a request, field by field: where, what the limit is, what to do about it.

Pure: pydantic's errors in, ours out. What the caller sent is never repeated.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from contract.wire import Noun

Where = Literal["body", "query", "path", "header"]


class FieldError(Noun):
    """One field that is wrong."""

    field: str
    """Path in the body, as in `messages.0.role`, or the name of a parameter."""
    where: Where
    code: str
    """Kind of mistake, as pydantic calls it: `missing`, `extra_forbidden`, ..."""
    message: str
    limit: str | None = None
    """What is allowed."""
    remedy: str
    """What to do."""


_LIMITS: Final[dict[str, str]] = {
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "matching {}",
    "expected": "one of {}",
    "expected_tags": "one of {}",
}
_REMEDIES: Final[dict[str, str]] = {
    "missing": "add it",
    "json_invalid": "send valid JSON",
    "string_type": "send a string",
    "int_type": "send a whole number",
    "int_parsing": "send a whole number",
    "float_type": "send a number",
    "float_parsing": "send a number",
    "bool_type": "send true or false",
    "bool_parsing": "send true or false",
    "tuple_type": "send an array",
    "dict_type": "send an object",
    "model_type": "send an object",
    "model_attributes_type": "send an object",
    "union_tag_not_found": "add the field that tells the kinds apart",
}


def field_errors(
    errors: Iterable[Any], body: Any, known: Sequence[str] = ()
) -> tuple[FieldError, ...]:
    """Ours for pydantic's; `known` are the body's fields, for a guess at a misspelt one."""
    found = (_field_error(error, body, known) for error in errors)
    return tuple(dict.fromkeys(found))


def _field_error(error: Any, body: Any, known: Sequence[str]) -> FieldError:
    where, *path = error["loc"]
    kind = error["type"]
    name = _as_written(path, body, kind) if where == "body" else ".".join(map(str, path))
    limit = _limit(error.get("ctx", {}))
    return FieldError(
        field=name or str(where),
        where=where if where in {"body", "query", "path", "header"} else "body",
        code=kind,
        message=error["msg"],
        limit="required" if kind == "missing" else limit,
        remedy=_remedy(kind, name, limit, known),
    )


def _as_written(path: Sequence[int | str], body: Any, kind: str) -> str:
    """Only those steps of pydantic's path that the caller wrote.

    Between them pydantic names the members of unions that it tried, which nobody sent.
    """
    steps: list[str] = []
    here = body
    for number, step in enumerate(path, start=1):
        is_key = isinstance(here, dict) and step in here
        is_index = isinstance(here, list) and isinstance(step, int) and step < len(here)
        if is_key or is_index:
            here = here[step]
            steps.append(str(step))
        elif kind == "missing" and number == len(path):
            steps.append(str(step))
    return ".".join(steps)


def _limit(context: dict[str, Any]) -> str | None:
    for key, text in _LIMITS.items():
        if key in context:
            return text.format(context[key])
    return None


def _remedy(kind: str, name: str, limit: str | None, known: Sequence[str]) -> str:
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(name, known, n=1)
        return f"rename it to {close[0]}" if close else "remove it"
    if kind in _REMEDIES:
        return _REMEDIES[kind]
    return f"send a value that is {limit}" if limit else "see /docs for what it takes"
