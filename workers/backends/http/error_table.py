"""What a backend's error answer means: status and body to one class of our tree. No I/O.

One row of the table a class. No message that leaves here
holds a key, a password of a URL, or a page of HTML.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from contract.errors_m_backend_errors import (
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
from workers.backends.http import error_table_m_busy, error_table_m_google_faults
from workers.backends.http.error_table_m_context_words import CONTEXT_WORDS

MESSAGE_LIMIT: Final = 500
"""Characters of a backend's own words that we repeat."""

_CLIENT: Final = frozenset({*range(400, 500), 501, 0})
_SERVER: Final = frozenset({*range(500, 600), 0})
_ANY: Final = _CLIENT | _SERVER
_WAITS: Final = _SERVER | error_table_m_busy.STATUSES | {409}
"""Where words of error_table.py count; what a 400 quotes of the request must not."""


class _Row(NamedTuple):
    error: type[BackendError]
    statuses: frozenset[int]
    """0 stands for an error inside a stream, which has no status of its own."""
    needles: tuple[str, ...]
    """Lower case; one of them in type, code or message is enough."""


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
            error_table_m_google_faults.DAILY_QUOTA,
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
    _Row(ModelLoading, _WAITS, error_table_m_busy.LOADING_WORDS),
    _Row(BackendBusy, _WAITS, error_table_m_busy.BUSY_WORDS),
    _Row(BackendBusy, frozenset({409}), error_table_m_busy.CONFLICT_WORDS),
    _Row(BackendBusy, error_table_m_busy.STATUSES, ("",)),
)

_MODEL_MISSING: Final = re.compile(
    r"\bmodel [\"'`]?[^\"'`]{0,256}[\"'`]? ?(?:was )?(?:not found|does not exist)", re.IGNORECASE
)
_TITLE: Final = re.compile(r"<title[^>]*>([^<]{1,120})", re.IGNORECASE)
_SECRETS: Final = (
    (re.compile(r"(?<=://)[^/@\s]+@"), ""),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\b(?:sk|pk|rk|gsk|hf|xai)[-_][\w*-]{6,}"), "***"),
    (re.compile(r"\b(?:AIza|ya29\.)[\w.-]{6,}"), "***"),
    (re.compile(r"(?i)\b(key|token|api_key)=[^&\s]+"), r"\1=***"),
)


def error_from(
    status: int,
    body: bytes | str,
    headers: Mapping[str, str] | None = None,
    *,
    secrets: Iterable[str] = (),
) -> BackendError:
    """The error that an answer with this status and body means; status 200 may be one, too."""
    answer = _parsed(body)
    if answer is None:
        text = body if isinstance(body, str) else body.decode("utf-8", "replace")
        made = _made(status, "", _readable(text), headers, secrets)
        made.scope = _scope(made, status)
        return made
    return error_in(answer, status=status, headers=headers, secrets=secrets)


def error_in(
    answer: Any,
    *,
    status: int = 0,
    headers: Mapping[str, str] | None = None,
    secrets: Iterable[str] = (),
) -> BackendError:
    """The error that a JSON value means: an answer's body, or an item in the middle of a stream.

    `error` is an object (OpenAI, llama-server, vLLM), or a string (Ollama, LM Studio, vLLM's 401);
    some put `message` or `detail` at the top. `code` is an int, a string or null.
    """
    answer = error_table_m_google_faults.unwrapped(answer)
    fields = answer if isinstance(answer, dict) else {"error": answer}
    error = fields.get("error") or fields
    if not isinstance(error, dict):
        error = {"message": fields.get("message") or error, "type": error}
    message = error.get("message") or error.get("detail") or error.get("error") or error
    kind = f"{error.get('type') or ''} {error.get('code') or ''}"
    inside = status
    if status < 400:  # noqa: PLR2004 - an error in a stream, or a 200 that is none
        inside = _status_inside(fields, error)
    kind = f"{kind} {error_table_m_google_faults.words(error)}"
    made = _made(inside, kind, _readable(str(message)), headers, secrets)
    made.scope = _scope(made, status)
    if made.retry_after_s is None:
        made.retry_after_s = error_table_m_google_faults.retry_delay_s(error)
    return made


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without keys: those given, and whatever looks like one."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    for pattern, substitute in _SECRETS:
        text = pattern.sub(substitute, text)
    return text


def retry_after_s(headers: Mapping[str, str] | None) -> float | None:
    """Seconds that the headers ask to wait: `retry-after-ms`, or `retry-after` in either form."""
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(lower[name]) * unit_s)
        except (KeyError, ValueError):
            continue
    try:
        at = parsedate_to_datetime(lower["retry-after"])
    except (KeyError, ValueError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _made(
    status: int,
    kind: str,
    text: str,
    headers: Mapping[str, str] | None,
    secrets: Iterable[str],
) -> BackendError:
    error = _classified(status, f"{kind} {text}".lower())
    shown = redacted(text, secrets) or "the backend gave no reason"
    note = f" (HTTP {status})" if status else ""
    return error(shown + note, upstream_status=status or None, retry_after_s=retry_after_s(headers))


def _scope(error: BackendError, status: int) -> Scope:
    """Whose trouble it is; what was said in an answer that had begun well is the request's own."""
    is_fault = isinstance(error, ServerFault) and status >= 500  # noqa: PLR2004 - the class
    return "model" if is_fault else error.scope


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
        title = _TITLE.search(text[:20000])
        return f"an HTML page titled {title.group(1).strip()!r}" if title else "an HTML page"
    text = " ".join(text.split())
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 3] + "..."
