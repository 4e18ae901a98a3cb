"""Kinds of jobs that a model can do, and messages for those that it or its backend cannot. Pure.

The shim uses them before it accepts a job, workers for jobs that did not come through the shim.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, get_args

from contract.roster import Capability, ModelReport

ModelKind = Literal["chat", "embed", "image", "rerank"]
"""Kinds of jobs that run a model; the other kinds manage models."""
MODEL_KINDS: Final[tuple[ModelKind, ...]] = get_args(ModelKind)
_NAMED: Final = 5
"""Names that a message lists."""


def kinds(reports: Iterable[ModelReport], capabilities: Iterable[Capability]) -> list[ModelKind]:
    """Kinds of jobs that a model can do: as its server reports, else as its backend can.

    Without a report, kinds that the model is known to lack are left out. Empty if nothing is known.
    """
    every, able = list(reports), set(capabilities)
    reported = [kind for kind in MODEL_KINDS if any(kind in report.traits for report in every)]
    return reported or [kind for kind in MODEL_KINDS if kind in able and not lacks(every, kind)]


def lacks(reports: Iterable[ModelReport], kind: str) -> bool:
    """Whether all reports of a model say that it cannot do a kind of job."""
    every = list(reports)
    return bool(every) and all(kind in report.lacks for report in every)


def rank(found: Sequence[ModelKind]) -> int:
    """The sort rank of a model with these kinds: 0 for chat, 1 for unknown, 2 for others."""
    if "chat" in found:
        return 0
    return 2 if found else 1


def not_for(model: str, kind: str, does: Sequence[str], others: Sequence[str]) -> str:
    """The message for a model that cannot do `kind`: what it can do, and which models can."""
    is_for = f"is for {' and '.join(does)} jobs, not for {kind}" if does else f"does no {kind} jobs"
    models = f"models for {kind}: {listed(others)}" if others else f"no live model does {kind}"
    return f"The model {model[:80]} {is_for}; {models}."


def cannot(backend: str, kind: str, capabilities: Sequence[str]) -> str:
    """The message for a backend that cannot do `kind`, with what it can do."""
    return f"Backend {backend} cannot do {kind}; it can do {', '.join(capabilities) or 'nothing'}."


def listed(names: Sequence[str], most: int = _NAMED) -> str:
    """The first `most` names of a list, and the number of the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
