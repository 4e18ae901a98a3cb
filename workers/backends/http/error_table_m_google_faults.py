"""What the `details` of a Google error say: a delay, a daily quota, a key that is no key. No I/O.

Gemini and Vertex answer `{"error": {code, message, status, details}}`, some streams an array of
one of it (`google.rpc` error details). Each detail names its type in `@type`, as in
`type.googleapis.com/google.rpc.RetryInfo`.
"""

from collections.abc import Iterator
from typing import Any, Final

DAILY_QUOTA: Final = "quota_per_day"
"""The word for a quota that a short wait does not bring back."""


def unwrapped(answer: Any) -> Any:
    """The error itself, if it came as an array of one."""
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        return answer[0]
    return answer


def words(error: dict[str, Any]) -> str:
    """Status, reasons and quota as words to look for."""
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
    """Seconds of `RetryInfo.retryDelay`, which is written as "12.5s"."""
    for detail in _details(error, "RetryInfo"):
        try:
            return max(0.0, float(str(detail.get("retryDelay")).removesuffix("s")))
        except ValueError:
            continue
    return None


def _details(error: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and str(detail.get("@type")).endswith(f".{kind}"):
            yield detail
