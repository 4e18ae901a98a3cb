"""Error responses of backends: status and body to one class of `contract.errors`. No I/O.

`error_from` takes a response, `error_in` a parsed JSON value, also from inside a stream. `_ROWS`
is the table: the first row whose status and words match decides. Google's `details` are read for
reasons, quotas and retry delays. Messages never contain a key, a password of a URL or HTML.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

from pydantic_core import from_json, to_json

from contract.errors import (
    AuthenticationRefused,
    BackendBusy,
    BackendError,
    BackendRejected,
    BadEndpoint,
    ContextExceeded,
    DiskFull,
    InputTooLarge,
    ModelLoading,
    ModelMissing,
    NotSupported,
    QuotaExhausted,
    Refused,
    Scope,
    ServerFault,
)
from telemetry.plain_text import redacted

DAILY_QUOTA: Final = "quota_per_day"
"""The term for a quota that a short wait does not restore."""


def unwrap_array(answer: Any) -> Any:
    """The first object of an array; other values unchanged (Google sends arrays of one error)."""
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        return answer[0]
    return answer


def google_terms(error: dict[str, Any]) -> str:
    """Status, reasons and quota of a google.rpc.Status, as text to match."""
    status = error.get("status")
    found = [status] if isinstance(status, str) else []
    found += [
        str(detail["reason"]) for detail in _details(error, "ErrorInfo") if "reason" in detail
    ]
    for detail in _details(error, "QuotaFailure"):
        violations = detail.get("violations") or ()
        if any("PerDay" in str(violation) for violation in violations):
            found.append(DAILY_QUOTA)
    return " ".join(found)


def retry_delay_s(error: dict[str, Any]) -> float | None:
    """Seconds of google.rpc.RetryInfo `retryDelay` ("12.5s"), None without it."""
    for detail in _details(error, "RetryInfo"):
        try:
            return _wait_s(float(str(detail.get("retryDelay")).removesuffix("s")))
        except ValueError:
            continue
    return None


def _details(error: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and str(detail.get("@type")).endswith(f".{kind}"):
            yield detail


class Phrase(NamedTuple):
    """Words of an error message, in lower case, and the source that writes them."""

    words: str
    source: str


LOADING: Final = (
    Phrase("loading model", "llama-server server.cpp: 503 on every route until the model is there"),
    Phrase("model is loading", "llama.cpp router while a child starts"),
    Phrase("currently loading", "Hugging Face: 503 'Model x is currently loading'"),
    Phrase("not ready", "llama-swap: 503 'process not ready'"),
)
"""The model is being loaded."""

BUSY: Final = (
    Phrase("maximum pending requests", "Ollama server/sched.go ErrMaxQueue, 503"),
    Phrase("server busy", "Ollama server/sched.go ErrMaxQueue, 503"),
    Phrase(
        "model limit reached", "llama.cpp server-models.cpp: 500 while an eviction is under way"
    ),
    Phrase("rate_limit_exceeded", "OpenAI, 429"),
    Phrase("slow_down", "OpenAI, 503"),
    Phrase("overloaded", "OpenAI: 503 server_is_overloaded; Hugging Face; Anthropic: 529"),
    Phrase("resource_exhausted", "Gemini and Vertex, 429"),
    Phrase(
        "too many requests", "the reason phrase of 429, which gateways repeat in a body or stream"
    ),
    Phrase("queue is full", "stable-diffusion.cpp: 429 'job queue is full'"),
)
"""The server is at capacity."""

CONFLICTS: Final = (
    Phrase("try again", "gateways: 409 while another request holds the model"),
    Phrase("busy", "the same"),
    Phrase("already loading", "the same"),
    Phrase("in progress", "the same"),
)
"""Busy in a 409 only, which is a refusal otherwise; in a 500 these words mean nothing."""

LOADING_WORDS: Final = tuple(phrase.words for phrase in LOADING)
BUSY_WORDS: Final = tuple(phrase.words for phrase in BUSY)
CONFLICT_WORDS: Final = tuple(phrase.words for phrase in CONFLICTS)

STATUSES: Final = frozenset({408, 425, 429, 503, 529})
"""Busy whatever the words: 408 is a queue timeout of a gateway, 425 is Too Early."""


CONTEXT_WORDS: Final = (
    "context_length_exceeded",
    "context length exceeded",
    "context length is only",
    "context overflow",
    "context the overflows",  # LM Studio's own spelling
    "context window exceeds limit",
    "exceed_context_size_error",
    "exceed context limit",
    "exceed context window",
    "exceed the configured limit",
    "exceeded model token limit",
    "exceeds the available context size",
    "exceeds the context length",
    "exceeds the context window",
    "exceeds the maximum number of tokens",
    "greater than the context length",
    "longer than the context length",
    "longer than the maximum model length",
    "longer than the model's context length",
    "`inputs` must have less than",
    "`inputs` tokens + `max_new_tokens` must be",
    "input is too long for requested model",
    "maximum allowed input length",
    "maximum context length",
    "maximum prompt length",
    "prompt is too long",
    "model_context_window_exceeded",
    "prompt token count of",
    "prompt too long; exceeded",
    "range of input length should be",
    "reduce the length of the messages",
)


MESSAGE_LIMIT: Final = 500
"""Most characters of a backend's message that are repeated."""

