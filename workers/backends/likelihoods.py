"""How likely tokens were, as servers tell it, in the contract's shape: pure, lenient.

OpenAI tells of a chat `{"content": [{token, logprob, bytes, top_logprobs}]}` and of a completion
four parallel lists; Ollama tells the list itself.
"""

from typing import Any, Final

from contract.events import LogProb

_NEVER: Final = -9999.0
"""What OpenAI writes for a token that could not come."""


def likelihoods(told: Any) -> tuple[LogProb, ...] | None:
    """Of the tokens of one fragment; None if nothing is told."""
    if not told:
        return None
    if isinstance(told, dict) and "tokens" in told:
        return _of_lists(told) or None
    items = told.get("content") if isinstance(told, dict) else told
    return tuple(_one(item) for item in items or ()) or None


def _one(item: dict[str, Any]) -> LogProb:
    spelt = item.get("bytes")
    return LogProb(
        token=str(item.get("token") or ""),
        logprob=_number(item.get("logprob")),
        bytes=tuple(spelt) if spelt else None,
        top_logprobs=tuple(_one(other) for other in item.get("top_logprobs") or ()),
    )


def _of_lists(told: dict[str, Any]) -> tuple[LogProb, ...]:
    tokens = told.get("tokens") or []
    logprobs = told.get("token_logprobs") or [None] * len(tokens)
    tops = told.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        LogProb(
            token=str(token),
            logprob=_number(logprob),
            bytes=tuple(str(token).encode()),
            top_logprobs=tuple(
                LogProb(token=other, logprob=_number(likely), bytes=tuple(other.encode()))
                for other, likely in (top or {}).items()
            ),
        )
        for token, logprob, top in zip(tokens, logprobs, tops, strict=False)
    )


def _number(value: Any) -> float:
    """Never an infinity, which JSON has no word for."""
    return max(_NEVER, float(value)) if isinstance(value, int | float) else _NEVER
