"""When two names mean one model: a name without a tag is the one tagged `latest`. Pure.

`qwen3` and `qwen3:latest` are one model to Ollama, and so to everybody here: whoever compares
models' names does it with these functions.
"""

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

LATEST: Final = ":latest"

Known = TypeVar("Known")


def untagged(model: str) -> str:
    """The name that all spellings of a model share; what to index models by."""
    return model.removesuffix(LATEST)


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