ERROR_BODY_BYTES: Final = 64 * 1024
"""Of the body of an error; what follows is not read."""
_LOOKED_AT: Final = 20_000
"""Characters of such a message, with the white space that is not repeated."""
_KIND_LOOKED_AT: Final = 1000
"""Of a type or code."""
_LONGEST_WAIT_S: Final = 31 * 86_400.0

_CLIENT: Final = frozenset({*range(400, 500), 501, 0})
_SERVER: Final = frozenset({*range(500, 600), 0})
_ANY: Final = _CLIENT | _SERVER
_WAITS: Final = _SERVER | STATUSES | {409}
"""Statuses for which loading and busy words match; a 400 may quote them from the request."""


class _Row(NamedTuple):
    error: type[BackendError]
    statuses: frozenset[int]
    """0 is an error inside a stream, which has no status."""
    needles: tuple[str, ...]
    """Lower case; one of them in type, code or message matches."""


_ROWS: Final = (
    _Row(AuthenticationRefused, frozenset({401, 403}), ("",)),
    _Row(
        QuotaExhausted,
        frozenset({429, 0}),
        (
            "insufficient_quota",
            "credit_balance",
            "spend_limit",
            "usage_limit_exceeded",
            DAILY_QUOTA,
        ),
    ),
    _Row(QuotaExhausted, frozenset({402}), ("",)),
    # Gemini answers 400 to a key it does not know.
    _Row(AuthenticationRefused, _CLIENT, ("api_key_invalid", "api key not valid")),
    _Row(Refused, _ANY, ("content_filter", "content_policy", "moderation_blocked")),
    # llama-server answers 500 to an input longer than its physical batch: permanent all the same.
    _Row(InputTooLarge, _ANY, ("too large to process",)),
    _Row(InputTooLarge, frozenset({413}), ("",)),
    _Row(ContextExceeded, _ANY, CONTEXT_WORDS),
    # LM Studio answers an unknown route with 200, and this text.
    _Row(BadEndpoint, _ANY, ("unexpected endpoint or method",)),
    _Row(
        NotSupported,
        _CLIENT,
        (
            "does not support",
            "not_supported_error",
            "not currently supported",
            "tool choice requires",  # vLLM without --enable-auto-tool-choice
            "notimplementederror",
        ),
    ),
    _Row(NotSupported, frozenset({501}), ("",)),
    _Row(
        ModelMissing,
        _CLIENT,
        (
            "model_not_found",
            "no models loaded",
            "pull model manifest: file does not exist",
            "try pulling it first",
            "is not found for api version",  # Gemini
        ),
    ),
    _Row(
        DiskFull,
        _ANY,
        ("no space left on device", "disk is full", "not enough disk space", "enospc"),
    ),
    _Row(DiskFull, frozenset({507}), ("",)),
    _Row(ModelLoading, _WAITS, LOADING_WORDS),
    _Row(BackendBusy, _WAITS, BUSY_WORDS),
    _Row(BackendBusy, frozenset({409}), CONFLICT_WORDS),
    _Row(BackendBusy, STATUSES, ("",)),
)

_MODEL_MISSING: Final = re.compile(
    r"\bmodel [\"'`]?[^\"'`]{0,256}[\"'`]? ?(?:was )?(?:not found|does not exist)", re.IGNORECASE
)
_TITLE: Final = re.compile(r"<title[^>]*>([^<]{1,120})", re.IGNORECASE)


def error_from(
    status: int,
    body: bytes | str,
    headers: Mapping[str, str] | None = None,
    *,
    secrets: Iterable[str] = (),
) -> BackendError:
    """The error of a response; status 200 may be one, too.

    Sets `retry_after_s` from headers or body, `upstream_status` and `scope`. The message is at
    most `MESSAGE_LIMIT` characters, redacted.
    """
    answer = _parsed(body)
    if answer is None:
        text = body if isinstance(body, str) else body.decode("utf-8", "replace")
        made = _made(status, "", text, headers, secrets)
        made.scope = _scope(made, status)
        return made
    return error_in(answer, status=status, headers=headers, secrets=secrets)


