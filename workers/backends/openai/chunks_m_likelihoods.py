"""How likely tokens were, as servers tell it, in the contract's shape: pure, lenient.

OpenAI tells of a chat `{"content": [{token, logprob, bytes, top_logprobs}]}` and of a completion
four parallel lists; Ollama tells the list itself.
"""

from typing import Final

from contract.events import LogProb
from workers.backends.openai.shapes import Likely, LikelyLists

_NEVER: Final = -9999.0
"""What OpenAI writes for a token that could not come."""


def likelihoods(told: LikelyLists | list[Likely] | None) -> tuple[LogProb, ...] | None:
    """Of the tokens of one fragment; None if nothing is told."""
    if not told:
        return None
    if not isinstance(told, dict):
        return tuple(_one(item) for item in told) or None
    if told.get("tokens"):
        return _of_lists(told) or None
    return tuple(_one(item) for item in told.get("content") or ()) or None


def _one(item: Likely) -> LogProb:
    spelt = item.get("bytes")
    return LogProb(
        token=item.get("token") or "",
        logprob=_number(item.get("logprob")),
        bytes=tuple(spelt) if spelt else None,
        top_logprobs=tuple(_one(other) for other in item.get("top_logprobs") or ()),
    )


def _of_lists(told: LikelyLists) -> tuple[LogProb, ...]:
    tokens = told.get("tokens") or []
    logprobs = told.get("token_logprobs") or [None] * len(tokens)
    tops = told.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        LogProb(
            token=token,
            logprob=_number(logprob),
            bytes=tuple(token.encode()),
            top_logprobs=tuple(
                LogProb(token=other, logprob=_number(likely), bytes=tuple(other.encode()))
                for other, likely in (top or {}).items()
            ),
        )
        for token, logprob, top in zip(tokens, logprobs, tops, strict=False)
    )


def _number(value: float | None) -> float:
    """Never an infinity or NaN, which JSON has no words for: api_shim/openai/schemas.py has made None of them."""
    return _NEVER if value is None else max(_NEVER, value)
