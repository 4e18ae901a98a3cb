"""Fields that responses of several endpoints share: timestamps, durations, token counts. Pure.

Source: ollama/ollama `api/types.go` (Metrics).
"""

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from contract.events import Done, Timings, Usage
from contract.result import Result

_REASONS: Final = {"length": "length", "content_filter": "content_filter"}
"""Ollama has `stop` for tool calls too."""
_AT: Final = b'"at":'


def stamp(at: float) -> bytes:
    """Unix seconds as RFC 3339 with milliseconds."""
    seconds, milliseconds = divmod(round(at * 1000), 1000)
    return b"%s.%03dZ" % (_second(seconds), milliseconds)


def created(body: bytes) -> bytes:
    """The time of an event, from its JSON unparsed: `{"id":...,"at":1767225600.250,...`."""
    at = body.find(_AT) + len(_AT)
    seconds, _, fraction = body[at : body.find(b",", at)].partition(b".")
    return b"%s.%sZ" % (_second(int(seconds)), fraction or b"000")


@lru_cache(maxsize=64)
def _second(seconds: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode()


def metrics(result: Done | Result) -> dict[str, Any]:
    """The finish reason, token counts and durations of a result.

    Clients divide tokens by `eval_duration`, so it is never 0 if there are tokens. The total is of
    two processes' clocks, so that of a short job may be less than its parts.
    """
    usage, timings = result.usage, result.timings or Timings()
    load_ms, first_ms = timings.load_ms or 0.0, timings.first_token_ms or 0.0
    total_ms = timings.total_ms or 0.0
    eval_ns = nanoseconds(total_ms - (timings.queued_ms or 0.0) - first_ms)
    counts = {} if usage is None else _counts(usage)
    eval_ns = max(eval_ns, 1) if counts.get("eval_count") else eval_ns
    return {
        "done_reason": _REASONS.get(result.finish_reason or "stop", "stop"),
        "total_duration": max(nanoseconds(total_ms), nanoseconds(first_ms) + eval_ns),
        "load_duration": nanoseconds(load_ms),
        "prompt_eval_duration": nanoseconds(first_ms - load_ms),
        "eval_duration": eval_ns,
        **counts,
    }


def _counts(usage: Usage) -> dict[str, int]:
    """Token counts; absent if the backend reported none, as with Ollama."""
    return {"prompt_eval_count": usage.prompt_tokens, "eval_count": usage.completion_tokens}


def nanoseconds(milliseconds: float | None) -> int:
    """A duration in nanoseconds; 0 if it was not measured."""
    return max(0, round((milliseconds or 0.0) * 1e6))


def logprob(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the log (`contract.events.LogProb`), without what is empty (`Logprob` there)."""
    alternatives = [_alone(each) for each in entry.get("top_logprobs") or ()]
    return _alone(entry) | ({"top_logprobs": alternatives} if alternatives else {})


def _alone(entry: Mapping[str, Any]) -> dict[str, Any]:
    fields = {"token": entry["token"], "logprob": entry["logprob"]}
    return fields | ({"bytes": entry["bytes"]} if entry.get("bytes") else {})