def _text_of(message: Any) -> str:
    """A message as text; JSON, where it is none."""
    if isinstance(message, str):
        return message
    try:
        return to_json(message, inf_nan_mode="null").decode()
    except ValueError:  # of more levels than the encoder has
        return "an error that cannot be shown"


def error_in(
    answer: Any,
    *,
    status: int = 0,
    headers: Mapping[str, str] | None = None,
    secrets: Iterable[str] = (),
) -> BackendError:
    """The error of a JSON value: the body of a response, or an item inside a stream (`status` 0).

    `error` is an object (OpenAI, llama-server, vLLM), or a string (Ollama, LM Studio, vLLM's 401);
    some put `message` or `detail` at the top. `code` is an int, a string or null.
    """
    answer = unwrap_array(answer)
    fields = answer if isinstance(answer, dict) else {"error": answer}
    error = fields.get("error") or fields
    if not isinstance(error, dict):
        error = {"message": fields.get("message") or error, "type": error}
    message = error.get("message") or error.get("detail") or error.get("error") or error
    kind = " ".join(_word(error.get(name)) for name in ("type", "code"))
    inside = status
    if status < 400:  # noqa: PLR2004 - an error in a stream, or a 200 that is none
        inside = _status_inside(fields, error)
    kind = f"{kind} {google_terms(error)[:_KIND_LOOKED_AT]}"
    made = _made(inside, kind, _text_of(message), headers, secrets)
    made.scope = _scope(made, status)
    if made.retry_after_s is None:
        made.retry_after_s = retry_delay_s(error)
    return made


def retry_after_s(headers: Mapping[str, str] | None) -> float | None:
    """Seconds of `retry-after-ms` or `retry-after` (seconds or HTTP date); None without them."""
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return _wait_s(float(lower[name]) * unit_s)
        except (KeyError, ValueError):
            continue
    try:
        at = parsedate_to_datetime(lower["retry-after"])
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return _wait_s((at - datetime.now(UTC)).total_seconds())
    except (KeyError, ValueError, OverflowError):
        return None


def _wait_s(seconds: float) -> float:
    """Seconds as they may be told; raises ValueError for NaN, and for what nobody waits for."""
    if not seconds < _LONGEST_WAIT_S:
        raise ValueError("no time to wait")
    return max(0.0, seconds)


def _made(
    status: int,
    kind: str,
    text: str,
    headers: Mapping[str, str] | None,
    secrets: Iterable[str],
) -> BackendError:
    # A line of 8 MB may be four million words.
    text = text[:_LOOKED_AT]
    error = _classified(status, f"{kind} {_readable(text)}".lower())
    # Before it is cut off: the first half of a key is not known for one.
    shown = _readable(redacted(text, secrets)) or "the backend gave no reason"
    note = f" (HTTP {status})" if status else ""
    return error(shown + note, upstream_status=status or None, retry_after_s=retry_after_s(headers))


def _scope(error: BackendError, status: int) -> Scope:
    """The scope of the error: a fault in a 200 stream is the model's, as one with status 500 is."""
    is_refusal = 400 <= status < 500  # noqa: PLR2004 - the class
    return "model" if isinstance(error, ServerFault) and not is_refusal else error.scope


def _classified(status: int, text: str) -> type[BackendError]:
    for row in _ROWS:
        if status in row.statuses and any(needle in text for needle in row.needles):
            return row.error
    if status in _CLIENT and _MODEL_MISSING.search(text):
        return ModelMissing
    if status == 0 or status >= 500:  # noqa: PLR2004 - the class of status
        return ServerFault
    if status in {404, 405} or status < 400:  # noqa: PLR2004 - redirects and pages are no answer
        return BadEndpoint
    return BackendRejected


def _parsed(body: bytes | str) -> Any:
    try:
        return from_json(body)
    except ValueError:
        return None


def _word(value: Any) -> str:
    return str(value)[:_KIND_LOOKED_AT] if value and isinstance(value, str | int) else ""


def _status_inside(*places: dict[str, Any]) -> int:
    for place in places:
        for name in ("code", "StatusCode", "status_code", "status"):
            value = place.get(name)
            if isinstance(value, int) and 400 <= value < 600:  # noqa: PLR2004 - HTTP's errors
                return value
    return 0


def _readable(text: str) -> str:
    start = text[:2000].lstrip().lower()
    if start.startswith(("<!doctype html", "<html")):
        title = _TITLE.search(text[:_LOOKED_AT])
        return f"an HTML page titled {title.group(1).strip()!r}" if title else "an HTML page"
    text = " ".join(text.split())
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 3] + "..."
