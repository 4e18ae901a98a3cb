"""Durations as Ollama writes them: Go's words in `keep_alive`, nanoseconds in answers. Pure.

Source: ollama/ollama `api/types.go` (Duration.UnmarshalJSON), Go's `time.ParseDuration`.
"""

import re
from typing import Any, Final

from contract.errors import InvalidRequest
from contract.events import Done, Timings, Usage
from contract.result import Result

_PART: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS: Final = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip
_FOR_EVER: Final = -1.0
_REASONS: Final = {"length": "length", "content_filter": "content_filter"}
"""Ollama says `stop` where there were tool calls, too."""


def keep_alive_s(value: float | str | None) -> float | None:
    """Seconds that a model stays loaded: -1 is for ever, 0 not at all, None as the server likes.

    Raises InvalidRequest.
    """
    if value is None or value == "":
        return None
    seconds = _parsed(value) if isinstance(value, str) else float(value)
    return _FOR_EVER if seconds < 0 else seconds


def _parsed(text: str) -> float:
    """Read `1h30m`; a number without a unit is seconds, as it is where it is no text."""
    sign, digits = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if re.fullmatch(r"[0-9]+\.?[0-9]*|\.[0-9]+", digits):
        return sign * float(digits)
    seconds, end = 0.0, 0
    for part in _PART.finditer(digits):
        if part.start() != end:
            break
        seconds, end = seconds + float(part[1]) * _SECONDS[part[2]], part.end()
    if end != len(digits) or not digits:
        raise InvalidRequest(
            'keep_alive: it is a number of seconds or a duration like "5m" or "1h30m"; '
            "-1 keeps the model for ever, 0 lets it go at once"
        )
    return sign * seconds


def metrics(told: Done | Result) -> dict[str, Any]:
    """How an answer ended, how many tokens it took, and how long that was.

    Clients make tokens a second of it, so words never took no time at all.
    """
    usage, timings = told.usage, told.timings or Timings()
    load_ms, first_ms = timings.load_ms or 0.0, timings.first_token_ms or 0.0
    total_ms = timings.total_ms or 0.0
    spoken = nanoseconds(total_ms - (timings.queued_ms or 0.0) - first_ms)
    counts = {} if usage is None else _counts(usage)
    return {
        "done_reason": _REASONS.get(told.finish_reason or "stop", "stop"),
        "total_duration": nanoseconds(total_ms),
        "load_duration": nanoseconds(load_ms),
        "prompt_eval_duration": nanoseconds(first_ms - load_ms),
        "eval_duration": max(spoken, 1) if counts.get("eval_count") else spoken,
        **counts,
    }


def _counts(usage: Usage) -> dict[str, int]:
    """As in the original, they are left out where nobody counted."""
    return {"prompt_eval_count": usage.prompt_tokens, "eval_count": usage.completion_tokens}


def nanoseconds(milliseconds: float | None) -> int:
    """What a duration is in an answer; one that nobody measured is 0."""
    return max(0, round((milliseconds or 0.0) * 1e6))
