"""Comparison of model names: a name without a tag is the same as with the tag `latest`. Pure.

`qwen3` and `qwen3:latest` are one model to Ollama, and so to the whole fleet: model names are
compared only by these functions, and at a claim by `relay/lua/queues/claim.lua`, which repeats the
rules of the tag (`untagged`) and of the context length (`variant`). A path means the model named by
its last part, because servers that name a model by its file are listed here by the file's name
alone.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Final, TypeVar

from contract.requests import Request

LATEST: Final = ":latest"
_PATH: Final = re.compile(
    r"(?:[A-Za-z]:[\\/]|\\\\|[/~]|\.{1,2}[\\/]).*|[^\\/]*+[\\/].*\.gguf",
    re.IGNORECASE | re.DOTALL,
)
"""Absolute on any system, or relative to a folder; `owner/model` is no path."""
_SEPARATORS: Final = re.compile(r"[\\/]+")
_REMEMBERED: Final = 4096
"""Names whose forms are remembered: each job asks for those of its model some ten times."""
_CLOSE: Final = 0.75
"""Similarity (0 to 1) from which a name may be a misspelling of another: `phi3` and `phi4`."""
_LESS: Final = 0.15
"""How much less similar than the best a name may be."""
_SIGNIFICANT: Final = 3
"""Characters from which a part of a name is compared."""

Known = TypeVar("Known")


def is_path(model: str) -> bool:
    """Whether a name is the path of a file or a folder of models."""
    return _PATH.fullmatch(model) is not None


def base_name(model: str) -> str:
    """The last part of a path; the name itself if it has no other."""
    parts = [part for part in _SEPARATORS.split(model) if part]
    return parts[-1] if parts else model


@lru_cache(_REMEMBERED)
def untagged(model: str) -> str:
    """The name that all spellings of a model share, for use as a key."""
    return (base_name(model) if is_path(model) else model).removesuffix(LATEST)


def is_same(one: str, other: str) -> bool:
    """Whether two names mean one model."""
    return untagged(one) == untagged(other)


def spellings(models: Iterable[str]) -> set[str]:
    """Every spelling of these models, for comparisons of plain text."""
    bare = {untagged(model) for model in models}
    return bare | {f"{model}{LATEST}" for model in bare if ":" not in model}


def find(models: Mapping[str, Known], model: str) -> tuple[str, Known] | None:
    """The entry of a model and the name it is listed under; an exact match is preferred."""
    if model in models:
        return model, models[model]
    return next(((name, it) for name, it in models.items() if is_same(name, model)), None)


def close(name: str, names: Iterable[str], most: int = 5) -> list[str]:
    """Up to `most` names that are similar to `name`, the most similar first.

    Similar is a name that contains the other (`llama` and `llama3.2:3b-instruct`), or that differs
    in a letter or two of the part between the maker and the tag, and hardly less than the most
    similar one. Ignores case.
    """
    similarity = {each: _similarity(_stem(name), _stem(each)) for each in names}
    least = max(_CLOSE, max(similarity.values(), default=0) - _LESS)
    found = [each for each in sorted(similarity) if similarity[each] >= least]
    return sorted(found, key=lambda each: -similarity[each])[:most]


def _stem(name: str) -> str:
    return name.lower().rpartition("/")[2].partition(":")[0]


def _similarity(one: str, other: str) -> float:
    ratio = SequenceMatcher(None, one, other).ratio()
    shorter, longer = sorted((one, other), key=len)
    holds = len(shorter) >= _SIGNIFICANT and shorter in longer
    return max(ratio, _CLOSE) if holds else ratio


_MARK: Final = "#ctx="
_CONTEXT: Final = re.compile(rf"{_MARK}\d+$")


def variant(model: str, context_length: int | None) -> str:
    """The variant of a model with this context length in tokens; None: the server's default."""
    return model if context_length is None else f"{model}{_MARK}{context_length}"


@lru_cache(_REMEMBERED)
def model_of(loaded: str) -> str:
    """The model of a variant."""
    return _CONTEXT.sub("", loaded)


@lru_cache(_REMEMBERED)
def canonical(loaded: str) -> str:
    """The name that all spellings of a variant share."""
    model = model_of(loaded)
    return untagged(model) + loaded[len(model) :]


def all_spellings(loaded: Iterable[str]) -> set[str]:
    """Every spelling of these variants."""
    return {
        name + each[len(model_of(each)) :]
        for each in loaded
        for name in spellings([model_of(each)])
    }


def context_length_of(request: Request) -> int | None:
    """The context length (tokens) to load the model with, if the request sets one."""
    length: int | None = getattr(request, "context_length", None)
    return length
