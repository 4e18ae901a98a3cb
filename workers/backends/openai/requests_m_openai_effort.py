"""How hard one of OpenAI's models is told to think: each generation knows other words.

`none` came with gpt-5.1, `minimal` with gpt-5, `xhigh` after it; the o-models know neither, and
what came before them does not think and answers 400 to the field (openai-openapi f85dbe2).
"""

import re
from typing import Final, NamedTuple

from contract.chat import Think

_THOUGHTLESS: Final = re.compile(r"(?:chatgpt-|ft:)?gpt-(?:3|4)")
_FIRST_FIVE: Final = re.compile(r"gpt-5(?:-|$)")
_O_MODEL: Final = re.compile(r"o\d")


class Effort(NamedTuple):
    """The word to send, None for no word; and whether it says what was wished."""

    word: str | None
    is_exact: bool = True


def effort(model: str, think: Think) -> Effort:
    """The nearest word that the model knows."""
    if think == "auto":
        return Effort(None)
    if _THOUGHTLESS.match(model):
        return Effort(None, is_exact=think == "off")
    if think == "on":
        return Effort("medium")  # what these models do by themselves, or did before gpt-5.1
    if _FIRST_FIVE.match(model):
        return _nearest(think, {"off": "minimal", "xhigh": "high"})
    if _O_MODEL.match(model):
        return _nearest(think, {"off": "low", "minimal": "low", "xhigh": "high"})
    return Effort("none" if think == "off" else think)


def _nearest(think: str, others: dict[str, str]) -> Effort:
    return Effort(others.get(think, think), is_exact=think not in others)
