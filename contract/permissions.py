"""Permissions of API keys: what a key may do, and which of them each kind of job requires."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, get_args

from pydantic import Field

from contract.model_names import untagged
from contract.requests import Kind

Permission = Literal[
    "chat", "embed", "rerank", "image", "files", "batches",
    "models:read", "models:write", "models:admin", "admin",
]  # fmt: skip
"""`models:read` lists models, backends and queues and shows a model; `models:write` pulls, loads
and unloads one; `models:admin` copies, creates and deletes; `admin` has every other one, sees the
jobs of all tenants, and manages backends, queues, aliases and keys."""

EVERY: Final[tuple[Permission, ...]] = get_args(Permission)
USE: Final[tuple[Permission, ...]] = (
    "chat", "embed", "rerank", "image", "files", "batches", "models:read",
)  # fmt: skip
"""The permissions of a key for which nobody has named others: to use models, not to change them."""

OF_KIND: Final[Mapping[Kind, Permission]] = {
    "chat": "chat",
    "count": "chat",
    "embed": "embed",
    "rerank": "rerank",
    "image": "image",
    "show": "models:read",
    "list": "models:read",
    "running": "models:read",
    "pull": "models:write",
    "load": "models:write",
    "unload": "models:write",
    "copy": "models:admin",
    "create": "models:admin",
    "delete": "models:admin",
}
"""What each kind of job requires, on whatever surface it is enqueued."""

MOST_PATTERNS: Final = 100
ModelPattern = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,256}$")]
"""A model's name; `*` stands for any characters."""
BackendPattern = Annotated[str, Field(pattern=r"^[a-z*][a-z0-9_*-]{0,39}$")]
"""A backend's name; `*` stands for any characters."""
ModelPatterns = Annotated[tuple[ModelPattern, ...], Field(min_length=1, max_length=MOST_PATTERNS)]
BackendPatterns = Annotated[
    tuple[BackendPattern, ...], Field(min_length=1, max_length=MOST_PATTERNS)
]


def fits_model(patterns: Sequence[str], model: str) -> bool:
    """Whether a model's name fits one of these patterns; a name without a tag means `latest`."""
    name = untagged(model)
    return any(_fits(untagged(pattern), name) for pattern in patterns)


def fits_backend(patterns: Sequence[str], backend: str) -> bool:
    """Whether a backend's name fits one of these patterns."""
    return any(_fits(pattern, backend) for pattern in patterns)


def _fits(pattern: str, name: str) -> bool:
    """Whether a name fits: its parts in their order, the earliest place of each, so in one pass."""
    first, *others = pattern.split("*")
    if not others:
        return name == first
    *between, last = others
    if not name.startswith(first):
        return False
    at = len(first)
    for part in between:
        at = name.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return len(name) - at >= len(last) and name.endswith(last)
