"""When two names mean one model: a name without a tag is the one tagged `latest`. Pure.

`qwen3` and `qwen3:latest` are one model to Ollama, and so to everybody here: whoever compares
models' names does it with these functions. A path of some machine means the model that is named by
its last part: servers that name a model by its file are known here by the file's name alone.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from typing import Final, TypeVar

from contract.requests import Request

LATEST: Final = ":latest"
_PATH: Final = re.compile(
    r"(?:[A-Za-z]:[\\/]|\\\\|[/~]|\.{1,2}[\\/]).*|.*[\\/].*\.gguf", re.IGNORECASE | re.DOTALL
)
"""Absolute on any system, or relative to some folder; `owner/model` is none."""
_SEPARATORS: Final = re.compile(r"[\\/]+")
_CLOSE: Final = 0.75
"""Likeness from which a name may be another one mistyped: `phi3` and `phi4`."""
_TELLING: Final = 3
"""Letters from which a part of a name tells something."""

Known = TypeVar("Known")


def is_path(model: str) -> bool:
    """Whether a name says where a file or a folder of models lies."""
    return _PATH.fullmatch(model) is not None


def base_name(model: str) -> str:
    """The last part of a path; the name itself if it has no other."""
    parts = [part for part in _SEPARATORS.split(model) if part]
    return parts[-1] if parts else model


def untagged(model: str) -> str:
    """The name that all spellings of a model share; what to index models by."""
    return (base_name(model) if is_path(model) else model).removesuffix(LATEST)


def is_same(one: str, other: str) -> bool:
    """Whether two names mean one model."""
    return untagged(one) == untagged(other)


def spellings(models: Iterable[str]) -> set[str]:
    """Every way to write these models, where names can only be compared as they are."""
    bare = {untagged(model) for model in models}
    return bare | {f"{model}{LATEST}" for model in bare if ":" not in model}


def find(models: Mapping[str, Known], model: str) -> tuple[str, Known] | None:
    """The entry of a model, with the name that it is listed under; the exact name goes first."""
    if model in models:
        return model, models[model]
    return next(((name, it) for name, it in models.items() if is_same(name, model)), None)


def close(name: str, names: Iterable[str], most: int = 5) -> list[str]:
    """Names that may have been meant, the likest first; none where none is close.

    Close is what holds the other (`llama` and `llama3.2:3b-instruct`), or differs by a letter or
    two in the part between the maker and the tag. Without regard to case.
    """
    likeness = {each: _likeness(_stem(name), _stem(each)) for each in names}
    found = [each for each in sorted(likeness) if likeness[each] >= _CLOSE]
    return sorted(found, key=lambda each: -likeness[each])[:most]


def _stem(name: str) -> str:
    return name.lower().rpartition("/")[2].partition(":")[0]


def _likeness(one: str, other: str) -> float:
    ratio = SequenceMatcher(None, one, other).ratio()
    shorter, longer = sorted((one, other), key=len)
    holds = len(shorter) >= _TELLING and shorter in longer
    return max(ratio, _CLOSE) if holds else ratio


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
