"""A model as it is loaded: its name and the options that a server has to load it anew for. Pure.

To Ollama `num_ctx` is such an option: a runner has one context length, and a request for another
one waits until the runner is idle and is then loaded anew (ollama PR 14407: requests that
alternate can block each other for ever). So two requests mean one model in memory only if they
agree on it; `qwen3#ctx=8192` is `qwen3` loaded with 8,192 tokens of context.
"""

import re
from collections.abc import Iterable
from typing import Final

from contract.model_names import spellings, untagged
from contract.requests import Request

_MARK: Final = "#ctx="
_CONTEXT: Final = re.compile(rf"{_MARK}\d+$")


def variant(model: str, context_length: int | None) -> str:
    """The model with the context length (tokens) that it is loaded with; None: the server's own."""
    return model if context_length is None else f"{model}{_MARK}{context_length}"


def model_of(loaded: str) -> str:
    """The model's name alone."""
    return _CONTEXT.sub("", loaded)


def canonical(loaded: str) -> str:
    """The one spelling that all names of a variant share."""
    model = model_of(loaded)
    return untagged(model) + loaded[len(model) :]


def all_spellings(loaded: Iterable[str]) -> set[str]:
    """Every way to write these variants."""
    return {
        name + each[len(model_of(each)) :]
        for each in loaded
        for name in spellings([model_of(each)])
    }


def context_length_of(request: Request) -> int | None:
    """Tokens of context that a request wants its model loaded with, if it says so."""
    told: int | None = getattr(request, "context_length", None)
    return told
