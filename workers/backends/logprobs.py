"""Log probabilities of generated tokens, as OpenAI-shaped servers and Ollama write them: pure.

Three layouts are read: a list of tokens (Ollama `api/types.go`), the same list under `content`
(openai/openai-openapi, chat completions), and parallel lists (completions).
"""

from typing import Annotated, Final

from pydantic import WrapValidator, with_config
from typing_extensions import TypedDict

from contract.events import LogProb
from workers.backends.shapes import LENIENT, Measure, Name, none_if_invalid

_LEAST: Final = -9999.0
"""What OpenAI writes for a token of probability 0."""


@with_config(LENIENT)
class TokenLogprob(TypedDict, total=False):
    """One token, its log probability, its UTF-8 bytes and its alternatives."""

    token: Name | None
    logprob: Measure
    bytes: Annotated[list[int] | None, WrapValidator(none_if_invalid)]
    top_logprobs: "list[TokenLogprob] | None"


@with_config(LENIENT)
class LogprobLists(TypedDict, total=False):
    """`logprobs` of a choice: `content` in a chat, parallel lists in a completion."""

    content: list[TokenLogprob] | None
    tokens: list[Name] | None
    token_logprobs: list[Measure] | None
    top_logprobs: list[dict[str, Measure] | None] | None


def read_logprobs(field: LogprobLists | list[TokenLogprob] | None) -> tuple[LogProb, ...] | None:
    """The log probabilities of one chunk's tokens, in order; None if it has none."""
    if not field:
        return None
    if not isinstance(field, dict):
        return tuple(_from_token(item) for item in field) or None
    if field.get("tokens"):
        return _from_lists(field) or None
    return tuple(_from_token(item) for item in field.get("content") or ()) or None


def _from_token(item: TokenLogprob) -> LogProb:
    spelt = item.get("bytes")
    return LogProb(
        token=item.get("token") or "",
        logprob=_clamped(item.get("logprob")),
        bytes=tuple(spelt) if spelt else None,
        top_logprobs=tuple(_from_token(other) for other in item.get("top_logprobs") or ()),
    )


def _from_lists(lists: LogprobLists) -> tuple[LogProb, ...]:
    tokens = lists.get("tokens") or []
    logprobs = lists.get("token_logprobs") or [None] * len(tokens)
    tops = lists.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        LogProb(
            token=token,
            logprob=_clamped(logprob),
            bytes=tuple(token.encode()),
            top_logprobs=tuple(
                LogProb(token=other, logprob=_clamped(value), bytes=tuple(other.encode()))
                for other, value in (top or {}).items()
            ),
        )
        for token, logprob, top in zip(tokens, logprobs, tops, strict=False)
    )


def _clamped(logprob: float | None) -> float:
    """Never infinite or NaN: `Measure` has read those as None."""
    return _LEAST if logprob is None else max(_LEAST, logprob)
