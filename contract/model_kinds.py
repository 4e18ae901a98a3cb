"""What a model is for, and the sentences that say that it, or its backend, is not for a job. Pure.

Shim and worker say the same: the one before a job waits, the other for jobs that came another way.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, get_args

from contract.roster import Capability, ModelReport

ModelKind = Literal["chat", "embed", "image"]
"""Kinds of jobs that a model itself does; the others are done with models."""
MODEL_KINDS: Final[tuple[ModelKind, ...]] = get_args(ModelKind)
_NAMED: Final = 5
"""Names that a sentence lists."""


def kinds(reports: Iterable[ModelReport], capabilities: Iterable[Capability]) -> list[ModelKind]:
    """What a model is for: what its server tells, else what its backend does and it does not lack.

    Empty where neither is known.
    """
    every, able = list(reports), set(capabilities)
    told = [kind for kind in MODEL_KINDS if any(kind in report.traits for report in every)]
    return told or [kind for kind in MODEL_KINDS if kind in able and not lacks(every, kind)]


def lacks(reports: Iterable[ModelReport], kind: str) -> bool:
    """Whether a model is known not to do a kind of job, wherever it is reported."""
    every = list(reports)
    return bool(every) and all(kind in report.lacks for report in every)


def rank(found: Sequence[ModelKind]) -> int:
    """Where models of these kinds stand in lists: first those that chat, last those that do not."""
    if "chat" in found:
        return 0
    return 2 if found else 1


def not_for(model: str, kind: str, does: Sequence[str], others: Sequence[str]) -> str:
    """Say that a model is there and not for this kind of job, what it is for, and which are."""
    is_for = f"is for {' and '.join(does)} jobs, not for {kind}" if does else f"does no {kind} jobs"
    models = f"models for {kind}: {listed(others)}" if others else f"no live model does {kind}"
    return f"The model {model[:80]} {is_for}; {models}."


def cannot(backend: str, kind: str, capabilities: Sequence[str]) -> str:
    """Say that a backend has no way to do a kind of job, and what it can do."""
    return f"Backend {backend} cannot do {kind}; it can do {', '.join(capabilities) or 'nothing'}."


def listed(names: Sequence[str], most: int = _NAMED) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
