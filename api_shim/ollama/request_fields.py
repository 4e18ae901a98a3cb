"""Fields that requests of several endpoints share: options, `think`, `format`, `keep_alive`. Pure.

Unknown fields are accepted, as Ollama does, and reported; invalid values are refused with Ollama's
names of the fields. Source: ollama/ollama `api/types.go` (Options, ThinkValue).
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from api_shim.http.problems import message_of_translated
from api_shim.submission.ignored_fields import LenientModel
from contract.chat import JsonFormat, ResponseFormat, SchemaFormat, TextFormat, Think
from contract.errors import InvalidRequest
from contract.requests import Request, Word

AnyKind = TypeVar("AnyKind", bound=Request)

_THINK: Final[Mapping[bool | str, Think]] = {
    True: "on",
    False: "off",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "xhigh",
}
_OPTIONS: Final[Mapping[str, str]] = {
    "num_predict": "max_tokens",
    "num_ctx": "context_length",
    **{
        name: name
        for name in (
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "seed",
            "stop",
            "frequency_penalty",
            "presence_penalty",
            "repeat_penalty",
        )
    },
}
"""Ollama's options that mean the same on every backend, and their names in the contract."""
_NEGATIVE_IS_NONE: Final = frozenset({"num_predict", "top_k", "seed"})
"""Options whose negative values mean no limit, or the default."""


class OllamaRequestBody(LenientModel):
    """A part of a request's body; unknown fields are reported in X-Fleet-Ignored."""


class OllamaRequest(OllamaRequestBody):
    """The body of a request."""

    backend: Word | None = None
    """Name of the backend, an addition of ours for fleets where several have the model."""


class NamedModel(OllamaRequest):
    """A request about a model."""

    model: Word = ""
    name: Word | None = None
    """The older name of `model`."""

    @property
    def model_name(self) -> str:
        """The model's name; raises InvalidRequest."""
        found = self.model or self.name or ""
        if not found:
            raise InvalidRequest("model: required; `ollama list` shows all models")
        return found


class Options(OllamaRequestBody):
    """The options that mean the same on every backend; others are specific to Ollama."""

    num_predict: Any = None
    """A negative number means no limit."""
    num_ctx: Any = None
    temperature: Any = None
    top_p: Any = None
    top_k: Any = None
    min_p: Any = None
    seed: Any = None
    stop: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    repeat_penalty: Any = None


_WITHOUT_WORDS: Final = frozenset({"model", "name", "backend", "stream", "keep_alive"})


def unused_when_loading(body: NamedModel) -> tuple[str, ...]:
    """Fields of a request that have no effect because it only loads or unloads a model."""
    fields = body.model_dump(exclude_none=True, exclude=set(_WITHOUT_WORDS))
    return tuple(name for name, value in fields.items() if value)


def build_request(kind: type[AnyKind], /, **fields: Any) -> AnyKind:
    """A request of the contract; raises InvalidRequest with Ollama's names of the fields."""
    try:
        return kind(**{name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = [_theirs(str(step)) for step in first["loc"]]
        raise InvalidRequest(f"{'.'.join(path)}: {message_of_translated(first)}") from None


def _theirs(field: str) -> str:
    names = {ours: f"options.{theirs}" for theirs, ours in _OPTIONS.items()}
    return {**names, "response_format": "format", "keep_alive_s": "keep_alive"}.get(field, field)


def options(given: Options | None) -> dict[str, Any]:
    """The options as fields of a `ChatRequest`; raises InvalidRequest."""
    fields: dict[str, Any] = {}
    for theirs, ours in _OPTIONS.items():
        value = getattr(given, theirs, None)
        if value is None or (theirs in _NEGATIVE_IS_NONE and _is_unlimited(theirs, value)):
            continue
        fields[ours] = (value,) if theirs == "stop" and isinstance(value, str) else value
    return fields


def _is_unlimited(name: str, value: Any) -> bool:
    lowest = 1 if name == "num_predict" else 0
    return isinstance(value, int | float) and value < lowest


def thinking(value: bool | str | None) -> Think:  # noqa: FBT001 - it is what the field is
    """The reasoning effort; raises InvalidRequest."""
    if value is None or value == "":
        return "auto"
    if value not in _THINK:
        raise InvalidRequest(
            f'think: invalid think value: {str(value)[:40]!r} (must be "high", "medium", "low", '
            '"max", true, or false)'
        )
    return _THINK[value]


def response_format_of(value: str | Mapping[str, Any] | None) -> ResponseFormat:
    """The format of the response; raises InvalidRequest."""
    if value is None or value == "":
        return TextFormat()
    if value == "json":
        return JsonFormat()
    if isinstance(value, str):
        raise InvalidRequest(
            f'format: invalid format: {value[:40]!r}; expected "json" or a JSON schema (an object)'
        )
    return SchemaFormat(schema_=dict(value))


_NUMBER: Final = r"([0-9]++\.?[0-9]*+|\.[0-9]++)"
"""Its digits are not tried in other ways: that would take the square of their number."""
_PLAIN: Final = re.compile(_NUMBER)
_PART: Final = re.compile(_NUMBER + "(ns|us|µs|μs|ms|s|m|h)")
_SECONDS: Final = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip
_FOR_EVER: Final = -1.0


def keep_alive_s(value: float | str | None) -> float | None:
    """Seconds that a model stays loaded: -1 for ever, 0 not at all, None for the server's default.

    Raises InvalidRequest.
    """
    if value is None or value == "":
        return None
    seconds = _parsed(value) if isinstance(value, str) else float(value)
    return _FOR_EVER if seconds < 0 else seconds


def _parsed(text: str) -> float:
    """Seconds of a duration such as `1h30m`; a number without a unit is seconds."""
    sign, digits = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    seconds, end = 0.0, 0
    if _PLAIN.fullmatch(digits):
        seconds, end = float(digits), len(digits)
    while part := _PART.match(digits, end):
        seconds, end = seconds + float(part[1]) * _SECONDS[part[2]], part.end()
    if end != len(digits) or not digits or math.isinf(seconds):
        raise InvalidRequest(
            'keep_alive: must be a number of seconds or a duration like "5m" or "1h30m"; '
            "-1 keeps the model for ever, 0 unloads it at once"
        )
    return sign * seconds
